"""Readings that came too late: what topic `late` says, how little it says of a flood, what survives a restart."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client import generate_latest

from gateway.log.records import decode_headers
from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel
from processors.group.core import Member
from processors.late import SINGLES, late_news
from processors.processor import Output, PartitionProcessor
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.river import Row, health

DAY = 86_400
RULE = river.window(allowed_lateness_s=30)


def at(second: float, device: str = "a", **more: Any) -> Row:
    return Row(device, int(second * 1000), {"x": 1}, **more)


def late(outputs: list[Output]) -> list[dict[str, Any]]:
    return river.values(outputs, "late")


def far_on(second: float = 1000, rule: WindowRule = RULE) -> PartitionProcessor:
    one = river.processor(rule)
    assert late(one.process(river.block([at(second - 100), health(int(second * 1000))]))) == []
    return one


def test_a_reading_that_no_window_takes_is_told_with_its_place_and_why() -> None:
    one = far_on()
    outputs = one.process(river.block([at(500), health(1_001_000)], base=40))
    assert [output.topic for output in outputs] == ["late"]
    timestamp, key, value, headers = outputs[0].record
    assert (timestamp, key) == (1_001_000, b"n1/a")
    assert value == (
        b'{"rule":"w","group":"n1/a","time":500000,"start":500000,"end":510000,"live":1000000,"behind_ms":500000,'
        b'"cause":"device","topic":"readings","partition":0,"offset":40,"reading":{"x":1}}'
    )
    assert dict(decode_headers(headers)) == {"hw-out": f"{RULE.version}:late/0/0".encode()}
    assert late(one.process(river.block([health(1_002_000)]))) == []


def test_what_comes_between_marks_waits_for_the_next_one() -> None:
    one = far_on()
    assert one.process(river.block([at(500), at(501)])) == []
    assert [value["time"] for value in late(one.process(river.block([health(1_001_000)])))] == [500_000, 501_000]


def test_backfill_and_short_memory_are_causes_too() -> None:
    one = river.processor(river.window(allowed_lateness_s=DAY, windows_max=16))
    for second in range(0, 400, 10):
        one.process(river.block([Row("a", second * 1000, {"x": 1}, hw=(0, 0, 100 + second)), health(second * 1000)]))
    [memory] = late(one.process(river.block([at(5), health(400_000)])))
    assert memory["cause"] == "memory"
    one = far_on()
    first, late_one = at(999, hw=(0, 0, 50)), at(500, hw=(0, 0, 49))
    [backfill] = late(one.process(river.block([first, late_one, health(1_000_000)])))
    assert backfill["cause"] == "backfill"


def test_a_flood_is_told_by_a_few_readings_and_one_sum_an_hour() -> None:
    one = far_on(3_000)
    said = []
    for second in range(3_000, 8_000, 5):
        said += late(one.process(river.block([at(second - 2_900), at(second - 2_800), health(second * 1000)])))
    singles, sums = [one for one in said if "time" in one], [one for one in said if "count" in one]
    assert len(singles) == 3 * SINGLES  # in three hours 2,000 readings
    assert [(one["count"], one["first"] // 1000, one["last"] // 1000) for one in sums] == [
        (242 - SINGLES, 125, 800),
        (1440 - SINGLES, 730, 4400),
    ]
    assert sums[0] | {"live": 3_600_000, "causes": {"device": 232}} == sums[0]
    assert one.late(3) == {"w": {"readings": 2_000, "devices": {"n1/a": 2_000}}}


def test_metrics_count_them_by_rule() -> None:
    processors = {
        "state": "up",
        "lag_records": 3,
        "late": 7,
        "too_late_by_rule": {"w": {"readings": 12, "devices": {"n1/a": 9, "n1/b": 3}}},
    }
    status = {"node": "n", "version": "1", "ingest": None, "work": {"report": {"processors": processors}}}
    page = PageModel(history_s=1, devices_max=1, series_max=1)
    text = generate_latest(registry(lambda: status, page)).decode().splitlines()
    assert 'headwater_processors_too_late_total{rule="w"} 12.0' in text
    assert 'headwater_processors_too_late_devices{device="n1/b",rule="w"} 3.0' in text
    assert "headwater_processors_lag_records 3.0" in text


def test_a_member_of_a_group_counts_them_by_device_as_a_node_does_and_tells_its_log_when_they_double() -> None:
    member = Member(Rules(windows=(RULE,)), place="central")
    member.begin(("readings", 0), None, partitions=1, committed=None, start=0)
    told: list[list[str]] = []
    before: dict[str, Any] = {}
    offset = 0
    for late_ones in (0, 1, 2, 3, 1, 0):
        rows = [at(500, device="b" if n else "a") for n in range(late_ones)]
        member.process(river.block([at(999), health(1_000_000), *rows], offset))
        offset += 2 + late_ones
        now = member.status()["too_late_by_rule"]
        told.append(late_news(before, now))
        before = now
    assert before == {"w": {"readings": 7, "devices": {"n1/a": 4, "n1/b": 3}}}
    said = "rule w: {} readings so far came too late for its windows, most from n1/a ({}){}"
    assert told == [
        [],
        [said.format(1, 1, "")],
        [said.format(3, 2, ", n1/b (1)")],
        [said.format(6, 3, ", n1/b (3)")],
        [],
        [],
    ]


def test_a_large_reading_is_named_by_its_place_alone() -> None:
    one = far_on()
    [found] = late(one.process(river.block([at(500)._replace(fields={"text": "x" * 5000}), health(1_001_000)])))
    assert "reading" not in found
    assert found["offset"] == 0


def test_a_rule_that_is_younger_than_a_window_calls_nothing_late() -> None:
    one = river.processor(river.window(name="other"))
    one.process(river.block([at(995), health(1_000_000)]))
    two = PartitionProcessor(Rules(windows=(RULE,)), "readings", 0, place="central")
    two.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    assert late(two.process(river.block([at(995), health(1_001_000)]))) == []
    assert two.counters()["too_late"] == 1


def test_sums_and_waiting_readings_survive_a_restart() -> None:
    one, two = far_on(), far_on()
    rows = [at(500 + n / 10) for n in range(SINGLES + 5)]
    one.process(river.block(rows))
    snapshot = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
    one = river.processor(RULE)
    one.restore(snapshot)
    two.process(river.block(rows))
    for live in (1_001_000, 4_000_000):
        mark = river.block([health(live)])
        outputs = one.process(mark)
        assert outputs == two.process(mark)
        assert late(outputs)
