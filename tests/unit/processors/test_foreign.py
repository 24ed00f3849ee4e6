"""Nodes without marks, as Kafka clients write them: their windows close by the newest time that was seen."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import msgspec
import pytest

from processors.budget import Limits
from processors.processor import Output, PartitionProcessor
from processors.silence import SilenceWatch, silence_record
from tests.support import river
from tests.support.river import Row

KINDS: list[dict[str, object]] = [
    {},
    {"kind": "hopping", "size_s": 20, "every_s": 10},
    {"kind": "session", "gap_s": 4},
]
LIMITS = Limits(foreign_lateness_ms=5_000)


def processor(**more: object) -> PartitionProcessor:
    return river.processor(river.window(**{"every_field": ["count"], **more}), limits=LIMITS)


def plain(second: float, node: str = "plant", device: str = "pump") -> Row:
    return Row(device, round(second * 1000), {"x": 1}, node=node)


def closed(outputs: list[Output]) -> list[tuple[str, int, bool, str]]:
    return [(v["group"], v["start"] // 1000, v["complete"], v["cause"]) for v in river.values(outputs)]


def test_a_window_closes_when_a_reading_is_so_far_behind_its_end() -> None:
    one = processor()
    assert closed(one.process(river.block([plain(1), plain(9), plain(14.9)]))) == []
    assert closed(one.process(river.block([plain(15)], 3))) == [("plant/pump", 0, True, "close")]
    assert closed(one.process(river.block([plain(3), plain(21)], 4))) == [("plant/pump", 0, True, "late")]
    assert one.foreign.names() == ["plant"]


def test_a_node_that_goes_quiet_is_told_incomplete_by_the_silent_node_rule_and_goes_on() -> None:
    one, watch = processor(), SilenceWatch(60_000)
    one.process(river.block([plain(1), plain(2)]))
    assert watch.look(one.marks.nodes, one, now_ms=0, wall_ms=90_000) == []
    [(node, silent_ms)] = watch.look(one.marks.nodes, one, now_ms=60_000, wall_ms=90_000)
    time, _, _, headers = silence_record(node, silent_ms, 90_000)
    said = river.block([river.health(time, node, time, by="central")], 2)
    assert headers
    assert closed(one.process(said)) == [("plant/pump", 0, False, "silent")]
    assert closed(one.process(river.block([plain(3), plain(30)], 3))) == [("plant/pump", 0, True, "close")]


def test_who_makes_marks_or_bears_a_gateways_headers_waits_for_marks() -> None:
    one = processor()
    copies = [plain(second, "edge")._replace(hw=(0, 0, second)) for second in range(100)]
    native = [plain(second, "here")._replace(says={"site": "x"} if second == 0 else None) for second in range(100)]
    assert closed(one.process(river.block([*copies, *native]))) == []
    marked = [river.health(0, "marked"), *[plain(second, "marked") for second in range(100)]]
    assert closed(one.process(river.block(marked, 200))) == []
    assert one.foreign.names() == []


def test_what_an_edge_only_passes_on_is_foreign() -> None:
    one = processor()
    block = river.block([plain(second, "plant") for second in range(0, 30, 5)])
    place = [b"\x02\x04hw" + bytes([2 * len(at)]) + at for at in (b"edge/0/0/%d" % row for row in range(6))]
    assert closed(one.process(block._replace(headers=place))) == [
        ("plant/pump", 0, True, "close"),
        ("plant/pump", 10, True, "close"),
    ]


def test_a_node_that_begins_to_make_marks_is_foreign_no_more() -> None:
    one = processor()
    one.process(river.block([plain(1), plain(2), river.health(0, "plant"), plain(100)]))
    assert one.foreign.names() == []
    assert closed(one.process(river.block([plain(200), river.health(10_000, "plant")], 4))) == [
        ("plant/pump", 0, True, "close")
    ]


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "hopping", "size_s": 20, "every_s": 10}, {"kind": "session", "gap_s": 4}]
)
def test_any_blocks_and_restarts_give_the_same_bytes(kind: dict[str, object]) -> None:
    random = Random(7)
    rows = [
        plain(second + random.uniform(-8, 2) + 10, random.choice(("plant", "mill")), random.choice("ab"))
        for second in range(200)
    ]
    rows = [
        row for second, row in enumerate(rows) for row in ([row, river.health(second * 990)] if second % 9 else [row])
    ]
    whole = processor(**kind).process(river.block(rows))
    assert len(whole) > 20
    for seed in range(5):
        cuts = sorted(Random(seed).sample(range(1, len(rows)), 12))
        one, outputs = processor(**kind), []
        for begin, end in pairwise([0, *cuts, len(rows)]):
            outputs += one.process(river.block(rows[begin:end], begin))
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
            one = processor(**kind)
            one.restore(state)
        assert outputs == whole


@pytest.mark.parametrize(
    "kind", [{}, {"kind": "hopping", "size_s": 20, "every_s": 10}, {"kind": "session", "gap_s": 4}]
)
def test_windows_that_never_close_do_not_take_the_room_of_those_that_do(kind: dict[str, object]) -> None:
    rule = river.window(**{"every_field": ["count"], "windows_max": 64, "allowed_lateness_s": 0, **kind})
    one = river.processor(rule)  # without a bound for foreign nodes: nothing ever closes their windows
    for step in range(60):
        rows = [*(plain(step * 10, device=f"p{device}") for device in range(5)), plain(step * 10, "edge")]
        found = river.values(one.process(river.block([*rows, river.health(step * 10_000 - 500, "edge")], step * 7)))
        if step > 3:
            assert [value["group"] for value in found] == ["edge/pump"], step
    assert one.counters()["overflow"] > 100
    assert one.crowded() == []
