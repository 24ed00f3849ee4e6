"""Alerts and backfill: the live state never sees it; what fired in an outage is told once, when all is there."""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.dashboard.model import PageModel
from processors.outages import FIRINGS_MAX
from processors.processor import ALERTS, Output, PartitionProcessor
from tests.support import river
from tests.support.river import Row, health

ALERT = river.alert(for_s=10, summary="Too hot.")
OWED: dict[str, Any] = {"open": [[20_000, 89_999]]}


def processor() -> PartitionProcessor:
    return river.processor(alerts=[ALERT])


def copy(second: float, value: float, offset: int, device: str = "a") -> Row:
    return Row(device, int(second * 1000), {"t": value}, hw=(0, 0, offset))


def outage(hot: float = 90, devices: tuple[str, ...] = ("a",)) -> list[Row]:
    """Cut off from 20 s to 90 s; hot from 30 s to 60 s of that, which backfill brings afterwards."""
    live = [copy(second, 60, second) for second in range(0, 20, 5)]
    back = [copy(95, 60, 1_000), health(100_000, hw=(0, 0, 1_001), **OWED)]
    late = [
        copy(second, hot + second / 100 if 30 <= second < 60 else 60, 20 + second, device)
        for second in range(20, 90, 5)
        for device in devices
    ]
    return [*live, *back, *late, health(101_000, hw=(0, 0, 1_002))]


def digests(outputs: list[Output]) -> list[dict[str, Any]]:
    return [value for value in river.values(outputs, ALERTS) if value.get("retro")]


def test_an_outage_in_which_an_alert_would_have_fired_makes_one_digest() -> None:
    outputs = processor().process(river.block(outage()))
    alerts = [output for output in outputs if output.topic == ALERTS]
    assert len(alerts) == 1
    timestamp, key, value, headers = alerts[0].record
    assert (timestamp, key) == (90_000, b"hot/n1")
    assert msgspec.json.decode(value or b"") == {
        "rule": "hot",
        "instance": "n1",
        "retro": True,
        "from": 20_000,
        "to": 90_000,
        "windows": 7,
        "fired": 1,
        "firings": [{"instance": "n1/a", "since": 50_000, "until": 70_000, "value": 90.525}],
        "severity": "warning",
        "summary": "Too hot.",
    }
    assert alerts[0].version.endswith(":retro")
    assert b"hw-out" in headers


def test_an_outage_in_which_nothing_fired_is_not_worth_a_word() -> None:
    one = processor()
    assert digests(one.process(river.block(outage(hot=70)))) == []
    again = [*(Row(row.device, row.time + 200_000, row.fields, None, hw=None) for row in outage()[:4])]
    assert one.process(river.block(again)) == []
    assert one.counters()["windows_emitted"] == 10


def test_it_waits_until_the_node_owes_nothing() -> None:
    *rows, last = outage()
    one = processor()
    half = health(101_000, hw=(0, 0, 1_002), open=[[60_000, 89_999]])
    first = one.process(river.block([*rows, half]))
    assert digests(first) == []
    [digest] = digests(one.process(river.block([last])))
    assert (digest["windows"], digest["fired"]) == (7, 1)


def test_many_that_fired_are_counted_and_the_first_named() -> None:
    devices = tuple(f"d{number:03}" for number in range(FIRINGS_MAX + 7))
    [digest] = digests(processor().process(river.block(outage(devices=devices))))
    assert (digest["fired"], len(digest["firings"])) == (FIRINGS_MAX + 7, FIRINGS_MAX)


def test_a_restart_anywhere_in_an_outage_changes_no_byte() -> None:
    rows = outage(devices=("a", "b"))
    rows.insert(-1, health(101_000, hw=(0, 0, 1_003), open=[[55_000, 89_999]]))  # a firing that is under way
    whole = processor().process(river.block(rows))
    for cut in range(1, len(rows)):
        one, two = processor(), processor()
        outputs = one.process(river.block(rows[:cut]))
        two.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
        assert outputs + two.process(river.block(rows[cut:], cut)) == whole


def test_a_page_lists_no_digest_among_alerts() -> None:
    page = PageModel(history_s=1, devices_max=1, series_max=1)
    records = [output.record for output in processor().process(river.block(outage())) if output.topic == ALERTS]
    page.alerts_block([record[1] for record in records], [record[2] for record in records])
    assert page.alerts == {}


def test_what_is_held_for_an_outage_is_counted_until_it_is_over() -> None:
    one, rows = processor(), outage(devices=("a", "b", "c"))
    one.process(river.block(rows[:-1]))
    one.process(river.block([health(100_500, hw=(0, 0, 1_001), open=[[85_000, 89_999]])]))
    held = one.budget.state_bytes()["w"] - one._rules[0].state.state_bytes()
    own = len(one._rules[0].alerts[0][1].instances)
    assert held == 320 * (own + len(one._outages["hot"]))
    assert len(one._outages["hot"]) >= 4
    one.process(river.block([health(101_000, hw=(0, 0, 1_002))]))
    assert len(one._outages["hot"]) == 0
