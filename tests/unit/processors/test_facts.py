"""Joins with what is known of a device: it is said by its readings, so it holds in the order of the partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.facts import DeviceFacts
from processors.group.core import _part
from processors.processor import Output, PartitionProcessor
from tests.support import river
from tests.support.river import Row

HOUR = 3_600_000
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", None)
WHERE = "device.site == 'north' and device.labels.line not in ('7', '8')"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def counts(rows: list[Row], **rule: Any) -> dict[str, int]:
    """Readings that stand in the windows of each device."""
    outputs = river.processor(river.window(**rule)).process(river.block([*rows, river.health(10**9)]))
    found: dict[str, int] = {}
    for value in river.values(outputs):
        found[value["group"]] = found.get(value["group"], 0) + value["count"]
    return found


def test_a_filter_sees_what_its_device_is_from_the_reading_on_that_says_it() -> None:
    rows = [
        Row("a", 1000, {"t": 1}),
        Row("a", 1100, {"t": 1}, says={"site": "north"}),
        Row("b", 1200, {"t": 1}, says={"site": "south"}),
        Row("a", 1300, {"t": 1}),
        Row("c", 1400, {"t": 1}, says={"site": "north", "labels": {"line": "7"}}),
        Row("a", 1500, {"t": 1}, says={"site": "south"}),
        Row("a", 1600, {"t": 1}),
        Row("a", 1700, {"t": 1}, says={"site": "north", "labels": {"line": "1"}}),
    ]
    assert counts(rows, where="device.site == 'north'") == {"n1/a": 3, "n1/c": 1}
    assert counts(rows, where=WHERE) == {"n1/a": 1}
    assert counts(rows, where="has(device.labels.line)") == {"n1/a": 1, "n1/c": 1}
    assert counts(rows, where="device.site != 'north'") == {"n1/a": 2, "n1/b": 1}


def test_what_a_copy_said_later_at_home_holds_though_an_earlier_one_comes_after_it() -> None:
    rows = [
        Row("a", 1000, {"t": 1}, hw=(1, 0, 900), says={"site": "north"}),
        Row("a", 1100, {"t": 1}, hw=(1, 0, 10), says={"site": "south"}),  # backfill
        Row("a", 1200, {"t": 1}, hw=(0, 0, 950), says={"site": "south"}),  # of an earlier epoch
        Row("a", 1300, {"t": 1}, hw=(2, 0, 3), says={"site": "north", "type": "x"}),
    ]
    assert counts(rows, where="device.site == 'north'") == {"n1/a": 4}
    assert counts(rows, where="device.type == 'x'") == {"n1/a": 1}


@pytest.mark.parametrize("value", [b"", b"[]", b'{"site":3}', b'{"labels":{"a":1}}', b"\xff", b"[" * 5000])
def test_what_is_no_header_of_ours_says_nothing(value: bytes) -> None:
    block = river.block(
        [Row("a", 1000, {"t": 1}, says={"site": "north"}), Row("a", 1000, {"t": 1}, says={"site": "x"})]
    )
    strange = block.headers[1][:1] + b"\x12hw-device" + bytes([len(value) * 2 % 128]) + value
    block = block._replace(headers=[block.headers[0], strange])
    facts = DeviceFacts()
    facts.take(block)
    assert facts.of(b"n1/a") == {"device.site": "north"}


def story(seed: int) -> list[Row]:
    """Five devices in zones of their own through both changes of the clocks; now and then their zone is said again."""
    random, rows = Random(seed), []
    for begin, days in (("2024-03-08T00:00+00:00", 32), ("2024-10-05T00:00+00:00", 31)):
        for hour in range(0, days * 24, 3):
            at = ms(begin) + hour * HOUR
            for device, zone in enumerate(ZONES):
                say = {"zone": zone, "site": f"s{device}"} if not hour or random.random() < 0.02 else None
                rows.append(Row(f"d{device}", at + random.randrange(3 * HOUR), {"t": device + hour}, says=say))
            rows.append(river.health(at - HOUR))
    rows.append(river.health(ms("2024-12-01T00:00+00:00")))
    return rows


def days_of(rows: list[Row]) -> dict[tuple[str, int, int], int]:
    """Naively: (device, first and last ms of its local day) -> readings."""
    found: dict[tuple[str, int, int], int] = {}
    for row in rows:
        if not row.device.startswith("d"):
            continue
        zone = ZoneInfo(ZONES[int(row.device[1:])] or "Asia/Tokyo")
        day = datetime.fromtimestamp(row.time / 1000, UTC).astimezone(zone).date()
        bounds = [
            round(datetime(one.year, one.month, one.day, tzinfo=zone).timestamp() * 1000)
            for one in (day, day + timedelta(days=1))
        ]
        key = (f"n1/{row.device}", bounds[0], bounds[1])
        found[key] = found.get(key, 0) + 1
    return found


ZONED = {"kind": "calendar", "calendar": "day", "zone": "device", "default_zone": "Asia/Tokyo", "size_s": None}


def test_days_by_each_devices_own_clock_are_23_24_and_25_hours_long() -> None:
    rows = story(1)
    outputs = river.processor(river.window(**ZONED)).process(river.block(rows))
    told = {(one["group"], one["start"], one["end"]): one["count"] for one in river.values(outputs)}
    assert told == days_of(rows)
    lengths = {(end - start) / HOUR for _, start, end in told}
    assert lengths == {23, 23.5, 24, 24.5, 25}  # Lord Howe's clocks change by half an hour


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_split_and_any_restart_give_the_same_bytes(seed: int) -> None:
    random = Random(seed)
    rules = (
        river.window(**ZONED, where="device.site != 's1'"),
        river.window(
            **{**ZONED, "name": "v", "calendar": "shifts", "shifts": {"early": "06:00", "late": "18:00"}},
            compute={"x": "1 if device.type == 'q' else 2"},
        ),
    )
    rows = story(seed)[:450]
    rows[200] = rows[200]._replace(says={"zone": "Pacific/Apia", "type": "q", "site": "s1"})
    whole = river.block(rows)
    once = river.processor(*rules).process(whole)
    assert len({msgspec.json.decode(output.record[2] or b"").get("shift") for output in once}) == 3
    processor, made, at = river.processor(*rules), list[Output](), 0
    while at < len(rows):
        end = min(len(rows), at + random.randrange(1, 200))
        made += processor.process(_part(whole, at, end))
        at = end
        if random.random() < 0.3:
            kept = msgspec.msgpack.decode(msgspec.msgpack.encode(processor.snapshot()))
            processor = river.processor(*rules)
            assert processor.restore(kept) == []
    assert made == once


def test_a_state_of_before_there_were_facts_is_taken_over() -> None:
    first, second = river.processor(), river.processor()
    first.process(river.block([Row("a", 1000, {"t": 1})]))
    kept = first.snapshot()
    del kept["facts"]
    assert second.restore(kept) == []


def test_a_zone_that_nobody_knows_is_the_default_zone() -> None:
    processor: PartitionProcessor = river.processor(river.window(**{**ZONED, "default_zone": "UTC"}))
    rows = [
        Row(f"d{number}", 5 * 24 * HOUR, {"t": 1}, says={"zone": zone})
        for number, zone in enumerate(["Mars/Base", "/etc/passwd", "..", "a\0b", "x" * 300])
    ]
    [*told] = river.values(processor.process(river.block([*rows, river.health(7 * 24 * HOUR)])))
    assert {(one["start"], one["end"]) for one in told} == {(5 * 24 * HOUR, 6 * 24 * HOUR)}
    assert len(told) == 5


def test_what_is_known_is_bounded_and_what_gives_way_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.facts.BYTES_MAX", 1_800)  # room for three devices
    random = Random(3)
    rows = [
        Row(f"d{random.randrange(6)}", 1000 + at, {"t": 1}, says={"site": "north"} if random.random() < 0.3 else None)
        for at in range(200)
    ]
    block = river.block([*rows, river.health(10**9)])

    def said(size: int) -> list[Output]:
        one = river.processor(river.window(where="device.site == 'north'"))
        made = []
        for at in range(0, len(block.offsets), size):
            made += one.process(_part(block, at, min(at + size, len(block.offsets))))
            assert one.facts.held_bytes <= 1_800
            again = DeviceFacts()
            again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.facts.snapshot())))
            assert again.held_bytes == one.facts.held_bytes
        return made

    whole = said(1000)
    assert 60 < sum(value["count"] for value in river.values(whole)) < 160
    assert said(7) == said(1) == whole
