"""The inline driver killed, cut off and answered too late at every call: its outputs equal an undisturbed run's."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from gateway.log.records import Record, decode_headers
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk
from processors.inline import Processors
from processors.rules.model import Rules
from processors.settings import ProcessorSettings
from tests.support import river
from tests.support.memory_log import Killed, MemoryNode
from tests.support.river import Row

PATH = "/data/work/processors.checkpoint"
SETTINGS = ProcessorSettings(checkpoint_every_ms=20, backoff_min_ms=1, backoff_max_ms=1)
RULES = Rules(windows=(river.window(),), alerts=(river.alert(),))


def story(node: str) -> list[Row]:
    """A device that runs hot for a while, a calm one, a late reading, a mark each second."""
    rows = []
    for second in range(0, 90, 3):
        hot = 90.0 if 20 <= second < 50 else 60.0
        rows.append(Row("a", second * 1000, {"t": hot + second / 7}, None, node))
        rows.append(Row("b", second * 1000 + 500, {"t": 50, "x": second}, river.mark(node, second * 1000 - 2000), node))
        if second == 45:
            rows.append(Row("b", 3_000, {"t": 51.5}, None, node))
    return rows


class World:
    """A node and its processors, which can be started again and again."""

    def __init__(self, partitions: int = 2) -> None:
        self.clock = ManualClock()
        self.disk = ForgetfulDisk()
        self.node = MemoryNode(self.clock)
        self.node.topics["readings"] = [[] for _ in range(partitions)]
        for partition in range(partitions):
            self.node.feed(partition, river.block(story(f"n{partition}")))
        self.status: dict[str, Any] = {}

    def run(self, rules: Rules = RULES) -> None:
        """Until all is read, or the process dies."""
        processors = Processors(
            SETTINGS, rules, connect=self.node.connect, clock=self.clock, data_dir="/data", disk=self.disk
        )
        self.node.idle = processors.stop
        try:
            asyncio.run(processors.run())
        finally:
            self.status = processors.status()

    def outputs(self) -> dict[tuple[str, str], list[tuple[int, Record]]]:
        """By topic and (version, input partition): the numbered records in the order of their topic."""
        found: dict[tuple[str, str], list[tuple[int, Record]]] = {}
        for topic in ("aggregates", "alerts"):
            for log in self.node.topics[topic]:
                for record in log:
                    source, _, number = (dict(decode_headers(record[3]))["hw-out"] or b"").decode().rpartition("/")
                    found.setdefault((topic, source), []).append((int(number), record))
        return found

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [msgspec.json.decode(record[2] or b"") for log in self.node.topics[topic] for record in log]


def undisturbed() -> World:
    world = World()
    world.run()
    return world


def test_an_undisturbed_run_numbers_its_outputs_without_a_gap() -> None:
    world = undisturbed()
    found = world.outputs()
    assert len(found) == 4
    for numbered in found.values():
        assert [number for number, _ in numbered] == list(range(len(numbered)))
    states = [(value["instance"], value["state"]) for value in world.values("alerts")]
    assert [state for instance, state in states if instance == "n0/a"] == [
        "pending",
        "firing",
        "recovering",
        "resolved",
    ]
    late = [value for value in world.values("aggregates") if value["revision"] == 1]
    assert [(value["group"], value["start"], value["cause"]) for value in late] == [
        ("n0/b", 0, "late"),
        ("n1/b", 0, "late"),
    ]
    assert world.status["lag_records"] == 0
    assert world.status["late"] == 2
    assert world.status["positions"] == {"readings/0": 61, "readings/1": 61}
    assert world.status["state"] == "stopped"


@pytest.mark.parametrize(
    ("how", "late_calls", "error"),
    [
        ("before", 0, Killed()),
        ("after", 0, Killed()),
        ("late", 14, Killed()),
        ("late", 19, Killed()),
        ("after", 0, ConnectionResetError("cut")),
        ("late", 16, TimeoutError("no answer")),
    ],
)
def test_a_failure_at_any_call_changes_no_output(how: str, late_calls: int, error: Exception) -> None:
    whole = undisturbed()
    for call in range(1 + late_calls % 2, whole.node.calls + 1, 2 if late_calls else 1):
        world = World()
        world.node.fail_at, world.node.how, world.node.error = call, how, error
        world.node.late_calls = late_calls
        try:
            world.run()
        except Killed:
            world.disk.power_cut()
            world.run()
        assert world.outputs() == whole.outputs(), f"call {call} of {whole.node.calls}"


def test_a_run_that_is_killed_again_and_again_gets_there() -> None:
    whole = undisturbed()
    world = World()
    for life in range(200):
        world.node.fail_at = world.node.calls + 20 + life % 7
        world.node.how = ("before", "after", "late")[life % 3]
        try:
            world.run()
            break
        except Killed:
            world.disk.power_cut()
    else:
        pytest.fail("no progress in 200 lives")
    assert life > 3
    assert world.outputs() == whole.outputs()


@pytest.mark.parametrize("damage", [b"", b"HWCP", b"\x00" * 4000, None])
def test_a_corrupt_checkpoint_is_rebuilt_from_the_logs_start(
    damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    whole = undisturbed()
    world = World()
    world.node.fail_at = whole.node.calls * 3 // 4
    with pytest.raises(Killed):
        world.run()
    good = world.disk.read_file(PATH)
    world.disk.replace_file(PATH, good[:-9] + b"123456789" if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        world.run()
    assert [record.message for record in caplog.records if "rebuilding from the log's start" in record.message]
    assert world.outputs() == whole.outputs()
    # and killed once more, soon after the rebuild began
    for life in range(8, 28, 2):
        world = World()
        world.run()
        world.disk.replace_file(PATH, b"")
        world.node.fail_at = world.node.calls + life
        with pytest.raises(Killed):
            world.run()
        world.run()
        assert world.outputs() == whole.outputs(), life


def test_a_rebuild_behind_an_expired_start_repeats_nothing() -> None:
    world = World(1)
    world.run()
    before = [list(log) for log in (*world.node.topics["aggregates"], *world.node.topics["alerts"])]
    world.disk.replace_file(PATH, b"")
    world.node.starts["readings", 0] = 17
    later = [Row("a", time * 1000, {"t": 95}, river.mark("n0", time * 1000), "n0") for time in range(90, 380, 3)]
    world.node.feed(0, river.block(later))
    world.run()
    after = [*world.node.topics["aggregates"], *world.node.topics["alerts"]]
    assert [log[: len(old)] for log, old in zip(after, before, strict=True)] == before
    fresh = [msgspec.json.decode(record[2] or b"") for record in after[0][len(before[0]) :]]
    # Five minutes behind the first mark that is left: until then readings that are gone may have come.
    assert [(value["group"], value["start"]) for value in fresh] == [
        ("n0/a", start) for start in range(330_000, 370_000, 10_000)
    ]
    alerts = [msgspec.json.decode(record[2] or b"") for record in after[1]]
    assert [value["transition"] for value in alerts if value["instance"] == "n0/a"] == [1, 2, 3, 4, 5, 6]


def test_offsets_that_expired_unread_are_counted_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)
    world.node.fail_at = 25
    with pytest.raises(Killed):
        world.run()
    world.node.starts["readings", 0] = 50
    world.run()
    assert world.status["expired"] > 0
    assert any("expired unread" in record.message for record in caplog.records)
    assert world.status["positions"] == {"readings/0": 61}


def test_a_checkpoint_of_another_log_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)
    world.run()
    del world.node.topics["readings"][0][10:]
    world.run()
    assert any("ends at offset 10, before the checkpoint's 61" in record.message for record in caplog.records)
    assert world.status["positions"] == {"readings/0": 10}


def test_an_unchanged_rule_goes_on_when_another_one_changes() -> None:
    world = World(1)
    world.node.fail_at = 25
    with pytest.raises(Killed):
        world.run()
    changed = Rules(windows=(river.window(), river.window(name="other")), alerts=(river.alert(fire_above=70),))
    world.run(changed)
    whole = World(1)
    whole.run()
    version = RULES.windows[0].version
    assert world.outputs()["aggregates", f"{version}/0"] == whole.outputs()["aggregates", f"{version}/0"]
    other = world.outputs()["aggregates", f"{changed.windows[1].version}/0"]
    assert [number for number, _ in other] == list(range(len(other)))
    counts = {
        (value["group"], value["start"]): value["count"]
        for value in whole.values("aggregates")
        if not value["revision"]
    }
    for _, record in other:  # it began in the middle, and says nothing about windows that had begun before
        value = msgspec.json.decode(record[2] or b"")
        assert value["count"] == counts[value["group"], value["start"]]


def test_a_topic_that_comes_later_is_found() -> None:
    world = World(0)
    del world.node.topics["readings"]
    processors = Processors(
        msgspec.structs.replace(SETTINGS, poll_wait_ms=1),
        RULES,
        connect=world.node.connect,
        clock=world.clock,
        data_dir="/data",
        disk=world.disk,
    )
    world.node.idle = processors.stop

    async def main() -> None:
        running = asyncio.create_task(processors.run())
        while processors.status()["state"] != "up":  # noqa: ASYNC110 - it says so in a plain value, for any thread
            await asyncio.sleep(0)
        world.node.topics["readings"] = [[]]
        world.node.feed(0, river.block(story("n0")))
        await running

    asyncio.run(main())
    assert processors.status()["positions"] == {"readings/0": 61}
    assert len(world.values("aggregates")) > 10


def test_more_partitions_of_the_input_are_told_once_and_until_the_next_start() -> None:
    world = World(partitions=1)
    world.run()
    assert world.status["changes"] == []
    world.node.topics["readings"].append([])
    world.node.feed(1, river.block(story("n1")))
    for found in (1, 0):
        world.run()
        assert [said[:43] for said in world.status["changes"]] == ["readings has 2 partitions, and had 1: whose"][
            :found
        ]
    assert {value["instance"] for value in world.values("alerts")} == {"n0/a", "n1/a"}
