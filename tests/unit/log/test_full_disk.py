"""A disk that runs full: what goes first, the reserve that makes room for saying so, and room that comes back."""

from __future__ import annotations

import msgspec
import pytest

from gateway.log.errors import LogFailed
from gateway.log.reserve import RELEASE_BELOW_BYTES, make_reserve, release_when_full
from gateway.log.retention import DISK
from headwater.errors import UserError
from tests.support.logs import DATA, SMALL, all_files, open_store
from tests.support.upkeep import SmallDisk, Tended, put

RESERVE = f"{DATA}/node/reserve"


def small_node(size_bytes: int = 40 << 20) -> tuple[Tended, SmallDisk]:
    disk = SmallDisk(size_bytes)
    settings = msgspec.structs.replace(SMALL, segment_bytes=1 << 20, free_floor_bytes=1 << 40, reserve_bytes=4 << 20)
    return Tended(disk, settings), disk


def big(node: Tended, topic: str, count: int) -> None:
    for _ in range(count):
        put(node.log(topic), [(b"k", bytes(500_000))])
    node.store.flush_now()


def test_below_the_floor_the_oldest_readings_go_even_those_that_the_central_lacks() -> None:
    node, disk = small_node()
    node.settled |= {"readings": 6, "events": 0}
    for topic in ("events", "readings", "alerts"):
        big(node, topic, 20)
    node.turn()
    assert disk.exists(RESERVE)
    assert not node.expiries()
    disk.size_bytes = disk.used_bytes() + (1 << 20)  # somebody else wrote a lot
    floor = disk.size_bytes // 20
    for _ in range(3):
        node.turn()
    assert disk.free_bytes("") >= floor
    (topic, first, end, cause, owed_from), *others = node.expiries()
    assert (topic, first, cause, owed_from) == ("readings", 0, DISK, None if end <= 6 else 6)
    assert not others
    assert end < 20
    big(node, "readings", 2)
    for _ in range(3):
        node.turn()
    assert {each[0] for each in node.expiries()} == {"readings"}
    assert disk.free_bytes("") >= floor


def test_when_the_readings_are_gone_dead_letters_follow_and_alerts_and_events_at_the_very_end() -> None:
    node, disk = small_node()
    for topic in ("events", "readings", "deadletter", "alerts"):
        big(node, topic, 6)
    node.turn()
    disk.size_bytes = disk.used_bytes()
    expelled: list[str] = []
    for _ in range(30):
        disk.size_bytes -= 300_000
        node.turn()
        expelled += [each[0] for each in node.expiries() if each[0] not in expelled]
    assert expelled[:2] == ["readings", "deadletter"]
    assert set(expelled[2:]) <= {"alerts", "events"}


def test_at_zero_bytes_the_reserve_goes_and_appends_work_again_with_the_expiry_told() -> None:
    node, disk = small_node(20 << 20)
    node.settled["readings"] = 2
    big(node, "readings", 3)
    node.turn()
    assert disk.exists(RESERVE)
    with pytest.raises(LogFailed, match="No space left"):
        big(node, "readings", 100)
    node.store.flush_now()
    end = node.log().log_end_offset
    disk.size_bytes = disk.used_bytes()
    node.events_fail = True
    node.turn()
    assert not disk.exists(RESERVE)
    assert node.upkeep.status()["disk"] == "full"
    node.turn()
    node.events_fail = False
    node.turn()
    assert disk.free_bytes("") > 0
    topic, first, upto, cause, owed_from = node.expiries()[0]
    assert (topic, first, cause, owed_from) == ("readings", 0, DISK, 2)
    assert upto <= end
    big(node, "readings", 1)
    assert node.log().log_end_offset == end + 1
    assert sum(each[2] - each[1] for each in node.expiries()) == node.log().log_start_offset
    assert node.upkeep.status()["expired"]["readings/0"]["records"] == node.log().log_start_offset


def test_a_start_at_zero_bytes_free_releases_the_reserve_first() -> None:
    node, disk = small_node(20 << 20)
    big(node, "readings", 3)
    node.turn()
    node.disk.power_cut()
    disk.size_bytes = disk.used_bytes()
    node.open()
    assert not disk.exists(RESERVE)
    assert node.log().log_end_offset == 3
    assert not node.alarms


def test_another_nodes_directory_on_a_full_disk_is_refused_as_it_is() -> None:
    node, disk = small_node(20 << 20)
    big(node, "readings", 1)
    node.turn()
    node.disk.power_cut()
    disk.size_bytes = disk.used_bytes()
    before = all_files(disk)
    with pytest.raises(UserError, match="belongs to node “edge-1”"):
        open_store(disk, node="edge-2")
    assert RESERVE in before
    assert all_files(disk) == before


def test_a_single_big_active_segment_is_closed_to_give_room_when_the_disk_is_full() -> None:
    node, disk = small_node(20 << 20)
    put(node.log(), [(b"k", bytes(900_000))])
    node.store.flush_now()
    disk.size_bytes = disk.used_bytes() + 1_000
    for _ in range(4):
        node.turn()
    assert (node.log().log_start_offset, node.log().size_bytes) == (1, 0)


def test_when_there_is_room_again_the_reserve_is_made_again() -> None:
    node, disk = small_node()
    node.turn()
    disk.size_bytes = disk.used_bytes() + 1_000
    node.turn()
    assert not disk.exists(RESERVE)
    disk.size_bytes = 40 << 20
    node.turn()
    assert disk.exists(RESERVE)
    assert node.events[-1] == {"kind": "disk", "state": "ok", "free_bytes": node.events[-1]["free_bytes"]}
    assert [each["state"] for each in node.events] == ["full", "ok"]


def test_a_reserve_that_does_not_fit_is_not_left_half_made() -> None:
    disk = SmallDisk(4 << 20)
    disk.make_directory("/n")
    with pytest.raises(OSError, match="No space"):
        make_reserve(disk, "/n", 6 << 20)
    assert not disk.exists("/n/reserve")
    make_reserve(disk, "/n", 3 << 20)
    assert len(disk.read_file("/n/reserve")) == 3 << 20
    disk.size_bytes = (3 << 20) + RELEASE_BELOW_BYTES
    assert not release_when_full(disk, "/n")
    disk.size_bytes -= 1
    assert release_when_full(disk, "/n")
    assert not release_when_full(disk, "/n")
