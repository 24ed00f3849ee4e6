"""Damage to one file of a small data directory: cut, zeros, garbage, each bit; and what a start makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from gateway.log import records
from gateway.log.errors import CorruptBatch
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.log.verify import TAIL, verify_data
from headwater.clock import ManualClock
from headwater.disk import Disk
from tests.torture.ledger import Violation
from tests.torture.simulated_os import Crash, Directory, File, SimulatedOs

DATA = "/data"
NOW_MS = 1_700_000_000_000
SETTINGS = LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=0, reserve_bytes=0)
CUT = (Outcome.TORN_TAIL, Outcome.UNSYNCED_CUT)  # they name where the log ends now, not what it held
COMMITTED = 1  # the second view: it also hides what belongs to a marker that is gone
Row = tuple[int, bytes | None, bytes | None]
Views = dict[str, tuple[list[Row], list[Row]]]
"""Per topic: what read_uncommitted shows, what read_committed shows."""


def open_store(disk: Disk, alarms: list[str] | None = None) -> LogStore:
    return LogStore.open(
        DATA,
        node="edge-1",
        settings=SETTINGS,
        disk=disk,
        clock=ManualClock(wall_ms=NOW_MS),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
        alarm=(alarms if alarms is not None else []).append,
    )


class Reference(NamedTuple):
    """Files by path, what is served from them, and the leader epoch of topic `t`.

    `dropped` are rows that compaction is about to take away: they may be shown still.
    """

    files: dict[str, bytes]
    views: Views
    epoch: int
    dropped: frozenset[Row] = frozenset()


def build(*, clean: bool) -> Reference:
    """Two topics, closed segments, both kinds of transaction, an epoch begun, an expired start; stopped or killed."""
    simulated = SimulatedOs()
    store = open_store(simulated.disk())
    plain = store.create_topic("t").partitions[0]
    store.create_topic("c", config={"cleanup.policy": "compact"})
    compacted = store.topics["c"].partitions[0]
    for number in range(2):
        put(plain, b"gone%d" % number)
    store.flush_now()
    plain.roll_now()
    for number in range(3):
        put(plain, b"old%d" % number, sequence=number)
    store.flush_now()
    for segment in plain.start_at(2):
        store.disk.remove(segment.log_path)
        for suffix in (".index", ".timeindex"):
            store.disk.remove(segment.path + suffix)
    store.offsets.set_starts({("t", 0): 2})
    put(plain, b"taken back", sequence=0, producer=8, transactional=True)
    mark(plain, 8, commit=False)
    store.flush_now()
    plain.roll_now()
    plain.begin_epoch()
    put(plain, b"kept", sequence=1, producer=8, transactional=True)
    mark(plain, 8, commit=True)
    put(plain, b"new", sequence=3)
    put(compacted, b"first", key=b"a")
    put(compacted, b"second", key=b"b")
    store.flush_now()
    store.offsets.set_cleaned(("c", 0), 1)
    compacted.roll_now()
    put(compacted, b"third", key=b"a")
    store.flush_now()
    put(plain, b"newest", sequence=4)
    store.flush_now()
    views = views_of(store)
    if clean:
        store.close()
    return Reference(simulated.after_crash(Crash.KEEP).files(), views, plain.leader_epoch)


def put(
    log: PartitionLog,
    value: bytes,
    *,
    key: bytes = b"k",
    sequence: int = -1,
    producer: int = 7,
    transactional: bool = False,
) -> int:
    rows = [(NOW_MS, key, value, records.NO_HEADERS)]
    if sequence < 0:
        return log.append(records.encode_batch(rows), now_ms=NOW_MS).base_offset
    data = records.encode_batch(
        rows, producer_id=producer, producer_epoch=0, base_sequence=sequence, transactional=transactional
    )
    return log.append(data, now_ms=NOW_MS).base_offset


def mark(log: PartitionLog, producer: int, *, commit: bool) -> None:
    control = records.encode_control(
        commit=commit, producer_id=producer, producer_epoch=0, coordinator_epoch=0, timestamp_ms=NOW_MS
    )
    log.append(control, now_ms=NOW_MS, control=True)


def on(files: dict[str, bytes]) -> SimulatedOs:
    """A disk with these files, all of it durable."""
    simulated = SimulatedOs()
    for path, data in files.items():
        directory = simulated.root
        *folders, name = path.strip("/").split("/")
        for folder in folders:
            inner = directory.entries.setdefault(folder, Directory())
            assert isinstance(inner, Directory)
            directory.durable[folder] = directory = inner
        directory.entries[name] = directory.durable[name] = File(data)
    return simulated


def views_of(store: LogStore) -> Views:
    """What a consumer is shown; a batch whose CRC is wrong it refuses, and goes on behind it."""
    return {
        name: (list(_rows(topic.partitions[0], committed=False)), list(_rows(topic.partitions[0], committed=True)))
        for name, topic in store.topics.items()
    }


def _rows(log: PartitionLog, *, committed: bool, start: int | None = None) -> Iterator[Row]:
    """Ends where the log refuses to read on: an answer that a consumer gets too."""
    at = log.log_start_offset if start is None else start
    while True:
        try:
            result = log.read(at, 1 << 20, committed=committed)
            views = list(records.split_batches(result.data))
        except (CorruptBatch, OSError):
            return
        if not views:
            return
        pending = sorted(result.aborted, key=lambda each: each[1])
        aborting: set[int] = set()
        for view in views:
            header = records.read_header(view)
            if header.next_offset <= at:
                return  # consumers refuse a batch that lies before what they asked for
            with contextlib.suppress(CorruptBatch):
                records.check_batch(view)
                while pending and pending[0][1] <= header.last_offset:
                    aborting.add(pending.pop(0)[0])
                if header.is_control:
                    if not records.control_type(view):
                        aborting.discard(header.producer_id)
                elif not (committed and header.is_transactional and header.producer_id in aborting):
                    columns = records.decode_batch(view)
                    yield from zip(columns.offsets, columns.keys, columns.values, strict=True)
            at = header.next_offset
            if at > log.log_end_offset:
                return


# -- kinds of damage


class Damage(NamedTuple):
    """What was done to the file, for people; and its bytes then, None: it lies on a bad sector."""

    what: str
    data: bytes | None


UNREADABLE = Damage("a bad sector", None)


def damaged(files: dict[str, bytes], path: str, damage: Damage) -> SimulatedOs:
    """A disk with these files, one of them damaged."""
    if damage.data is not None:
        return on({**files, path: damage.data})
    simulated = on(files)
    bad = simulated._find(path)
    assert isinstance(bad, File)
    bad.bad = max(1, len(bad.data))
    return simulated


def prefixes(data: bytes) -> Iterator[Damage]:
    for size in range(len(data)):
        yield Damage(f"the first {size} of {len(data)} bytes", data[:size])


def tails(data: bytes, random: Random) -> Iterator[Damage]:
    """Zeros and garbage for the end, and after it."""
    for size in range(len(data)):
        yield Damage(f"zeros from byte {size} on", data[:size] + bytes(len(data) - size))
        yield Damage(f"garbage from byte {size} on", data[:size] + random.randbytes(len(data) - size))
    for more in (1, 8, 61, 512, 4_096):
        yield Damage(f"{more} zeros behind the end", data + bytes(more))
        yield Damage(f"{more} bytes of garbage behind the end", data + random.randbytes(more))


def flips(data: bytes) -> Iterator[Damage]:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield Damage(f"bit {bit % 8} of byte {bit // 8}", bytes(flipped))


# -- the verdict


def is_undetectable(reference: Reference, path: str, damage: Damage, *, clean: bool) -> bool:
    """A killed node's last segment cut exactly between two batches: as if the last ones had never been written."""
    folder = path.rpartition("/")[0]
    last = max((each for each in reference.files if each.endswith(".log") and each.startswith(folder)), default="")
    if clean or path != last or damage.data is None or not reference.files[path].startswith(damage.data):
        return False
    ends = {0}
    for view in records.split_batches(reference.files[path]):
        ends.add(max(ends) + len(view))
    return len(damage.data) in ends


def _verified(disk: Disk) -> list[str]:
    partitions = verify_data(disk, DATA)
    return [f"verify: {fault.kind}" for each in partitions for fault in each.faults if fault.kind != TAIL]


def judge(reference: Reference, path: str, damage: Damage) -> str:
    """Start on the damaged directory; what reported it, "" when nothing was lost. Raises `Violation`."""
    simulated = damaged(reference.files, path, damage)
    disk = simulated.disk()
    where = f"{path}, {damage.what}"
    faults = _verified(disk)
    alarms: list[str] = []
    try:
        store = open_store(disk, alarms)
    except Exception as error:
        raise Violation(f"{where}: refused to start: {error!r}") from error
    try:
        if store.topics["t"].partitions[0].leader_epoch < reference.epoch:
            raise Violation("the leader epoch went back")
        views = views_of(store)
        if reference.dropped:
            faults += _verified(disk)  # of what the start put in the place of others
        said = _compare(reference, views, store, faults + alarms)
        _goes_on(store, reference.views, views, torn=damage.data is not None)
        store.close()
    except Violation as error:
        raise Violation(f"{where}: {error}") from error
    except Exception as error:
        raise Violation(f"{where}: {error!r}") from error
    if simulated.open_handles:
        raise Violation(f"{where}: left open {simulated.open_handles}")
    return said


def _compare(reference: Reference, after: Views, store: LogStore, otherwise: list[str]) -> str:
    """Every record that is shown is one of before, in its place; what is missing is reported."""
    said = ""
    for topic, pair in reference.views.items():
        for view, (wanted, found) in enumerate(zip(pair, after.get(topic, ([], [])), strict=True)):
            missing = set(wanted) - set(found)
            extra = set(found) - set(wanted) - reference.dropped
            if not missing and not extra and [row for row in found if row not in reference.dropped] == wanted:
                continue
            if extra and not otherwise:
                raise Violation(f"{topic}: {sorted(extra)} shown (view {view}), and nothing is reported")
            findings = [
                finding
                for finding in store.recovered
                if finding.topic == topic and finding.outcome not in (Outcome.CLEAN, Outcome.INDEX_REBUILT)
            ]
            for offset, _, value in sorted(missing):
                told = [
                    each.outcome.value
                    for each in findings
                    if each.first_offset <= offset < each.end_offset or each.outcome in CUT or view == COMMITTED
                ]
                if not told and not otherwise:
                    raise Violation(f"{topic}: {value!r} at {offset} is missing (view {view}), and nothing is reported")
                said = (told or otherwise)[0]
    return said


def _goes_on(store: LogStore, before: Views, after: Views, *, torn: bool) -> None:
    """The log takes records, and shows them behind everything else.

    `torn`: what is missing at the end may never have been acknowledged; behind a bad sector nothing can say so.
    """
    for topic in store.topics:
        log = store.topics[topic].partitions[0]
        offset = put(log, b"after")
        store.flush_now()
        shown = list(_rows(log, committed=False, start=offset))
        if shown != [(offset, b"k", b"after")]:
            raise Violation(f"{topic}: {shown} is shown from {offset} on after an append there")
        given = set(before.get(topic, ([], []))[0])
        if any(offset <= row[0] for row in (given & set(after[topic][0]) if torn else given)):
            raise Violation(f"{topic}: offset {offset} is given a second time")


def every(reference: Reference, paths: Iterable[str], random: Random) -> Iterator[tuple[str, Damage]]:
    for path in paths:
        data = reference.files[path]
        for damage in (UNREADABLE, *prefixes(data), *tails(data, random), *flips(data)):
            yield path, damage
