"""The close rule by hand-made examples, the bounds on memory, and the bytes of an output."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.log.records import decode_headers, encode_headers
from processors.processor import PartitionProcessor
from tests.support import river
from tests.support.river import Row, health


def said(one: PartitionProcessor, *rows: Row) -> list[tuple[Any, ...]]:
    """Feed rows; (group, start in s, revision, complete, cause, count) of each result."""
    return [
        (value["group"], value["start"] // 1000, *(value[name] for name in ("revision", "complete", "cause", "count")))
        for value in river.values(one.process(river.block(rows)))
    ]


def at(second: float, device: str = "a", **more: Any) -> Row:
    return Row(device, int(second * 1000), {"x": 1}, **more)


def test_a_window_closes_at_the_first_mark_at_its_end() -> None:
    one = river.processor()
    assert said(one, at(1), at(9.999), at(10), health(9_999)) == []
    assert said(one, health(10_000)) == [("n1/a", 0, 0, True, "close", 2)]
    assert said(one, health(19_999), health(20_000)) == [("n1/a", 10, 0, True, "close", 1)]


def test_a_mark_speaks_of_its_own_record_and_of_none_behind_it() -> None:
    one = river.processor()
    assert said(one, at(1, mark=river.mark(live=10_000)), at(2)) == [("n1/a", 0, 0, True, "close", 1)]
    assert said(one, health(10_000)) == [("n1/a", 0, 1, True, "late", 2)]


def test_each_node_closes_by_its_own_marks() -> None:
    one = river.processor()
    assert said(one, at(1), at(1, node="n2"), health(30_000, "n2")) == [("n2/a", 0, 0, True, "close", 1)]


def test_a_live_that_falls_back_opens_nothing() -> None:
    one = river.processor()
    assert said(one, at(15), health(10_000), health(5_000), at(2)) == []
    assert said(one, health(6_000)) == [("n1/a", 0, 0, True, "close", 1)]


def test_a_node_of_two_partitions_is_as_far_as_its_slower_one() -> None:
    one = river.processor()
    copy: dict[str, Any] = {"k": 2, "hw": (0, 0, 1)}
    assert said(one, at(1), health(50_000, partition=0, **copy)) == []
    assert said(one, health(9_000, partition=1, **copy)) == []
    assert said(one, health(10_000, partition=1, **copy)) == [("n1/a", 0, 0, True, "close", 1)]


def test_in_a_nodes_own_log_each_partition_closes_by_its_own_marks() -> None:
    assert said(river.processor(), at(1), health(10_000, k=2, partition=1)) == [("n1/a", 0, 0, True, "close", 1)]


def test_an_open_interval_holds_a_window_and_its_end_completes_it() -> None:
    one = river.processor()
    held: dict[str, Any] = {"open": [[12_000, 15_000]]}
    assert said(one, at(1), at(11), at(21), health(30_000, **held)) == [
        ("n1/a", 0, 0, True, "close", 1),
        ("n1/a", 10, 0, False, "backfill", 1),
        ("n1/a", 20, 0, True, "close", 1),
    ]
    assert said(one, at(13), health(31_000, **held)) == []
    assert said(one, health(32_000)) == [("n1/a", 10, 1, True, "backfill", 2)]
    assert said(one, health(33_000)) == []


@pytest.mark.parametrize(
    ("interval", "touched"), [([0, 9_999], False), ([0, 10_000], True), ([19_999, 30_000], True), ([20_000, 1], False)]
)
def test_both_ends_of_an_interval_belong_to_it(interval: list[int], *, touched: bool) -> None:
    one = river.processor()
    [(*_, complete, _, _)] = said(one, at(11), health(20_000, open=[interval]))
    assert complete is not touched


def test_a_window_that_only_backfill_touches_is_first_said_when_its_interval_is_gone() -> None:
    one = river.processor()
    live, back = (0, 0, 100), (0, 0, 50)
    held: dict[str, Any] = {"open": [[10_000, 19_999]]}
    assert said(one, at(45, hw=live), health(40_000, hw=(0, 0, 101), **held), at(11, hw=back)) == []
    assert said(one, health(41_000, hw=(0, 0, 102), **held)) == []
    assert said(one, health(42_000, hw=(0, 0, 103))) == [("n1/a", 10, 0, True, "backfill", 1)]


def test_a_lost_interval_gives_a_last_incomplete_revision() -> None:
    one = river.processor()
    assert len(said(one, at(1), at(11), health(20_000))) == 2
    lost: dict[str, Any] = {"lost": [[12_000, 15_000, 7]]}
    assert said(one, health(21_000, **lost)) == [("n1/a", 10, 1, False, "lost", 1)]
    assert said(one, health(22_000, **lost), health(23_000)) == []
    assert said(one, at(12), health(24_000)) == [("n1/a", 10, 2, False, "lost", 2)]


def test_what_was_lost_stays_lost_when_its_interval_is_forgotten() -> None:
    one = river.processor()
    assert len(said(one, at(11), health(20_000, lost=[[12_000, 12_000, 1]]))) == 1
    others = [health(20_000, lost=[[second * 1000, second * 1000, 1]]) for second in range(30, 100)]
    assert said(one, *others) == []
    assert said(one, at(12), health(21_000)) == [("n1/a", 10, 1, False, "lost", 2)]


def test_a_silent_node_is_said_once_incomplete_and_completed_when_it_speaks_again() -> None:
    one = river.processor(alerts=[river.alert(field="x", fire_above=0, clear_below=-1, for_s=0)])
    central: dict[str, Any] = {"by": "central"}
    assert said(one, at(1), at(11), health(5_000), health(19_000, **central)) == [("n1/a", 0, 0, False, "silent", 1)]
    assert one.alerts() == []
    assert said(one, health(19_000, **central)) == []
    assert one.marks.watermark("n1") == 5_000
    assert said(one, at(2), health(20_000)) == [("n1/a", 0, 1, True, "close", 2), ("n1/a", 10, 0, True, "close", 1)]
    assert [alert["state"] for alert in one.alerts()] == ["firing"]


def test_late_readings_make_revisions_and_too_late_ones_are_counted() -> None:
    one = river.processor(river.window(allowed_lateness_s=30))
    assert len(said(one, at(1), health(20_000))) == 1
    assert said(one, at(2), at(3), health(21_000), health(22_000)) == [("n1/a", 0, 1, True, "late", 3)]
    assert said(one, health(40_000), at(4), health(40_000)) == []
    counted = one.counters()
    assert [counted[name] for name in ("windows_emitted", "revisions", "late", "too_late")] == [2, 1, 3, 1]


def test_what_backfill_owes_is_never_too_late() -> None:
    one = river.processor(river.window(allowed_lateness_s=30))
    held: dict[str, Any] = {"open": [[0, 5_000]]}
    assert said(one, health(90_000, **held), at(1), health(91_000, **held)) == [("n1/a", 0, 0, False, "backfill", 1)]
    assert said(one, health(92_000)) == [("n1/a", 0, 1, True, "backfill", 1)]


def test_health_readings_are_windowed_only_by_a_rule_that_names_them() -> None:
    one = river.processor()
    assert said(one, health(0), health(50_000)) == []
    one = river.processor(river.window(devices=["$gateway"]))
    assert said(one, health(0), at(1), health(50_000)) == [("n1/$gateway", 0, 0, True, "close", 2)]


def test_a_rule_takes_the_devices_and_nodes_that_it_names() -> None:
    one = river.processor(river.window(devices=["t?", "mast*"], nodes=["n*"]))
    rows = [at(1, "t1"), at(1, "t12"), at(1, "mast-3"), at(1, "t1", node="other")]
    assert [found[0] for found in said(one, *rows, health(10_000))] == ["n1/mast-3", "n1/t1"]


def test_when_memory_is_full_of_open_windows_no_other_begins() -> None:
    one = river.processor(river.window(windows_max=16))
    rows = [at(second, device) for second in range(0, 100, 10) for device in "ab"]
    assert said(one, *rows) == []
    assert one.counters()["overflow"] == 4
    assert len(said(one, health(100_000))) == 16


def test_when_memory_is_short_the_oldest_closed_windows_are_forgotten() -> None:
    one = river.processor(river.window(windows_max=16))
    rows = [at(second) for second in range(0, 150, 10)]
    assert len(said(one, *rows, health(150_000))) == 15  # above 7/8: three are forgotten
    assert said(one, at(5), at(25), health(151_000)) == []
    assert one.counters()["too_late"] == 2
    assert said(one, at(35), health(152_000)) == [("n1/a", 30, 1, True, "late", 2)]
    assert said(one, at(155), at(165), health(170_000))[0] == ("n1/a", 150, 0, True, "close", 1)


def test_too_many_fields_are_left_out_and_counted() -> None:
    one = river.processor(river.window(fields_max=2))
    rows = [Row("a", 1, {"z": 1, "y": 2}), Row("a", 2, {"b": 3, "z": 4})]
    [value] = river.values(one.process(river.block([*rows, health(10_000)])))
    assert list(value["fields"]) == ["y", "z"]
    assert one.counters()["overflow"] == 1


def test_fields_that_are_neither_numbers_nor_booleans_are_left_out() -> None:
    one = river.processor(river.window(every_field=["count", "max"], fields={"skip": []}))
    rows = [
        Row("a", 1, {"flag": True, "text": "5", "none": None, "skip": 1, "x": 1}),
        Row("a", 2, {"x": "down", "big": 10**400}),
        Row("a", 3, {"x": 2.5, "mixed": [1]}),
    ]
    [value] = river.values(one.process(river.block([*rows, health(10_000)])))
    assert value["count"] == 3
    assert value["fields"] == {"flag": {"count": 1, "max": 1.0}, "x": {"count": 2, "max": 2.5}}


def test_malformed_records_are_refused_one_by_one_and_counted() -> None:
    one = river.processor()
    good = river.block([at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), health(10_000)])
    values: list[bytes | None] = [b'{"x":1}\n{"x":1}', b"", None, b"[1]", b'{"x":', b"\xff", b'{"x":\n1}']
    keys: list[bytes | None] = [*good.keys[:7], b"nokey", good.keys[8]]
    block = good._replace(values=[*values, b'{"x":1}', good.values[8]], keys=keys, timestamps=[5, *good.timestamps[1:]])
    outputs = one.process(block)
    assert [(value["count"], value["fields"]["x"]["max"]) for value in river.values(outputs)] == [(1, 1.0)]
    assert one.counters()["refused"] == 7
    late = river.block([at(1), at(2)])._replace(timestamps=[-1, 1 << 60], keys=[None, b"n1/a"])
    assert one.process(late) == []
    assert one.counters()["refused"] == 9


def test_lines_inside_a_value_never_move_values_between_records() -> None:
    block = river.block([at(1, "a"), at(1, "b"), health(10_000)])
    one = river.processor()
    assert one.process(block._replace(values=[b'{"x":1}\n{"x":2}', b"", b"{}"])) == []
    assert one.counters()["refused"] == 2


@pytest.mark.parametrize(
    "mark",
    [
        b"",
        b"{}",
        b"no json",
        b'{"node":"n2","live":10000}',
        b'{"node":"n1","live":10000,"k":0}',
        b'{"node":"n1","live":"x"}',
    ],
)
def test_what_is_no_mark_of_its_records_node_closes_nothing(mark: bytes) -> None:
    block = river.block([at(1), at(2)])
    block = block._replace(headers=[block.headers[0], encode_headers([("hw-mark", mark)])])
    one = river.processor()
    assert one.process(block) == []
    assert said(one, health(10_000)) == [("n1/a", 0, 0, True, "close", 2)]


def test_the_bytes_of_an_aggregate() -> None:
    one = river.processor(river.window(fields={"dir": ["circular_mean"]}), partition=3)
    rows = [Row("a/b", 1_000, {"dir": 350, "p": 812}), Row("a/b", 2_000, {"dir": 10, "p": 7.5})]
    [output] = one.process(river.block([*rows, health(10_000)], partition=3))
    time, key, value, headers = output.record
    assert (output.topic, time, key) == ("aggregates", 10_000, b"n1/a/b/w/0")
    assert value == (
        b'{"rule":"w","group":"n1/a/b","start":0,"end":10000,"revision":0,"complete":true,"cause":"close","count":2,'
        b'"fields":{"dir":{"circular_mean":0.0},"p":{"count":2,"mean":409.75,"min":7.5,"max":812.0}}}'
    )
    [(name, number)] = decode_headers(headers)
    assert (name, (number or b"").decode()) == ("hw-out", f"{one.versions[0]}/3/0")


def test_the_bytes_of_an_alert() -> None:
    rule = river.alert(for_s=0, severity="critical", summary="Too hot.")
    one = river.processor(alerts=[rule])
    outputs = one.process(river.block([Row("a", 1_000, {"t": 90}), health(10_000)]))
    time, key, value, _ = outputs[2].record
    assert (outputs[2].topic, time, key) == ("alerts", 10_000, b"hot/n1/a")
    assert value == (
        b'{"rule":"hot","instance":"n1/a","transition":2,"state":"firing","since":10000,"value":90.0,'
        b'"cause":"mean of t is 90, above 85","at":10000,"window":0,"severity":"critical","summary":"Too hot."}'
    )


def test_a_rule_that_begins_in_the_middle_says_only_whole_windows() -> None:
    one = river.processor(river.window())
    one.process(river.block([at(11), at(14), health(12_000)]))
    other = river.processor(river.window(), river.window(name="new"))
    fresh = other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    assert [version.partition("@")[0] for version in fresh] == ["new"]
    found = [
        (value["rule"], value["start"], value["count"])
        for value in river.values(other.process(river.block([at(15), at(21), health(40_000)])))
    ]
    assert found == [("w", 10_000, 3), ("w", 20_000, 1), ("new", 20_000, 1)]
