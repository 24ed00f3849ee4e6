"""An edge in memory: a forgetful disk, a manual clock and flusher, a loop that runs when told."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from devices.profile_files import read_profiles
from devices.profiles import Profile
from gateway.ingest.marks import MarkSettings
from gateway.ingest.messages import Message
from gateway.ingest.mqtt.sessions import Session, SessionRegistry
from gateway.ingest.pipeline import Ingest
from gateway.ingest.sources import Source
from gateway.log.partition import PartitionLog
from gateway.log.records import decode_batch, decode_headers, split_batches
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk

[TURBINE] = read_profiles(["wind-turbine"])
TOPIC = "farm/t1/telemetry"
QOS1, DUP, QOS2 = 2, 10, 4


class StepLoop:
    """`call_soon` and `call_later`, run by hand."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self.later.append((delay, callback))

    def step(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


@dataclass
class Stored:
    """One record as a reader of the log sees it."""

    offset: int
    timestamp: int
    key: str
    value: Any
    headers: dict[str, bytes]


@dataclass
class Edge:
    """Start it again with the same disk after `power_cut` to see what survived."""

    profiles: Sequence[Profile] = ()
    marks: MarkSettings = field(default_factory=MarkSettings)
    disk: ForgetfulDisk = field(default_factory=ForgetfulDisk)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.loop = StepLoop()
        self.acks: list[tuple[str, list[int]]] = []
        self.lost: list[tuple[str, list[int]]] = []
        self.store = LogStore.open(
            "/data",
            node="edge",
            settings=LogSettings(),
            disk=self.disk,
            clock=self.clock,
            call_in_loop=lambda callback: callback(),
            flusher="manual",
            alarm=lambda problem: None,
        )
        self.ingest = Ingest(
            self.store,
            node="edge",
            profiles=self.profiles,
            marks=self.marks,
            clock=self.clock,
            health=lambda: {"temperature": 41.5},
            loop=self.loop,
        )

    def power_cut(self) -> None:
        """Everything unsynced is gone, and the node starts again."""
        self.disk.power_cut()
        self.start()

    def registry(self) -> SessionRegistry:
        return SessionRegistry(
            self.disk, "/data/node/sessions", tail=self.ingest.tail_uses, sessions_max=100, horizon_ms=5_000
        )

    def attach(self, client: str, session: Session | None = None, *, resumed: bool = False) -> Source:
        """A client as the listener attaches it."""
        source = self.ingest.attach(f"mqtt:{client}", kind="mqtt")
        source.client = client.encode()
        source.memory = session.memory if session is not None else None
        if source.memory is not None:
            source.memory.connection_began(resumed=resumed)
        return source

    def take(self, source: Source, *messages: Message) -> None:
        ids = [message[2] for message in messages]

        def done(stored: bool) -> None:
            (self.acks if stored else self.lost).append((source.id, ids))
            if source.memory is not None and stored:
                source.memory.written(struct.pack(f">{len(ids)}H", *ids), self.clock.monotonic_ms())
            elif source.memory is not None:
                source.memory.forget(ids)

        self.ingest.take(source, list(messages), done)

    def sync(self) -> None:
        self.loop.step()
        self.store.flush_now()

    def readings(self) -> list[Stored]:
        return stored(self.ingest.readings)

    def dead_letters(self) -> list[Stored]:
        return stored(self.ingest.deadletter, decode=False)


def stored(log: PartitionLog, *, decode: bool = True) -> list[Stored]:
    """Every record that a reader may see."""
    found = []
    offset = log.log_start_offset
    while data := log.read(offset, 1 << 20).data:
        for view in split_batches(data):
            columns = decode_batch(view)
            for at, timestamp, key, value, blob in zip(
                columns.offsets, columns.timestamps, columns.keys, columns.values, columns.headers, strict=True
            ):
                headers = {name: content or b"" for name, content in decode_headers(blob)}
                content = msgspec.json.decode(value or b"") if decode else value
                found.append(Stored(at, timestamp, (key or b"").decode(), content, headers))
                offset = at + 1
    return found


def plain(value: float = 1.0, packet_id: int = 1, flags: int = QOS1) -> Message:
    """Of a device that no profile describes."""
    return ("pump", b"%.1f" % value, packet_id, flags)


def turbine(edge: Edge, seq: int, *, packet_id: int = 1, flags: int = QOS1, ts: int | None = None) -> Message:
    """Of a wind turbine, whose profile makes `seq` and the claimed time its natural key."""
    claim = edge.clock.wall_ms() if ts is None else ts
    return (TOPIC, b'{"ts":%d,"seq":%d,"power":812.5}' % (claim, seq), packet_id, flags)


def resumable(edge: Edge, client: str = "c1") -> Source:
    """The client connects with clean session 0, as the listener would let it."""
    registry = edge.registry()
    session, present, unsynced = registry.open(client, clean=False, ends={"readings": 0, "deadletter": 0})
    if unsynced:
        registry.prepare_sync()()
    return edge.attach(client, session, resumed=present)
