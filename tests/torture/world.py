"""A node's disk under a reference workload: everything that writes files below the data directory, in one thread.

Appends, rolls, transactions, expiry, compaction, checkpoints, topics made and deleted, a failed sync, a clean stop, and
the journals of sessions, runs, producer ids and sink positions. `recover` is what a start does and what clients do
then: producers send again what was not acknowledged, the coordinator ends the transactions that were left.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from random import Random

import msgspec

from gateway.ingest.events import Events
from gateway.ingest.mqtt.sessions import SessionRegistry
from gateway.log import records
from gateway.log.errors import DuplicateSequence
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.upkeep import Upkeep
from gateway.replicate.journal import Remembered, RunJournal
from gateway.wire.producer_ids import ProducerIds
from headwater.clock import ManualClock
from headwater.disk import Disk
from headwater.errors import HeadwaterError
from processors.sinks.positions import Positions
from tests.torture.ledger import Ledger, Sent, Transaction, Violation, check

DATA = "/data"
NOW_MS = 1_700_000_000_000
SETTINGS = LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=150, reserve_bytes=2_000)
TOPICS = {
    "t": {"segment.bytes": "1024"},
    "c": {
        "segment.bytes": "1024",
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0",
        "delete.retention.ms": "0",
    },
    "r": {"segment.bytes": "1024", "retention.ms": "3600000"},
}
UNDER_WAY_MAX = 5  # max.in.flight.requests.per.connection of an idempotent producer
FINE = {Outcome.CLEAN, Outcome.TORN_TAIL, Outcome.UNSYNCED_CUT, Outcome.INDEX_REBUILT}
REFUSED = (HeadwaterError, OSError)


class World:
    """One process's life: opened on a disk, driven by `script`, checked against a ledger."""

    def __init__(self, disk: Disk, ledger: Ledger | None = None, *, wall_ms: int = NOW_MS, data: str = DATA) -> None:
        self.disk = disk
        self.data = data
        self.ledger = ledger if ledger is not None else Ledger()
        self.ledger.disconnect()
        self.clock = ManualClock(wall_ms=wall_ms)
        self.alarms: list[str] = []
        self.store = LogStore.open(
            data,
            node="edge-1",
            settings=SETTINGS,
            disk=disk,
            clock=self.clock,
            call_in_loop=lambda callback: callback(),
            flusher="manual",
            alarm=self.alarms.append,
        )
        for name, config in TOPICS.items():
            if name not in self.store.topics:
                self.store.create_topic(name, config=config)
        self.events = Events(self.store, node="edge-1", clock=self.clock)
        self.upkeep = Upkeep(
            self.store,
            clock=self.clock,
            trusted=lambda: True,
            emit=self.events.emit,
            when_synced=self.events.when_synced,
        )
        self.sessions = SessionRegistry(
            disk, f"{data}/node/sessions", tail={}, sessions_max=20, horizon_ms=1_000, now_ms=0.0
        )
        self.ids = ProducerIds(disk, f"{data}/node/producer-ids", at_least=0, fresh=not self.ledger.producer_ids)
        self.positions = Positions(disk, f"{data}/work", "influx", "one")
        said = self.positions.load()
        if said:
            raise Violation(said)
        self.runs = RunJournal.begin(
            disk,
            data,
            first={"r/0": self.log("r").log_end_offset},
            random=Random(len(self.ledger.runs)),
            boot_id="boot",
            wall_ms=self.clock.wall_ms(),
            monotonic_ms=0.0,
        )
        self.ledger.runs.append(self.runs.run)

    def log(self, topic: str) -> PartitionLog:
        return self.store.topics[topic].partitions[0]

    # -- writing

    def append(
        self, topic: str, *, producer: int | None = None, transaction: Transaction | None = None, size: int = 150
    ) -> Sent:
        """One record; a producer's is sent again until it is acknowledged, and before anything that came after it."""
        ledger = self.ledger
        number = ledger.numbers
        ledger.numbers += 1
        value = b"%s:%d:" % (topic.encode(), number) + bytes(b"abcdefgh"[number % 8 : number % 8 + 1]) * size
        sent = Sent(topic, b"k%d" % (number % 3), value, None, producer=producer, transaction=transaction)
        if producer is not None:
            sent.sequence = ledger.sequences.get((topic, producer), 0)
            ledger.sequences[topic, producer] = sent.sequence + 1
            sent.resend = transaction is None
        ledger.sent.append(sent)
        if sent.resend:
            self._send_in_order(topic, sent.producer)
        else:
            self._send(sent)
        return sent

    def _send_in_order(self, topic: str, producer: int | None) -> bool:
        """What an idempotent producer has under way: its oldest five batches. Whether something new is."""
        sent = False
        for each in self.ledger.unacknowledged(topic, producer)[:UNDER_WAY_MAX]:
            if each.offset is None:
                self._send(each)
                if each.offset is None and not each.acked:
                    break
                sent = True
        return sent

    def _send(self, sent: Sent) -> None:
        rows = [(self.clock.wall_ms(), sent.key, sent.value, records.NO_HEADERS)]
        if sent.producer is None:
            data = records.encode_batch(rows)
        else:
            data = records.encode_batch(
                rows,
                producer_id=sent.producer,
                producer_epoch=0,
                base_sequence=sent.sequence,
                transactional=sent.transaction is not None,
            )
        log = self.log(sent.topic)
        try:
            done = log.append(data, now_ms=self.clock.wall_ms())
        except DuplicateSequence:
            sent.acked = True  # as clients take it: it is in the log, its offset is no longer known
            return
        except REFUSED:
            return
        sent.offset = done.base_offset
        log.when_synced(done.next_offset, lambda: _acknowledge(sent, done.base_offset), lambda: _lose(sent))

    def begin(self, topic: str, producer: int, count: int = 2) -> None:
        """A transaction; not before the marker of the producer's last one is on disk, as a coordinator has it."""
        if (topic, producer) in self.ledger.open:
            self.settle()
        if (topic, producer) in self.ledger.open:
            return
        transaction = Transaction(producer)
        self.ledger.open[topic, producer] = transaction
        for _ in range(count):
            self.append(topic, producer=producer, transaction=transaction)

    def end(self, topic: str, producer: int, *, commit: bool) -> None:
        transaction = self.ledger.open.get((topic, producer))
        if transaction is None:
            return
        mine = [each for each in self.ledger.sent if each.transaction is transaction]
        if transaction.ending is None:
            transaction.ending = commit and all(each.acked for each in mine)
        self._mark(topic, producer, transaction)

    def _mark(self, topic: str, producer: int, transaction: Transaction) -> None:
        assert transaction.ending is not None
        control = records.encode_control(
            commit=transaction.ending,
            producer_id=producer,
            producer_epoch=0,
            coordinator_epoch=0,
            timestamp_ms=self.clock.wall_ms(),
        )
        log = self.log(topic)

        def ended() -> None:
            transaction.ended = True
            self.ledger.open.pop((topic, producer), None)

        with contextlib.suppress(*REFUSED):
            done = log.append(control, now_ms=self.clock.wall_ms(), control=True)
            log.when_synced(done.next_offset, ended, lambda: None)

    def flush(self) -> None:
        self.store.flush_now()

    def turn(self, after_ms: int = 20_000) -> None:
        self.clock.advance(after_ms)
        with contextlib.suppress(*REFUSED):
            run_steps(self.upkeep.turn())
        self.flush()

    # -- the journals

    def journals(self) -> None:
        """A change in each, noted as known once the call returned."""
        ledger = self.ledger
        number = len(ledger.sessions)
        with contextlib.suppress(OSError):
            self.sessions.open(f"client-{number}", clean=False, ends={})
            self.sessions.prepare_sync()()
            ledger.sessions.add(f"client-{number}")
        with contextlib.suppress(OSError):
            ledger.producer_ids.append(self.ids.next())
        with contextlib.suppress(OSError):
            known = Remembered(cluster="c", topic_id="i", partition=0, offset=ledger.remembered + 1, txn=1)
            self.runs.remember(known)
            ledger.remembered += 1
        with contextlib.suppress(OSError):
            self.positions.settle({("t", 0): ledger.positions + 1})
            self.positions.save()
            ledger.positions += 1

    def close(self) -> None:
        self.upkeep.close()
        self.store.close()

    # -- after a start

    def check(self, *, settled: bool = False, torn: bool = False) -> None:
        """Raises `Violation`. What upkeep gave up must be named."""
        for topic in sorted(self.ledger.topics()):
            if topic not in self.store.topics:
                raise Violation(f"topic {topic} is gone")
            check(self.ledger, self.log(topic), compacted=topic == "c", settled=settled, torn=torn)

    def check_start(self, *, torn: bool = False) -> None:
        """What holds right after opening: nothing but the usual was found, and every journal knows what it knew.

        `torn`: later sectors may be there without earlier ones. Batches behind such a hole are kept, for nobody can
        tell whether they were acknowledged, and the hole is named.
        """
        fine = FINE | {Outcome.QUARANTINED} if torn else FINE
        if strange := [found for found in self.store.recovered if found.outcome not in fine]:
            raise Violation(f"the start reports {strange}")
        if self.alarms:
            raise Violation(f"the start alarms: {self.alarms}")
        self.check(torn=torn)
        ledger = self.ledger
        for topic in ledger.deleted:
            if topic in self.store.topics:
                raise Violation(f"topic {topic} was deleted and is back")
        if self.runs.damaged:
            raise Violation(f"{self.runs.damaged}")
        known = {entry.run for entry in self.runs.runs}
        if lost := [run for run in ledger.runs if run not in known]:
            raise Violation(f"runs {lost} are not in the journal")
        if lost := [client for client in ledger.sessions if client not in self.sessions]:
            raise Violation(f"sessions {lost} are forgotten")
        if self.sessions.damaged and not torn:
            raise Violation(self.sessions.damaged)
        remembered = self.runs.remembered.offset if self.runs.remembered is not None else 0
        if remembered < ledger.remembered:
            raise Violation(f"the central's record is remembered at {remembered}, not {ledger.remembered}")
        if self.positions.offsets.get(("t", 0), 0) < ledger.positions:
            raise Violation(f"a sink's position went back to {self.positions.offsets}")
        if ledger.producer_ids and self.ids.next() <= max(ledger.producer_ids):
            raise Violation("a producer id is given twice")

    def settle(self) -> None:
        """What the clients do after a start or a failure: send again, end what was left, wait for it."""
        for (topic, producer), transaction in list(self.ledger.open.items()):
            if transaction.ending is None:
                transaction.ending = False
            self._mark(topic, producer, transaction)
        self.flush()
        for topic, producer in self.ledger.sequences:
            while topic in self.store.topics and self._send_in_order(topic, producer):
                self.flush()

    def check_expiry(self) -> None:
        """Every record below a log's start is named by an event on disk, or by the next turns."""
        self.turn()
        self.turn()
        for topic in ("r", "t"):
            start = self.log(topic).log_start_offset
            named: set[int] = set()
            for value in _values(self.log("events")):
                event = msgspec.json.decode(value)
                if event["kind"] == "expiry" and event["topic"] == topic:
                    named |= set(range(event["first"], event["end"]))
            if unnamed := [offset for offset in range(start) if offset not in named]:
                raise Violation(f"{topic}: records {unnamed} are gone and nobody said so")


def _acknowledge(sent: Sent, offset: int) -> None:
    sent.acked, sent.offset = True, offset


def _lose(sent: Sent) -> None:
    sent.offset = None


def _values(log: PartitionLog) -> Iterator[bytes]:
    at = log.log_start_offset
    while data := log.read(at, 4_096).data:
        for view in records.split_batches(data):
            at = records.read_header(view).next_offset
            yield from (value for value in records.decode_batch(view).values if value is not None)


Fail = Callable[[str, OSError], None]
"""(call of `os`, error): the next such call fails."""


def script(world: World, fail: Fail, reopen: Callable[[World], World]) -> Iterator[World]:
    """The reference workload, a step at a time; yields the world that goes on."""
    for number in range(7):
        world.append("t")
        world.append("t", producer=11)
        if number % 2:
            world.flush()
            yield world
    world.begin("t", 21)
    world.flush()
    world.append("t")
    world.end("t", 21, commit=True)
    world.flush()
    yield world
    world.begin("t", 21)
    world.append("t", producer=11)
    world.flush()
    world.end("t", 21, commit=False)
    world.flush()
    yield world
    world.journals()
    yield world
    for number in range(12):
        world.append("c", producer=12 if number % 2 else None)
        world.append("r")
        if number % 3 == 2:
            world.flush()
            yield world
    world.begin("c", 22)
    world.flush()
    world.end("c", 22, commit=False)
    world.turn()
    yield world
    world.turn(3_700_000)  # the old segments of r are named
    yield world
    world.turn()  # and go
    yield world
    with contextlib.suppress(*REFUSED):
        world.store.create_topic("x")
    if "x" in world.store.topics:
        world.append("x")
        world.flush()
        yield world
        world.ledger.doomed.add("x")
        with contextlib.suppress(*REFUSED):
            world.store.delete_topic("x")
            world.ledger.deleted.add("x")
    yield world
    for _ in range(3):
        world.append("t", producer=11)
    fail("fdatasync", OSError(errno.EIO, "Input/output error"))
    world.flush()
    yield world
    world.clock.advance(2_000)
    world.settle()
    world.append("t", producer=11)
    world.flush()
    yield world
    world.close()
    world = reopen(world)
    yield world
    for number in range(9):
        world.append("t", producer=11)
        world.append("c")
        if number % 2:
            world.flush()
            yield world
    world.turn()
    yield world
    world.begin("t", 23, count=1)
    world.flush()
    world.append("t", producer=11)
    world.journals()
    yield world
