"""One budget over all rules: who gives way first, what is refused then, and devices that nobody hears any more."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors import budget, roster
from processors.budget import Limits, memory_status
from processors.processor import PartitionProcessor
from processors.settings import ProcessorSettings
from processors.windows.memory import FULL
from tests.support import river
from tests.support.river import SECOND, Row, health

DAY = 86_400 * SECOND


@pytest.fixture(autouse=True)
def looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "CHECK_RECORDS", 10)


def feed(one: PartitionProcessor, rows: list[Row]) -> list[dict[str, Any]]:
    outputs = one.process(river.block(rows))
    return river.values(outputs) + river.values(outputs, "alerts")


def full(one: PartitionProcessor) -> bool:
    return one.budget.full


def again(one: PartitionProcessor, other: PartitionProcessor) -> PartitionProcessor:
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    return other


def test_the_oldest_closed_windows_of_all_rules_go_first() -> None:
    rules = [river.window(name="short"), river.window(name="long", size_s=60)]
    free, bound = (river.processor(*rules, limits=limits) for limits in (Limits(), Limits(100_000)))
    times = range(0, 3600 * SECOND, 10 * SECOND)
    rows = [Row("a", time, {"t": 1.0}, river.mark("n1", time)) for time in times]
    assert feed(free, rows) == feed(bound, rows)  # what is told does not change
    assert free.budget.total_bytes() > 100_000 > bound.budget.total_bytes()
    assert not full(bound)
    for one in (free, bound):
        feed(one, [health(3600 * SECOND)])
    late = [Row("a", 20 * SECOND, {"t": 1.0}), health(3600 * SECOND)]
    assert [told["revision"] for told in feed(free, late)] == [1, 1]
    assert feed(bound, late) == []
    assert bound.counters()["too_late"] == 2
    recent = [Row("a", 3500 * SECOND, {"t": 1.0}), health(3601 * SECOND)]
    assert [told["revision"] for told in feed(bound, recent)] == [1, 1]


def test_with_nothing_closed_no_window_no_sample_and_no_device_is_added() -> None:
    rule = river.window(size_s=10_000, every_field=["count", "integral"])
    one = river.processor(rule, limits=Limits(20_000))
    rows = [Row(f"d{number}", 1_000 + number, {"t": 1.0}) for number in range(100)]
    feed(one, rows)
    assert full(one)
    assert one.budget.total_bytes() < 20_000 * FULL + 10 * 1_000  # ten records between two looks
    known = one.budget.roster.alive
    assert one.counters()["refused"] == 100 - known
    feed(one, [Row("d0", 2_000, {"t": 3.0}), Row("new", 2_000, {"t": 3.0}), Row("d1", 20_000_000, {"t": 3.0})])
    assert one.counters() | {"late": 0} == {
        "readings": 103,
        "refused": 101 - known,
        "windows_emitted": 0,
        "revisions": 0,
        "late": 0,
        "too_late": 0,
        "overflow": 2,
    }  # fmt: skip - a sample and a window
    told = {value["group"]: value["fields"]["t"] for value in feed(one, [health(10_000_000)])}
    assert told["n1/d0"] == {"count": 2, "integral": None}  # counted, and never a wrong number
    assert told["n1/d2"]["integral"] is not None
    feed(one, [Row("d2", 10_000_000 + 9, {"t": 1.0})] * 10)  # the closed ones went
    assert not full(one)
    feed(one, [Row("new", 10_000_000, {"t": 1.0})])
    assert one.budget.roster.alive == known + 1 or one.budget.roster.forgotten


def test_idle_devices_go_before_open_windows_are_refused() -> None:
    one = river.processor(river.window(allowed_lateness_s=0), limits=Limits(12_000))
    for second in range(0, 1000, 10):
        feed(one, [Row(f"d{second}", second * SECOND, {"t": 1.0}, river.mark("n1", second * SECOND))])
    assert not full(one)
    assert one.budget.total_bytes() < 12_000
    assert one.budget.roster.forgotten > 50
    assert one.counters()["overflow"] == one.counters()["refused"] == 0


def test_limits_change_when_a_snapshot_is_kept_and_no_sooner() -> None:
    one = river.processor(limits=Limits(0))
    feed(one, [Row("a", 1_000, {"t": 1.0}, river.mark("n1", 12_000))])
    other = again(one, river.processor(limits=Limits(5_000)))
    assert other.budget.limits == Limits(0)
    other.written = dict.fromkeys(other.versions, 5)  # a crash: four outputs are in their topic already
    other.snapshot()
    assert other.budget.limits == Limits(0)
    other.written = {}
    other.snapshot()
    assert other.budget.limits == Limits(5_000)


def test_a_snapshot_of_before_there_were_budgets() -> None:
    one = river.processor()
    feed(one, [Row("a", 1_000, {"t": 1.0})])
    data = one.snapshot()
    del data["budget"]
    other = river.processor(limits=Limits(5_000, 10 * SECOND))
    assert other.restore(data) == []
    assert other.budget.roster.alive == 1
    assert [told["count"] for told in feed(other, [Row("a", 2_000, {"t": 1.0}, river.mark("n1", 20_000))])] == [2]


def test_a_share_is_the_same_whoever_has_the_partition() -> None:
    assert Limits.of_partition(
        ProcessorSettings(state_bytes_max=1 << 30, forget_after_s=60, foreign_lateness_s=5), 16
    ) == Limits(1 << 26, 60_000, 5_000)


def test_status_names_the_rules_and_what_they_hold() -> None:
    processors = [river.processor(river.window(), river.window(name="v"), limits=Limits(20_000)) for _ in range(2)]
    for one in processors:
        feed(one, [Row(f"d{number}", 1_000, {"t": 1.0}) for number in range(5)])
    status = memory_status(processors)
    assert status["bytes_max"] == 40_000
    assert status["devices"] == 10
    assert status["rules"]["w"] == status["rules"]["v"] > 10 * 280
    assert status["bytes"] == sum(status["rules"].values()) + sum(one.budget.roster.state_bytes for one in processors)
    assert status["full"] == 0


def test_a_forgotten_device_comes_back_as_a_new_one_and_its_alert_ends() -> None:
    hot = river.alert(for_s=0)
    one = river.processor(river.window(allowed_lateness_s=60), alerts=[hot], limits=Limits(0, 10 * DAY))
    feed(one, [Row("a", 1_000, {"t": 90.0}), Row("b", 1_000, {"t": 20.0}, river.mark("n1", 11_000))])
    assert [alert["state"] for alert in one.alerts()] == ["firing"]
    told = feed(one, [health(9 * DAY)])
    assert told == []
    told = feed(one, [health(11 * DAY)])
    assert [(value["instance"], value["transition"], value["state"], value["at"]) for value in told] == [
        ("n1/a", 3, "resolved", 11 * DAY)
    ]
    assert one.budget.roster.alive == 0
    assert one.alerts() == []
    # no number of a transition is used twice
    told = feed(one, [Row("a", 11 * DAY + 1_000, {"t": 90.0}), health(11 * DAY + 10_000)])
    assert [(value["transition"], value["state"]) for value in told if "transition" in value] == [
        (4, "pending"), (5, "firing"),
    ]  # fmt: skip


def test_what_came_too_late_of_forgotten_devices_is_counted_together() -> None:
    one = river.processor(river.window(allowed_lateness_s=0), limits=Limits(0, 60 * SECOND))
    feed(one, [health(100 * SECOND), Row("a", 1_000, {"t": 1.0}), Row("b", 1_000, {"t": 1.0}), health(300 * SECOND)])
    assert one.late(10)["w"] == {"readings": 2, "devices": {"forgotten devices": 2}}


def test_a_device_with_an_open_window_is_not_forgotten() -> None:
    rule = river.window(kind="calendar", size_s=None, calendar="year", every_field=["count"])
    one = river.processor(rule, limits=Limits(0, 10 * DAY))
    feed(one, [Row("a", 1_000, {"t": 1.0}), health(100 * DAY)])
    assert one.budget.roster.alive == 1
    assert [told["count"] for told in feed(one, [health(365 * DAY)])] == [1]


KINDS = [{}, {"kind": "hopping", "every_s": 5}, {"kind": "session", "size_s": None, "gap_s": 9}]


def churn(kind: dict[str, Any], turns: int, each: int) -> Iterator[PartitionProcessor]:
    """Devices that say one thing each and are never heard again, `each` of them in ten seconds."""
    rule = river.window(**kind, allowed_lateness_s=10, every_field=["count", "p95", "integral"])
    one = river.processor(rule, alerts=[river.alert(field="t", aggregate="count")], limits=Limits(0, 30 * SECOND))
    for turn in range(turns):
        base = turn * 10 * SECOND
        rows = [Row(f"d{turn}-{number}", base + number, {"t": 1.0}) for number in range(each)]
        one.process(river.block([*rows, health(base + 9 * SECOND)]))
        yield one


@pytest.mark.parametrize("kind", KINDS)
def test_devices_that_never_come_back_leave_no_state(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "_SPARE_MIN", 100)
    held, keys = [], []
    for one in churn(kind, 40, 50):
        held.append(one.budget.total_bytes())
        keys.append(len(one.keys))
    assert one.budget.roster.forgotten > 1_500
    assert max(held[20:]) <= max(held[:20])
    assert max(keys[20:]) <= max(keys[:20]) < 700


@pytest.mark.long("key-churn", count=1000)
@pytest.mark.parametrize("kind", KINDS)
def test_a_million_devices_take_the_memory_of_a_few(
    kind: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`count` thousand devices (make test-long N=…), as the system counts this process's memory."""
    monkeypatch.setattr(budget, "CHECK_RECORDS", 5_000)
    turns = count
    resident = [_resident_bytes() for _ in churn(kind, turns, 1_000)]
    settled = turns // 4
    assert max(resident[settled:]) < resident[settled] + (8 << 20), resident[:: max(1, turns // 20)]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
