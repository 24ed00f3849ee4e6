"""The uplink between the product's own log and its own broker as the central, both on forgetful disks."""

from __future__ import annotations

from typing import Any

from gateway.log.records import (
    Record,
    control_type,
    decode_batch,
    encode_batch,
    encode_control,
    read_header,
    split_batches,
)
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.wire.peer import Peer
from gateway.wire.schema import ApiKey
from headwater.clock import ManualClock
from tests.support import broker_world
from tests.support.edge import reading
from tests.support.uplink_world import NODE, World

Body = dict[str, Any]


class BrokerCentral:
    """A Headwater node as the central: real coordinator, real log; a power cut may take it at any time."""

    def __init__(self, partitions: int) -> None:
        self.world = broker_world.World(partitions_default=partitions, auto_create_topics=False)
        self.concurrent = 0
        self.crashes = 0
        self._began = self.world.clock.monotonic_ms()

    def handle(self, api: ApiKey, body: Body, now: float) -> Body:
        self.tick(now)
        version = 11 if api is ApiKey.PRODUCE else None
        asked = self.world.send(api, body, version=version)
        self.world.settle()
        for _ in range(20):
            if asked.answered:
                break
            self.world.pass_time(100)  # a long poll
            self.world.settle()
        return asked.body

    def tick(self, now: float) -> None:
        behind = now - (self.world.clock.monotonic_ms() - self._began)
        if behind > 0:
            self.world.pass_time(behind)
            self.world.settle()

    def disconnect(self) -> None:
        self.world.broker.disconnected(self.world.peer)
        self.world.peer = Peer("test:2")

    def crash(self, keep_tail_bytes: int) -> None:
        self.crashes += 1
        self.world.crash(keep_tail_bytes=keep_tail_bytes)
        self.world.settle()

    def committed(self, name: str) -> list[Record]:
        """Read by transaction markers alone, without the broker's own idea of what is stable or aborted."""
        rows: list[tuple[int, Record]] = []
        for log in self.world.store.topics[name].partitions if name in self.world.store.topics else ():
            open_rows: dict[int, list[tuple[int, Record]]] = {}
            offset = log.log_start_offset
            while data := log.read(offset, 1 << 20).data:
                for batch in split_batches(data):
                    header = read_header(batch)
                    offset = header.next_offset
                    columns = decode_batch(batch)
                    found = zip(columns.timestamps, columns.keys, columns.values, columns.headers, strict=True)
                    if header.is_control:
                        ended = open_rows.pop(header.producer_id, [])
                        rows += ended if control_type(batch) else []
                    else:
                        open_rows.setdefault(header.producer_id, []).extend(zip(columns.offsets, found, strict=True))
        return [row for _, row in sorted(rows, key=lambda entry: entry[0])]


class StoreWorld(World):
    """The edge's log is a `LogStore`; a power cut may leave torn tails."""

    central: Any

    def __init__(self, seed: int, *, faults: float = 0.0, **settings: Any) -> None:
        self.store: LogStore | None = None
        self.clock = ManualClock()
        self._next_producer = 1_000
        super().__init__(seed, faults=faults, central=BrokerCentral(1 + seed % 3), **settings)  # type: ignore[arg-type]

    def start(self) -> None:
        self.store = LogStore.open(
            "/data",
            node=NODE,
            settings=LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=256),
            disk=self.disk,
            clock=self.clock,
            call_in_loop=lambda action: action(),
            flusher="manual",
        )
        for topic in ("readings", "events"):
            if topic not in self.store.topics:
                self.store.create_topic(topic)
        self.logs = {f"{name}/0": self.store.topics[name].partitions[0] for name in ("readings", "events")}
        for topic, waiting in self._unsynced.items():
            end = self.logs[f"{topic}/0"].log_end_offset
            self.truth[topic] += [row for offset, row in waiting if offset < end]
            waiting.clear()
        for producer, epoch, _, _ in self.logs["readings/0"].open_transactions():
            self._abort(producer, epoch)  # as a node's coordinator does when it starts
        super().start()

    def kill(self) -> None:
        self.kills += 1
        self.disk.power_cut(keep_tail_bytes=self.random.choice([0, 0, 7, 100, 1_000]))
        self.start()

    def append(self, key: str, records: list[Record]) -> int:
        base: int = self.logs[key].append(encode_batch(records), now_ms=int(self.now)).base_offset
        return base

    def flush(self) -> None:
        assert self.store is not None
        self.store.flush_now()

    def ingest_aborted(self, count: int) -> None:
        log, producer = self.logs["readings/0"], self._next_producer
        self._next_producer += 1
        rows = [reading(-1 - n) for n in range(count)]
        batch = encode_batch(rows, producer_id=producer, producer_epoch=0, base_sequence=0, transactional=True)
        log.append(batch, now_ms=int(self.now))
        self._abort(producer, 0)

    def _abort(self, producer: int, epoch: int) -> None:
        now = int(self.now)
        marker = encode_control(
            commit=False, producer_id=producer, producer_epoch=epoch, coordinator_epoch=0, timestamp_ms=now
        )
        self.logs["readings/0"].append(marker, now_ms=now, control=True)
