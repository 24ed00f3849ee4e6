"""After a clean stop a start believes the mark where the files are as it says, and finds what a full recovery finds."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest

from gateway.log.clean_stop import FILE
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.repair import repair
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.upkeep import Upkeep
from gateway.log.verify import verify_data
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA, append, batch, marker, open_log, overwrite, read_all, segment_path

MARK = f"{DATA}/node/{FILE}"


def lived_in(disk: ForgetfulDisk, *, active: int = 12) -> None:
    """Several segments, producers, an aborted and an open transaction, an epoch begun; then a clean stop."""
    store, log = open_log(disk)
    append(log, b"a", producer_id=7, producer_epoch=2, base_sequence=0)
    append(log, b"gone", producer_id=8, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 8, commit=False)
    while log.segments_count < 3:
        append(log, b"x" * 200)
    log.begin_epoch()
    append(log, b"open", producer_id=9, producer_epoch=0, base_sequence=0, transactional=True)
    append(log, b"gone too", producer_id=8, producer_epoch=0, base_sequence=1, transactional=True)
    marker(log, 8, commit=False)
    for number in range(active):
        append(log, b"y" * 100, timestamp=1_700_000_000_000 + (number * 7919) % 1000)
    for sequence in range(1, 4):
        append(log, b"b", producer_id=7, producer_epoch=2, base_sequence=sequence)
    store.flush_now()
    store.close()


def known(log: PartitionLog) -> dict[str, Any]:
    """What a log knows, for comparing."""
    segments = log._segments.all()
    active = log.active_segment
    return {
        "ends": (log.log_start_offset, log.log_end_offset, log.synced_offset, log.last_stable_offset),
        "epochs": log.epochs,
        "segments": [(each.base_offset, each.size, each.next_offset, each.chain, each.has_aborts) for each in segments],
        "active": (active.newest_timestamp, active.newest_offset, active.unindexed, active.aborted),
        "index": (active.index.encode(), active.times.encode()),
        "chain": log.chain_at(log.log_end_offset),
        "producers": log._state.snapshot(),
        "base": log._snapshots,
        "rows": read_all(log),
        "committed": log.read(0, 1 << 20, committed=True).aborted,
        "times": [log.offset_for_timestamp(1_700_000_000_000 + ms) for ms in range(0, 1000, 50)],
        "newest": log.newest_timestamp(),
    }


def both(disk: ForgetfulDisk) -> tuple[LogStore, LogStore]:
    """The same files, opened on trust and read whole."""
    other = copy.deepcopy(disk)
    return open_log(disk)[0], open_log(other, trust_clean_stop=False)[0]


def log_of(store: LogStore) -> PartitionLog:
    return store.topics["t"].partitions[0]


@pytest.mark.parametrize("active", [0, 1, 2, 5, 12])
def test_a_start_on_trust_knows_what_reading_everything_finds(active: int) -> None:
    disk = ForgetfulDisk()
    lived_in(disk, active=active)
    trusting, reading = both(disk)
    assert len(trusting.unread) == 1
    assert not reading.unread
    assert known(log_of(trusting)) == known(log_of(reading))
    for store in (trusting, reading):  # and both go on alike, over a second stop
        log = log_of(store)
        while log.segments_count < 5:
            append(log, b"z" * 90)
        append(log, b"c", producer_id=7, producer_epoch=2, base_sequence=4)
        marker(log, 9, commit=True)
        store.flush_now()
    assert known(log_of(trusting)) == known(log_of(reading))
    expected = known(log_of(trusting))
    assert [log_of(trusting).chain_at(offset) for offset in range(expected["ends"][1] + 1)] == [
        log_of(reading).chain_at(offset) for offset in range(expected["ends"][1] + 1)
    ]
    trusting.close()
    trusting, _ = both(disk)
    assert known(log_of(trusting))["rows"] == expected["rows"]
    assert log_of(trusting).append(batch(b"c", producer_id=7, producer_epoch=2, base_sequence=4), now_ms=0).duplicate


def test_a_start_on_trust_does_not_read_the_active_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    monkeypatch.setattr(ForgetfulDisk, "read_at", lambda *arguments: pytest.fail("a log is read"))
    store, _ = open_log(disk)
    assert [finding.outcome for finding in store.recovered] == [Outcome.CLEAN]


def cut(path: str) -> Callable[[ForgetfulDisk], None]:
    return lambda disk: overwrite(disk, path, disk.read_file(path)[:-1])


def grown(path: str) -> Callable[[ForgetfulDisk], None]:
    return lambda disk: overwrite(disk, path, disk.read_file(path) + b"\0")


def flipped(path: str) -> Callable[[ForgetfulDisk], None]:
    return lambda disk: overwrite(disk, path, disk.read_file(path)[:-1] + bytes([disk.read_file(path)[-1] ^ 1]))


def gone(path: str) -> Callable[[ForgetfulDisk], None]:
    return lambda disk: disk.remove(path)


def more(name: str) -> Callable[[ForgetfulDisk], None]:
    return lambda disk: overwrite(disk, f"{DATA}/log/t-0/{name}", b"")


def _bases(disk: ForgetfulDisk) -> list[int]:
    return [int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log")]


def changes() -> list[tuple[str, Callable[[ForgetfulDisk], None]]]:
    disk = ForgetfulDisk()
    lived_in(disk)
    closed, active = _bases(disk)[1], _bases(disk)[-1]
    (end,) = (name for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".snapshot") and int(name[:20]) > active)
    point = f"{DATA}/log/recovery-point-offset-checkpoint"
    return [
        ("active cut", cut(segment_path(active))),
        ("active grown", grown(segment_path(active))),
        ("closed cut", cut(segment_path(closed))),
        ("closed gone", gone(segment_path(closed))),
        ("closed index cut", cut(segment_path(closed, ".index"))),
        ("closed time index gone", gone(segment_path(closed, ".timeindex"))),
        ("active index flipped", flipped(segment_path(active, ".index"))),
        ("active time index gone", gone(segment_path(active, ".timeindex"))),
        ("transaction index flipped", flipped(segment_path(0, ".txnindex"))),
        ("active transaction index cut", cut(segment_path(active, ".txnindex"))),
        ("snapshot flipped", flipped(f"{DATA}/log/t-0/{end}")),
        ("snapshot gone", gone(f"{DATA}/log/t-0/{end}")),
        ("base snapshot flipped", flipped(segment_path(active, ".snapshot"))),
        ("epochs gone", gone(f"{DATA}/log/t-0/leader-epoch-checkpoint")),
        ("another recovery point", lambda disk: overwrite(disk, point, b"0\n1\nt 0 3\n")),
        ("half a swap", more(f"{closed:020d}.log.swap")),
        ("mark cut", cut(MARK)),
        ("mark flipped", flipped(MARK)),
        ("mark gone", gone(MARK)),
        ("no mark of Kafka's", gone(f"{DATA}/log/.kafka_cleanshutdown")),
    ]


@pytest.mark.parametrize(("what", "change"), changes(), ids=[what for what, _ in changes()])
def test_what_does_not_fit_is_recovered_as_after_any_stop(what: str, change: Callable[[ForgetfulDisk], None]) -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    change(disk)
    trusting, reading = both(disk)
    assert not trusting.unread
    assert trusting.recovered == reading.recovered
    assert known(log_of(trusting)) == known(log_of(reading))


@pytest.mark.parametrize("then", ["killed at once", "written to"])
def test_the_mark_is_gone_for_good_when_a_start_is_through(then: str) -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    _, log = open_log(disk)
    if then == "written to":
        append(log, b"not synced")
    disk.power_cut()
    assert not disk.exists(MARK)
    store, _ = open_log(disk)
    assert not store.unread


def _refuse(path: str, *, create: bool = False) -> int:
    raise OSError(5, "Input/output error", path)


def test_a_mark_is_only_left_when_the_rest_is_on_the_disk() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"lost")
    disk.fail_next["sync"] = OSError(5, "Input/output error")
    well, disk.open = disk.open, _refuse  # type: ignore[method-assign]
    store.close()
    disk.open = well  # type: ignore[method-assign]
    assert not open_log(disk)[0].unread
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"kept")
    store.flush_now()
    disk.fail_next["replace_file"] = OSError(28, "No space left on device")  # the first file of the stop
    store.close()
    reopened, log = open_log(disk)
    assert not reopened.unread
    assert read_all(log) == [(0, b"kept")]


def test_a_producer_in_doubt_is_read_from_its_batches_not_from_a_snapshot() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"5", producer_id=7, producer_epoch=0, base_sequence=5)
    store.flush_now()
    store.close()
    store, log = open_log(disk)
    assert not store.unread
    append(log, b"4", producer_id=7, producer_epoch=0, base_sequence=4)  # it may never have come
    assert log.append(batch(b"5", producer_id=7, producer_epoch=0, base_sequence=5), now_ms=0).duplicate


def turn(store: LogStore, told: list[dict[str, Any]]) -> Upkeep:
    def emit(kind: str, **detail: Any) -> None:
        told.append({"kind": kind, **detail})

    upkeep = Upkeep(store, clock=ManualClock(), trusted=lambda: False, emit=emit)
    run_steps(upkeep.turn())
    return upkeep


@pytest.mark.parametrize("every", [37, pytest.param(1, marks=pytest.mark.long("clean-stop"))])
def test_a_flipped_byte_of_what_was_taken_on_trust_is_told_and_the_next_start_puts_it_aside(every: int) -> None:
    whole = ForgetfulDisk()
    lived_in(whole, active=2)
    path = segment_path(_bases(whole)[-1])
    seen = 0
    for position in range(12, len(whole.read_file(path)), every):
        disk = copy.deepcopy(whole)
        data = bytearray(disk.read_file(path))
        data[position] ^= 0x10
        overwrite(disk, path, bytes(data))
        reading, _ = open_log(copy.deepcopy(disk), trust_clean_stop=False)
        if [each.outcome for each in reading.recovered] == [Outcome.CLEAN]:
            continue  # an epoch: no CRC looks there, `log verify` does
        seen += 1
        store, _ = open_log(disk)
        told: list[dict[str, Any]] = []
        upkeep = turn(store, told)
        assert [each["kind"] for each in told if each["kind"] != "disk"] == ["damage"], position
        assert path in upkeep.status()["failures"]["t-0"]
        assert any(partition.damaged for partition in verify_data(disk, DATA))
        store.close()
        after, _ = open_log(disk)
        assert Outcome.QUARANTINED in {each.outcome for each in after.recovered}, position
    assert seen > 10


def test_what_is_right_is_read_once_and_nothing_is_told() -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    store, _ = open_log(disk)
    told: list[dict[str, Any]] = []
    turn(store, told)
    assert not store.unread
    assert not [each for each in told if each["kind"] == "damage"]
    store.close()
    assert open_log(disk)[0].unread


def test_a_segment_that_expired_or_was_rewritten_is_not_read() -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    store, log = open_log(disk)
    log.roll_now()
    append(log, b"next")
    store.flush_now()
    for segment in log.start_at(log.active_segment.base_offset):
        disk.remove(segment.log_path)
    told: list[dict[str, Any]] = []
    upkeep = turn(store, told)
    assert not store.unread
    assert upkeep.status()["failures"] == {}


def test_a_disk_that_fails_while_it_is_read_is_tried_again() -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    store, _ = open_log(disk)
    disk.fail_next["read_at"] = OSError(4, "Interrupted")
    upkeep = turn(store, [])
    assert upkeep.status()["failures"] == {"reading again": "Interrupted"}
    run_steps(upkeep.turn())
    assert not store.unread


def test_repair_trusts_no_mark() -> None:
    disk = ForgetfulDisk()
    lived_in(disk)
    path = segment_path(_bases(disk)[-1])
    data = bytearray(disk.read_file(path))
    data[-1] ^= 1
    overwrite(disk, path, bytes(data))
    done = repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock())
    assert Outcome.QUARANTINED in {finding.outcome for finding in done}


def test_a_compacted_log_too() -> None:
    disk = ForgetfulDisk()
    store, _ = open_log(disk)
    log = store.create_topic("c", config={"cleanup.policy": "compact"}).partitions[0]
    for number in range(30):
        append(log, b"%d" % number)
    store.flush_now()
    store.close()
    store, _ = open_log(disk)
    assert len(store.unread) == 2
    with contextlib.suppress(StopIteration):
        turn(store, [])
    assert [value for _, value in read_all(store.topics["c"].partitions[0])] == [b"%d" % number for number in range(30)]


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.long("clean-stop"))])
def test_after_a_clean_stop_verify_sees_a_flipped_bit_of_the_active_segment(every: int) -> None:
    disk = ForgetfulDisk()
    lived_in(disk, active=1)
    path = segment_path(_bases(disk)[-1])
    whole = disk.read_file(path)
    for bit in range(0, 8 * len(whole), every):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        overwrite(disk, path, bytes(data))
        assert any(partition.damaged for partition in verify_data(disk, DATA)), bit
    overwrite(disk, path, whole)
    assert not any(partition.faults for partition in verify_data(disk, DATA))
