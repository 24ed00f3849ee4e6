"""The states of a reading-wise processor's devices, kept encoded: what is live and what comes back are the same."""

from __future__ import annotations

import dataclasses
import heapq
from typing import Any

import msgspec

from headwater.errors import UNREADABLE, HeadwaterError, UserError
from processors.user.settings import UserLimits

ENTRY_BYTES = 200
"""What a device costs beside its key and its encoded state."""
Pending = tuple[int, int, bytes, bytes, bytes]
"""A reading that waits for its turn: event time, offset, key, value, headers."""


class StateError(HeadwaterError):
    """A state that cannot be kept, or read, or has no room."""


class Codec:
    """One type of state and its bytes. Raises `UserError` for a type that cannot be a state."""

    def __init__(self, kind: Any) -> None:
        self.kind = dict[str, Any] if kind is None or kind is dict else kind
        name = getattr(kind, "__name__", str(kind))
        plain = kind is None or kind is dict or getattr(kind, "__origin__", None) is dict
        if not (plain or dataclasses.is_dataclass(kind) or _is_struct(kind)):
            raise UserError(f"{name} cannot be a state", hint="Use a dataclass, a msgspec.Struct or dict.")
        self._make: Any = dict if plain else kind
        self._encoder = msgspec.msgpack.Encoder()
        try:
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self.kind)
        except TypeError as error:
            raise UserError(f"{name} cannot be a state: {error}") from None
        try:
            self.empty = self._encoder.encode(self._make())
        except TypeError as error:
            raise UserError(f"{name} cannot begin empty: {error}", hint="Give each field a default.") from None

    def decode(self, data: bytes, key: str) -> Any:
        try:
            return self._decoder.decode(data)
        except UNREADABLE as error:
            raise StateError(
                f"the state of {key} cannot be read as {getattr(self.kind, '__name__', self.kind)}: {error}; give new"
                " fields a default, or raise the processor's version to begin with empty state"
            ) from None

    def encode(self, state: Any) -> bytes:
        try:
            data = self._encoder.encode(state)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StateError(f"the state cannot be kept: {error}") from None
        return data


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


class States:
    """State and timers per key, and the readings that wait; a device that is as at its beginning costs nothing."""

    def __init__(self, codec: Codec, limits: UserLimits) -> None:
        self.codec = codec
        self._limits = limits
        self.states: dict[str, bytes] = {}
        self.timers: dict[str, dict[str, int]] = {}
        self.size_bytes = 0
        self._count = 0
        self._due: dict[str, list[tuple[int, str, str]]] = {}  # node -> heap of (time, key, name); some are stale
        self._pending: dict[str, list[Pending]] = {}  # node -> heap

    def get(self, key: str) -> Any:
        return self.codec.decode(self.states.get(key, self.codec.empty), key)

    def put(self, key: str, state: bytes, timers: dict[str, int] | None) -> None:
        """Keep it. Raises `StateError` where there is no room; then nothing has changed."""
        new = self.timers.get(key, {}) if timers is None else timers
        keep = state != self.codec.empty
        before, after = self._cost(key), 0
        if keep or new:
            after = ENTRY_BYTES + len(key) + len(state) * keep + 32 * len(new)
            if not before and self._count >= self._limits.devices_max:
                raise StateError(f"there are {self._limits.devices_max} devices with a state already (devices_max)")
            self._need(after - before)
        self.size_bytes += after - before
        self._count += (after > 0) - (before > 0)
        if keep:
            self.states[key] = state
        else:
            self.states.pop(key, None)
        if timers is None:
            return
        old = self.timers.pop(key, {})
        if timers:
            self.timers[key] = timers
        due = self._due.setdefault(key.partition("/")[0], [])
        for name, time_ms in timers.items():
            if old.get(name) != time_ms:
                heapq.heappush(due, (time_ms, key, name))
        if len(due) > 1024 and len(due) > 4 * len(self.timers):
            self._rebuild_due()

    def _cost(self, key: str) -> int:
        state, timers = self.states.get(key), self.timers.get(key)
        if state is None and timers is None:
            return 0
        return ENTRY_BYTES + len(key) + len(state or b"") + 32 * len(timers or ())

    def _need(self, more: int) -> None:
        if more > 0 and self.size_bytes + more > self._limits.state_max_bytes:
            raise StateError(f"the state would be larger than {self._limits.state_max_bytes} bytes (state_max_bytes)")

    def _rebuild_due(self) -> None:
        self._due = {}
        for key, timers in self.timers.items():
            due = self._due.setdefault(key.partition("/")[0], [])
            due += [(time_ms, key, name) for name, time_ms in timers.items()]
        for due in self._due.values():
            heapq.heapify(due)

    def of_node(self, node: str) -> list[str]:
        """Keys of a node's devices that have a state, sorted."""
        return sorted(key for key in self.states if key.startswith(f"{node}/"))

    # what is due

    def wait(self, node: str, reading: Pending) -> None:
        """Keep a reading until it is due. Raises `StateError` where there is no room."""
        self._need(size := _size(reading))
        self.size_bytes += size
        heapq.heappush(self._pending.setdefault(node, []), reading)

    def next_due(self, node: str, until_ms: int) -> Pending | tuple[int, str, str] | None:
        """The next reading or timer (time, key, name) up to a time; a reading comes before a timer of its time."""
        due, pending = self._due.get(node, []), self._pending.get(node, [])
        while due and self.timers.get(due[0][1], {}).get(due[0][2]) != due[0][0]:
            heapq.heappop(due)
        if pending and pending[0][0] <= until_ms and not (due and due[0][0] < pending[0][0]):
            reading = heapq.heappop(pending)
            self.size_bytes -= _size(reading)
            return reading
        if due and due[0][0] <= until_ms:
            return heapq.heappop(due)
        return None

    def take_timer(self, key: str, name: str) -> dict[str, int]:
        """The timers of a device without the one that is due."""
        return {one: time_ms for one, time_ms in self.timers.get(key, {}).items() if one != name}

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        return {
            "states": dict(self.states),
            "timers": {key: dict(timers) for key, timers in self.timers.items()},
            "pending": {node: sorted(readings) for node, readings in self._pending.items() if readings},
        }

    def restore(self, data: dict[str, Any]) -> None:
        self.states = dict(data["states"])
        self.timers = {key: dict(timers) for key, timers in data["timers"].items()}
        self._pending = {node: [tuple(one) for one in readings] for node, readings in data["pending"].items()}
        self._rebuild_due()
        keys = self.states.keys() | self.timers.keys()
        self._count = len(keys)
        self.size_bytes = sum(map(self._cost, keys)) + sum(_size(one) for of in self._pending.values() for one in of)

    def check(self) -> None:
        """Read one state, so that a type that no longer fits is told at once."""
        for key in self.states:
            self.get(key)
            return

    def __len__(self) -> int:
        return self._count

    @property
    def waiting(self) -> int:
        return sum(map(len, self._pending.values()))


def _size(reading: Pending) -> int:
    return ENTRY_BYTES + len(reading[2]) + len(reading[3]) + len(reading[4])
