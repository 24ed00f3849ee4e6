from __future__ import annotations

import errno
from copy import deepcopy
from typing import Any

import pytest

from gateway.replicate.actions import Ack, Failed, Send, Stop, Tick, Wait
from gateway.replicate.progress import decode
from gateway.replicate.states import State
from gateway.wire.errors import ErrorCode
from gateway.wire.schema import ApiKey
from tests.support.central import Central
from tests.support.edge import reading
from tests.support.uplink_world import NODE, World


def fed(seed: int = 4, records: int = 20, **settings: Any) -> World:
    world = World(seed, **settings)
    world.ingest(records)
    world.sync()
    return world


def run_to(world: World, api: ApiKey) -> None:
    for _ in range(200):
        if isinstance(world.action, Send) and world.action.requests[0].api is api:
            return
        world.step()
    raise AssertionError(f"never at {api.name}")


def run_to_stop(world: World) -> str:
    for _ in range(200):
        if isinstance(world.action, Stop):
            return world.action.reason
        world.step()
    raise AssertionError(f"not stopped: {world.core.state}")


def progress_of(central: Central) -> list[bytes]:
    return [value or b"" for _, key, value, _ in central.committed("headwater.progress") if key == NODE.encode()]


def test_topics_are_made_for_what_they_are() -> None:
    world = fed()
    world.settle()
    assert set(world.central.topics) == {"readings", "deadletter", "events", "devices", "headwater.progress"}
    assert world.central.configs["headwater.progress"] == {
        "cleanup.policy": "compact",
        "segment.ms": "600000",
        "segment.bytes": "1048576",
        "message.timestamp.type": "LogAppendTime",
    }
    assert world.central.configs["readings"] == {}
    assert world.central.configs["devices"] == {"cleanup.policy": "compact"}
    assert len(world.central.topics["readings"]) == world.central.default_partitions


def test_a_prefix_stands_before_everything() -> None:
    world = fed(topic_prefix="farm.")
    world.settle()
    names = ("readings", "deadletter", "events", "devices", "headwater.progress")
    assert set(world.central.topics) == {f"farm.{name}" for name in names}
    assert world.central.configs["farm.devices"] == {"cleanup.policy": "compact"}
    assert set(world.central.transactions) == {"farm.headwater.uplink.edge-1"}


def test_every_transaction_replaces_the_state() -> None:
    world = fed()
    world.settle()
    world.ingest(5)
    world.settle()
    records = [decode(value) for value in progress_of(world.central)]
    assert [record.txn for record in records] == [1, 2]
    assert [record.parts["readings/0"].done for record in records] == [20, 25]
    last = records[-1]
    assert last.to.at["readings"][1] == "edge-1/0/0/24"
    assert last.runs == [(world.journal.run, {"readings/0": 0, "events/0": 0})]
    assert last.to.cluster == world.central.cluster


def test_a_trickle_makes_one_transaction_a_linger() -> None:
    world = fed()
    world.settle()
    transactions, began = world.core.link.transactions, world.now
    while world.now < began + 5_000:
        world.ingest(1)
        world.sync()
        world.action = world.core.handle(Tick(), world.now, 0) if isinstance(world.action, Wait) else world.action
        if isinstance(world.action, Wait):
            world.now += 10  # the log grows a hundred times a second
        else:
            world.step()
    made = world.core.link.transactions - transactions
    assert 10 <= made <= 20


def test_records_wait_in_the_log_while_the_central_is_down() -> None:
    world = fed()
    world.settle()
    world.ingest(7)
    world.sync()
    for _ in range(20):
        world.action = world.core.handle(Failed("connection refused"), world.now, 0)
        assert isinstance(world.action, (Wait, Send))
        if isinstance(world.action, Wait):
            assert world.action.until_ms - world.now <= 1_000
            world.now = world.action.until_ms
            world.action = world.core.handle(Tick(), world.now, 0)
    assert world.core.link.state == "down"
    assert world.core.link.error == "connection refused"
    assert world.core.backlog()[0] == 7
    assert world.told == ["link-up", "link-down"]
    world.settle()
    world.check()
    assert world.told == ["link-up", "link-down", "link-up"]


def test_a_drain_is_announced_with_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        world = fed(records=3_000)
        world.settle()
        world.step()
    lines = [record.getMessage() for record in caplog.records]
    assert any("drain start: 3000 records behind" in line for line in lines)
    assert any("drain end: 3000 records in" in line for line in lines)


@pytest.mark.parametrize("code", [ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE])
def test_one_refused_record_is_found_and_its_neighbours_pass(code: ErrorCode) -> None:
    world = fed(records=100)
    bad = reading(37)[2] or b""
    world.central.refuse[bad] = code
    world.settle()
    world.truth["readings"] = [row for row in world.truth["readings"] if row[2] != bad]
    world.check()
    (verdict,) = world.buried
    assert (verdict.source, verdict.offset, verdict.identity) == ("readings/0", 37, "edge-1/0/0/37")
    assert verdict.reason == f"refused: {code.name}"
    assert decode(progress_of(world.central)[-1]).parts["readings/0"].gone == [(37, 38, verdict.reason)]
    assert world.core.link.gone == 1
    assert world.core.link.aborted <= 15


def test_many_refused_records_are_each_found() -> None:
    world = fed(records=200)
    bad = {reading(n)[2] or b"" for n in (0, 1, 50, 51, 120, 199)}
    world.central.refuse = dict.fromkeys(bad, ErrorCode.INVALID_RECORD)
    world.settle()
    world.truth["readings"] = [row for row in world.truth["readings"] if row[2] not in bad]
    world.check()
    assert sorted(verdict.offset for verdict in world.buried) == [0, 1, 50, 51, 120, 199]


def test_what_only_a_person_can_mend_is_tried_seldom() -> None:
    world = fed()
    run_to(world, ApiKey.ADD_PARTITIONS_TO_TXN)
    topics = [{"name": "readings", "results_by_partition": [{"partition_index": 0, "partition_error_code": 29}]}]
    action = world.core.handle(Ack(({"results_by_topic": topics},)), world.now, 0)
    assert isinstance(action, Wait)
    assert action.until_ms - world.now >= 10_000
    assert world.core.link.error == "adding readings to the transaction: TOPIC_AUTHORIZATION_FAILED"


@pytest.mark.parametrize("body", [{}, {"error_code": "x"}, {"results_by_topic": 5}])
def test_nonsense_from_the_central_starts_over(body: dict[str, object]) -> None:
    world = fed()
    run_to(world, ApiKey.ADD_PARTITIONS_TO_TXN)
    world.action = world.core.handle(Ack((body,)), world.now, 0)
    assert world.core.state is State.PAUSE
    world.settle()
    world.check()


def test_a_lost_progress_topic_stops_and_the_choice_goes_on() -> None:
    world = fed()
    world.settle()
    world.central.topics["headwater.progress"] = {}
    world.central.create("headwater.progress", 16)
    world.kill()
    assert "progress lost" in run_to_stop(world)
    assert world.core.link.state == "stopped"
    assert isinstance(world.core.handle(Tick(), world.now, 0), Stop)
    world.action = world.core.choose("accept", world.now)
    world.ingest(3)
    world.settle()
    world.check()


@pytest.mark.parametrize("choice", ["resend", "accept"])
def test_a_truncated_central_stops_until_the_operator_chose(choice: str) -> None:
    world = fed()
    world.settle()
    for partition in world.central.topics["readings"].values():
        partition.batches.clear()
        partition.end = 0
        partition.producers.clear()
    world.kill()
    assert "central recreated or truncated" in run_to_stop(world)
    world.action = world.core.choose(choice, world.now)  # type: ignore[arg-type]
    world.ingest(3)
    world.settle()
    if choice == "accept":
        world.truth["readings"] = world.truth["readings"][-3:]
    world.check()


def test_a_journal_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = fed()
    run_to(world, ApiKey.END_TXN)
    world.disk.fail_next["replace_file"] = OSError(errno.ENOSPC, "No space left on device")
    world.settle()
    world.check()
    assert any("could not be noted" in record.getMessage() for record in caplog.records)


def test_a_disk_that_fails_under_the_machine_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fed()
    run_to(world, ApiKey.ADD_PARTITIONS_TO_TXN)

    def unreadable(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.replicate.core.requests.read_add_partitions", unreadable)
        world.step()
    assert world.core.state is State.PAUSE
    assert "Input/output error" in (world.core.link.error or "")
    world.settle()
    world.check()


def test_nothing_counts_as_replicated_from_the_stop_on_until_it_is_sent_again() -> None:
    """Retention trusts this: what a recreated central does not have must not go by age."""
    world = fed()
    world.settle()
    assert world.core.settled()["readings/0"] == 20
    world.central.topics["headwater.progress"] = {}
    world.central.create("headwater.progress", 16)
    world.kill()
    run_to_stop(world)
    assert world.core.settled() == {}
    assert world.core.backlog()[0] == 0  # what people are told stays what was last heard
    world.action = world.core.choose("resend", world.now)
    assert world.core.settled().get("readings/0", 0) == 0
    world.kill()
    assert world.core.settled().get("readings/0", 0) == 0
    run_to_stop(world)
    world.action = world.core.choose("resend", world.now)
    world.settle()
    assert world.core.settled()["readings/0"] == 20


def test_a_central_whose_retention_passed_my_last_record_is_not_truncated() -> None:
    world = fed()
    world.settle()
    for partition in world.central.topics["readings"].values():
        partition.start = partition.end
    world.kill()
    world.ingest(3)
    world.settle()
    world.check()


def test_a_record_of_a_newer_version_stops() -> None:
    world = fed(compression="none")
    run_to(world, ApiKey.END_TXN)
    world.step()
    for partition in world.central.topics["headwater.progress"].values():
        for number, batch in enumerate(partition.batches):
            if b'{"v":1' in batch:
                partition.batches[number] = batch.replace(b'{"v":1', b'{"v":9', 1)
    world.kill()
    assert "version 9" in run_to_stop(world)


def test_a_restored_card_goes_on_under_a_new_epoch() -> None:
    """The card as it was after 20 records; the node had sent 30 more since; the copy writes its own."""
    world = fed(compression="none")
    world.settle()
    restored = World(77, central=world.central, compression="none")
    restored.disk, restored.logs = deepcopy(world.disk), deepcopy(world.logs)
    world.ingest(30)
    world.kill()
    world.ingest(10)
    world.settle()
    sent = len(world.truth["readings"])
    restored.number = 1_000
    restored.now = world.now
    restored.start()
    restored.ingest(8)
    restored.settle()
    rows = world.central.committed("readings")
    assert len(rows) == sent + 8
    assert [row[2] for row in rows[-8:]] == [reading(1_000 + n)[2] for n in range(8)]
    assert all(b"edge-1/1/0/" in row[3] for row in rows[-8:])
    assert all(b"edge-1/0/0/" in row[3] for row in rows[:-8])
    assert restored.logs["readings/0"].leader_epoch == 1
