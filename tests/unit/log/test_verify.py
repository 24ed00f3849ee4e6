from __future__ import annotations

import random

import pytest

from gateway.log.dump import dump_file
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.repair import repair
from gateway.log.store import LogStore
from gateway.log.verify import CHAIN, DAMAGED, FILE, INDEX, MISSING, TAIL, Fault, verify_data
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from headwater.errors import UserError
from tests.support.logs import DATA, FlakyDisk, append, marker, open_log, read_all, segment_path
from tests.support.upkeep import compact, open_compacted, put, rows_of


def filled(*, close: bool = True) -> ForgetfulDisk:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    for number in range(40):
        append(log, b"%d" % number + bytes(300), b"more")
    append(log, b"s", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)
    store.flush_now()
    if close:
        store.close()
    return disk


def faults(disk: ForgetfulDisk) -> list[Fault]:
    return [fault for one in verify_data(disk, DATA) for fault in one.faults]


def kinds(disk: ForgetfulDisk) -> list[str]:
    return [fault.kind for fault in faults(disk)]


def flip(disk: ForgetfulDisk, path: str, position: int) -> None:
    data = bytearray(disk.read_file(path))
    data[position] ^= 0x10
    disk.replace_file(path, bytes(data))


def second_segment(disk: ForgetfulDisk) -> int:
    return sorted(int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log"))[1]


@pytest.mark.parametrize("close", [True, False])
def test_a_good_log_is_read_whole_and_nothing_is_found(close: bool) -> None:
    (one,) = verify_data(filled(close=close), DATA)
    assert one.faults == []
    assert (one.topic, one.partition, one.start, one.end, one.batches, one.records) == ("t", 0, 0, 82, 42, 82)
    assert not one.damaged


def test_a_flipped_bit_is_found_with_its_offsets_whichever_it_is() -> None:
    disk = filled()
    base = second_segment(disk)
    size = len(disk.read_file(segment_path(base)))
    for position in random.Random(3).sample(range(size), 60):
        flip(disk, segment_path(base), position)
        found = faults(disk)
        assert found, position
        assert {fault.kind for fault in found} <= {DAMAGED, CHAIN, INDEX, MISSING}, position
        assert all(segment_path(base)[:-4] in fault.path or fault.kind == CHAIN for fault in found)
        flip(disk, segment_path(base), position)
    assert faults(disk) == []


def test_a_damaged_range_is_named_from_its_first_to_its_last_offset() -> None:
    disk = filled()
    base = second_segment(disk)
    flip(disk, segment_path(base), 100)
    fault = next(fault for fault in faults(disk) if fault.kind == DAMAGED)
    assert (fault.path, fault.first, fault.end, fault.position) == (segment_path(base), base, base + 2, 0)


def test_a_missing_segment_is_a_missing_range() -> None:
    disk = filled()
    base = second_segment(disk)
    disk.remove(segment_path(base))
    found = [fault for fault in faults(disk) if fault.kind == MISSING]
    assert [(fault.first, fault.end > base) for fault in found] == [(base, True)]


def test_a_torn_tail_is_no_damage() -> None:
    disk = filled(close=False)
    store_end = max(int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log"))
    path = segment_path(store_end)
    disk.replace_file(path, disk.read_file(path)[:-5])
    (one,) = verify_data(disk, DATA)
    assert [fault.kind for fault in one.faults] == [TAIL]
    assert not one.damaged


@pytest.mark.parametrize("suffix", [".index", ".timeindex", ".txnindex", ".snapshot"])
def test_small_files_are_checked(suffix: str) -> None:
    disk = filled()
    name = next(name for name in disk.names(f"{DATA}/log/t-0") if name.endswith(suffix) and disk_size(disk, name))
    path = f"{DATA}/log/t-0/{name}"
    flip(disk, path, 7 if suffix == ".index" else 1)
    assert kinds(disk) == [FILE if suffix == ".snapshot" else INDEX]


def disk_size(disk: ForgetfulDisk, name: str) -> int:
    return len(disk.read_file(f"{DATA}/log/t-0/{name}"))


def compacted_log() -> tuple[FlakyDisk, LogStore, PartitionLog]:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    put(log, [(b"stays", b"")])
    for number in range(60):
        put(log, [(b"%d" % (number % 3), bytes(60))])
    compact(store, log)
    return disk, store, log


def test_a_compacted_log_with_its_gaps_is_good() -> None:
    disk, store, _ = compacted_log()
    store.close()
    assert faults(disk) == []


def test_a_flipped_offset_in_a_segment_that_compaction_wrote_is_found_between_two_gaps() -> None:
    disk, store, _ = compacted_log()
    store.close()
    path = segment_path(0)
    flip(disk, path, 7)  # offset 16 instead of 0, which is in no offset index, and the next one lies behind 16
    assert CHAIN in kinds(disk)
    flip(disk, path, 7)
    assert faults(disk) == []


def test_a_segment_that_compaction_wrote_and_that_is_written_to_again_is_good() -> None:
    """The empty one after it is lost, so it is the last one."""
    disk, _, log = compacted_log()
    last = log.active_segment
    assert last.size == 0
    disk.remove(last.log_path)
    disk.sync_directory(f"{DATA}/log/t-0")
    disk.power_cut()
    store, log = open_compacted(disk)
    assert log.segments_count == 1
    put(log, [(b"new", b"")])
    store.flush_now()
    log.roll_now()
    store.flush_now()
    assert faults(disk) == []


def test_repair_quarantines_damage_in_an_old_segment_and_serves_the_rest() -> None:
    disk = filled()
    base = second_segment(disk)
    flip(disk, segment_path(base), 100)
    done = repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock())
    assert Outcome.QUARANTINED in [one.outcome for one in done]
    assert kinds(disk) == []
    _, log = open_log(disk)
    assert [row[0] for row in read_all(log)] == [at for at in range(82) if not base <= at < base + 2]
    assert any(name.startswith(f"t-0-{base}-") for name in disk.names(f"{DATA}/node/quarantine"))


def test_repair_makes_indexes_again() -> None:
    disk = filled()
    flip(disk, segment_path(second_segment(disk), ".index"), 7)
    repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock())
    assert kinds(disk) == []


def test_repair_leaves_a_good_log_alone_and_says_what_it_cannot_mend() -> None:
    disk = filled()
    assert repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock()) == []
    base = second_segment(disk)
    flip(disk, segment_path(base), 15)  # the leader epoch: no CRC covers it
    assert kinds(disk) == [CHAIN]
    assert repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock()) == []
    assert kinds(disk) == [CHAIN]


def test_repair_tells_once_of_a_segment_that_is_lost() -> None:
    disk = filled()
    base = second_segment(disk)
    disk.remove(segment_path(base))
    done = repair(disk, DATA, list(verify_data(disk, DATA)), clock=ManualClock())
    assert [(one.outcome, one.first_offset) for one in done] == [(Outcome.RANGE_MISSING, base)]
    again = repair(disk, DATA, [], clock=ManualClock())  # both starts find it
    assert [(one.outcome, one.first_offset) for one in again] == [(Outcome.RANGE_MISSING, base)]
    assert kinds(disk) == [MISSING]


def test_repair_needs_a_data_directory() -> None:
    with pytest.raises(UserError, match="no node's data directory"):
        repair(ForgetfulDisk(), "/nowhere", [], clock=ManualClock())


def test_dump_tells_of_batches_records_and_damage() -> None:
    disk = filled()
    rows = list(dump_file(disk, segment_path(0), records=True))
    assert rows[0] == {
        "position": 0, "size": 388, "first": 0, "last": 1, "count": 2, "epoch": 0, "codec": "none",
        "time": 1_700_000_000_001,
    }  # fmt: skip
    assert (rows[2]["offset"], rows[2]["key"], rows[2]["value"], rows[2]["headers"]) == (1, "key", "more", {})
    flip(disk, segment_path(0), 100)
    rows = list(dump_file(disk, segment_path(0)))
    assert "CRC is" in rows[0]["bad"]
    assert "bad" not in rows[1]
    flip(disk, segment_path(0), 8)
    assert "bytes that are no batch" in list(dump_file(disk, segment_path(0)))[-1]["bad"]


def test_dump_reads_every_kind_of_file() -> None:
    disk = filled()
    seen: dict[str, list[dict[str, object]]] = {}
    for name in disk.names(f"{DATA}/log/t-0"):
        if name[0] == "0":
            seen.setdefault(name[20:], []).extend(dump_file(disk, f"{DATA}/log/t-0/{name}"))
    assert seen[".txnindex"][0]["producer_id"] == 7
    assert [row.get("control") for row in seen[".log"]][-1] == "abort"
    assert {row["producer"] for row in seen[".snapshot"]} == {7}
    assert set(seen[".index"][0]) == {"offset", "position"}
    assert set(seen[".timeindex"][0]) == {"time", "offset"}
    with pytest.raises(ValueError, match=r"is no \.log"):
        list(dump_file(disk, f"{DATA}/node/identity.json"))


def test_dump_of_a_compacted_log_shows_gaps_and_horizons() -> None:
    disk = FlakyDisk()
    store, log = open_compacted(disk)
    put(log, [(b"a", b"1"), (b"a", b"2")], producer_id=7, producer_epoch=0, base_sequence=0)
    put(log, [(b"a", None)])
    compact(store, log)
    rows = list(dump_file(disk, segment_path(0)))
    assert [(row["first"], row["last"], row["count"]) for row in rows] == [(0, 1, 0), (2, 2, 1)]
    assert rows[1]["delete_horizon"] > rows[1]["time"]
    assert rows_of(log) == [(2, b"a", None)]
