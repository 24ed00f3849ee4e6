"""A user's processor, a reading at a time: what its methods are handed, and what they may do with it.

class BlockedPump(Processor[Pump]):
    def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None: ...
    def on_timer(self, timer: Timer, device: Device[Pump]) -> None: ...
    def on_mark(self, mark: Mark[Pump]) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from gateway.log.records import decode_headers
from headwater.errors import PeerError
from processors.user.names import Base, Value

S = TypeVar("S")
_TIMERS_MAX = 16


class StoredReading:
    """A reading as it lies in the log.

    fields    what was measured together: numbers, texts, booleans
    time_ms   when, milliseconds since 1970 in UTC
    late      it came after its node had said that its time is over (the node's marks, or backfill after an outage)
    offset    where it lies in its partition
    """

    __slots__ = ("_headers", "fields", "late", "offset", "time_ms")

    def __init__(
        self, fields: Mapping[str, Any], time_ms: int, *, late: bool = False, offset: int = 0, headers: bytes = b"\0"
    ) -> None:
        self.fields = fields
        self.time_ms = time_ms
        self.late = late
        self.offset = offset
        self._headers = headers

    def __getitem__(self, name: str) -> Any:
        """A field, whatever it holds. Raises `KeyError` where the reading has none of this name."""
        return self.fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def number(self, name: str) -> float | None:
        """A field that is a number; None where there is none."""
        found = self.fields.get(name)
        return float(found) if type(found) is float or type(found) is int else None

    def text(self, name: str) -> str | None:
        """A field that is a text; None where there is none."""
        found = self.fields.get(name)
        return found if type(found) is str else None

    def flag(self, name: str) -> bool | None:
        """A field that is true or false; None where there is none."""
        found = self.fields.get(name)
        return found if type(found) is bool else None

    @property
    def quality(self) -> str:
        """What is wrong with it, such as `estimated` or `out-of-range:flow`; "" when it is good (header `hw-q`)."""
        if b"hw-q" not in self._headers:
            return ""
        try:
            return (dict(decode_headers(self._headers)).get("hw-q") or b"").decode(errors="replace")
        except PeerError:
            return ""

    def __repr__(self) -> str:
        return f"StoredReading({dict(self.fields)!r}, time_ms={self.time_ms}{', late=True' if self.late else ''})"


class Timer(NamedTuple):
    """A timer that is due: the node's readings are complete up to `time_ms`."""

    time_ms: int
    name: str = ""


Emit = Callable[[Any, str, str, int], None]
"""(value, topic, key, event time)"""


class Device(Generic[S]):
    """The device that a reading or a timer belongs to: its state, its timers, its outputs.

    Whatever is done here counts when the method returns; when it raises, nothing of it happened.
    """

    __slots__ = ("_about", "_changes", "_emit", "_timers", "key", "state", "time_ms")

    def __init__(
        self, key: str, time_ms: int, state: S, timers: Mapping[str, int], emit: Emit, about: Mapping[str, str]
    ) -> None:
        self.key = key
        """`<node>/<device>`."""
        self.time_ms = time_ms
        """Event time of what is being handled."""
        self.state = state
        """Changed in place or set anew; it is kept by its encoded form."""
        self._timers = timers
        self._changes: dict[str, int] | None = None
        self._emit = emit
        self._about = about

    @property
    def node(self) -> str:
        return self.key.partition("/")[0]

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]

    @property
    def site(self) -> str | None:
        """Where it stands, by its profile or a `[[device]]` section; None where nothing says so."""
        return self._about.get("device.site")

    @property
    def zone(self) -> str | None:
        """Its IANA time zone, such as `Europe/Berlin`; None where nothing says so."""
        return self._about.get("device.zone")

    @property
    def type(self) -> str | None:
        """What it is, such as `pump`; None where nothing says so."""
        return self._about.get("device.type")

    def label(self, name: str) -> str | None:
        """One of its labels; None where it has none of this name."""
        return self._about.get(f"device.labels.{name}")

    def emit(self, value: Value | Any, *, topic: str = "", key: str = "", time_ms: int | None = None) -> None:
        """Write a record: by default to the processor's `out`, under this device's key, at this reading's time."""
        self._emit(value, topic, key or self.key, self.time_ms if time_ms is None else time_ms)

    def set_timer(self, time_ms: float, name: str = "") -> None:
        """Call `on_timer` when this device's node is complete up to `time_ms`; replaces the timer of that name."""
        mine = self._mine()
        if name not in mine and len(mine) >= _TIMERS_MAX:
            raise ValueError(f"more than {_TIMERS_MAX} timers of one device")
        mine[name] = round(time_ms)

    def cancel_timer(self, name: str = "") -> None:
        """Forget a timer; one that is not set is no mistake."""
        if name in (self._timers if self._changes is None else self._changes):
            del self._mine()[name]

    def timer(self, name: str = "") -> int | None:
        """When a timer is due; None when it is not set."""
        return (self._timers if self._changes is None else self._changes).get(name)

    def _mine(self) -> dict[str, int]:
        if self._changes is None:
            self._changes = dict(self._timers)
        return self._changes

    def changed_timers(self) -> dict[str, int] | None:
        """All timers after the call; None when nothing was changed. For the driver."""
        return self._changes


class Devices(Protocol[S]):
    """What a mark needs of the state."""

    def of_node(self, node: str) -> Iterator[Device[S]]: ...


class Mark(Generic[S]):
    """A node has said that its readings are complete up to `watermark_ms` (but for what backfill still owes)."""

    __slots__ = ("_devices", "_emit", "node", "watermark_ms")

    def __init__(self, node: str, watermark_ms: int, devices: Devices[S], emit: Emit) -> None:
        self.node = node
        self.watermark_ms = watermark_ms
        self._devices = devices
        self._emit = emit

    def devices(self) -> Iterator[Device[S]]:
        """The node's devices whose state is not what it begins with, in order of their keys."""
        return self._devices.of_node(self.node)

    def emit(self, value: Value | Any, *, key: str, topic: str = "", time_ms: int | None = None) -> None:
        """Write a record under a key of your own, at the watermark unless told otherwise."""
        self._emit(value, topic, key, self.watermark_ms if time_ms is None else time_ms)


class Processor(Base, Generic[S]):
    """A processor that is handed a reading at a time.

    `S` is the state of one device: a dataclass or a msgspec Struct whose fields have defaults, or dict. It is kept by
    its encoded form (msgpack): what a restart, another machine and the next reading find is the same.
    """

    in_order: ClassVar[bool] = False
    """True: readings come by event time, and with timers between them, when their node's mark has passed them (2 to 3
    seconds later); so nothing depends on the order of arrival. What is late comes at once, marked `late`."""

    def on_reading(self, reading: StoredReading, device: Device[S]) -> None:
        """Called with every reading of the devices that the rule names."""

    def on_timer(self, timer: Timer, device: Device[S]) -> None:
        """Called when a timer is due."""

    def on_mark(self, mark: Mark[S]) -> None:
        """Called when a node's watermark has moved, about once a second and after all timers up to it."""
