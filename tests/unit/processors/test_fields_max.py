"""Names beyond `fields_max`: left out, told with the device that took the room, and let in when it is free again."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from processors.columns import KeyTable
from processors.processor import Output, PartitionProcessor
from processors.rules.model import Rules, WindowRule
from processors.windows.kinds import window_state
from tests.support import river
from tests.support.river import Row

MINUTE = 60_000
KINDS: list[dict[str, object]] = [
    {},
    {"kind": "hopping", "size_s": 20, "every_s": 10},
    {"kind": "session", "gap_s": 4},
]


def rule(**more: object) -> WindowRule:
    return river.window(**{"every_field": ["count"], "fields_max": 8, "allowed_lateness_s": 0, **more})


def story() -> list[Row]:
    rows = [Row("bad", 0, {f"id{number}": 1 for number in range(8)})]
    for minute in range(10):
        rows.append(Row("good", minute * MINUTE, {"power": 1}))
        rows.append(river.health(minute * MINUTE + 40_000))
    return rows


def fields_of_good(outputs: list[Output]) -> list[list[str]]:
    return [list(value["fields"]) for value in river.values(outputs) if value["group"] == "n1/good"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_nobody_uses_any_more_make_room(kind: dict[str, object]) -> None:
    one = river.processor(rule(**kind))
    found = fields_of_good(one.process(river.block(story())))
    assert found[0] == []
    assert all(fields == ["power"] for fields in found[4:])
    assert one.fields_missed() == []


def test_the_device_that_took_them_is_named() -> None:
    one = river.processor(rule())
    one.process(river.block(story()[:3]))
    missed = {"rule": "w", "fields_max": 8, "device": "n1/bad", "fields": 8}
    one.process(river.block([Row("bad", 50_000, {f"id{number}": 1 for number in range(8)})], 3))
    one.process(river.block([Row("good", 50_000, {"power": 1}), river.health(51_000)], 4))
    assert one.fields_missed() == [missed]


def test_no_other_device_is_named_for_one_that_was_forgotten() -> None:
    keys = KeyTable()
    windows = window_state(rule(), keys)
    keys.ids([b"n1/bad", b"n1/good", b"n1/other"])
    windows.fields.brought = {"id0": 0, "power": 1}
    for known in (np.array([False, True, True]), np.array([True, True])):
        windows.renumber(*keys.keep(known, {"n1"}))
    assert windows.fields.brought == {"id0": -1, "power": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_any_blocks_and_restarts_give_the_same_bytes(kind: dict[str, object]) -> None:
    rows = story()
    whole = river.processor(rule(**kind)).process(river.block(rows))
    for cuts in ([1, 2, 3, 4, 5], [2, 9], [3, 6, 12], [4]):
        one, outputs = river.processor(rule(**kind)), []
        for begin, end in pairwise([0, *cuts, len(rows)]):
            outputs += one.process(river.block(rows[begin:end], begin))
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
            one = PartitionProcessor(Rules(windows=(rule(**kind),), alerts=()), "readings", 0, place="central")
            one.restore(state)
        assert outputs == whole
