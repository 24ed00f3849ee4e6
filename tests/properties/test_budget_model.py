"""Memory under a budget, devices forgotten: any split into blocks and any restart gives the same bytes all the same."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors import budget, roster
from processors.budget import Limits
from processors.processor import Output, PartitionProcessor
from processors.rules.model import WindowRule
from tests.support import river
from tests.support.river import Row

FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
LIMITS = Limits(state_bytes_max=6_000, forget_after_ms=25_000)
ALERT = river.alert(field="power", aggregate="max", fire_above=10, clear_below=5, for_s=0)
FIELDS = {"power": ["max", "p95", "distinct", "integral"]}
RULES = {
    "tumbling": river.window(fields=FIELDS, allowed_lateness_s=20),
    "hopping": river.window(kind="hopping", size_s=20, every_s=10, fields=FIELDS, allowed_lateness_s=20),
    "session": river.window(kind="session", size_s=None, gap_s=9, fields=FIELDS, allowed_lateness_s=20),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at often, with few devices and few spare numbers: so that a short river meets all of it."""
    monkeypatch.setattr(budget, "CHECK_RECORDS", 5)
    monkeypatch.setattr(roster, "KEYS_MAX", 12)
    monkeypatch.setattr(roster, "_SPARE_MIN", 2)


def some_river(seed: int, length: int) -> list[Row]:
    """Many devices that come and go, of two nodes whose time goes on."""
    chance = random.Random(seed)
    rows, now = [], 0
    for _ in range(length):
        now += chance.choice([0, 500, 1_000, 4_000])
        node = chance.choice(["n1", "n2"])
        time = max(0, now - chance.choice([0, 0, 0, 3_000, 30_000]))
        spoken = river.mark(node, max(0, now - 2_000)) if chance.random() < 0.4 else None
        device = f"d{chance.randrange(6) + now // 20_000}"
        rows.append(Row(device, time, {"power": chance.randrange(20)}, spoken, node))
    return rows


def run(rule: WindowRule, rows: list[Row], cuts: list[int], *, restart: bool = False) -> tuple[list[Output], int]:
    one = river.processor(rule, alerts=[ALERT], limits=LIMITS)
    outputs: list[Output] = []
    for begin, end in pairwise([0, *cuts, len(rows)]):
        outputs += one.process(river.block(rows[begin:end], begin))
        if restart:
            one = restarted(rule, one)
    return outputs, one.budget.total_bytes()


def restarted(rule: WindowRule, one: PartitionProcessor) -> PartitionProcessor:
    other = river.processor(rule, alerts=[ALERT], limits=LIMITS)
    assert other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))) == []
    return other


rivers = st.builds(some_river, st.integers(0, 1 << 32), st.integers(1, 100))
kinds = pytest.mark.parametrize("kind", RULES)


def check(kind: str, rows: list[Row], cuts: list[int]) -> None:
    whole = run(RULES[kind], rows, [])
    assert run(RULES[kind], rows, cuts) == whole, cuts
    assert run(RULES[kind], rows, cuts, restart=True) == whole, cuts


@kinds
@settings(max_examples=5, suppress_health_check=FIXTURES)
@given(rows=rivers, data=st.data())
def test_neither_blocks_nor_restarts_show(kind: str, rows: list[Row], data: st.DataObject) -> None:
    check(kind, rows, sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=8))))


@pytest.mark.long("windows-budget", count=500)
@kinds
def test_neither_blocks_nor_restarts_show_for_long(kind: str, count: int) -> None:
    for seed in range(count):
        chance = random.Random(~seed)
        rows = some_river(seed, chance.choice([30, 100, 300]))
        check(kind, rows, sorted(chance.sample(range(len(rows) + 1), chance.randrange(9))))


def test_the_rivers_meet_the_limit_and_forget_devices() -> None:
    """What the test above is worth: its rivers do what it is about."""
    met = {"full": 0, "forgotten": 0, "refused": 0, "too_late": 0, "renumbered": 0}
    for seed in range(4):
        one = river.processor(RULES["tumbling"], alerts=[ALERT], limits=LIMITS)
        for at, row in enumerate(some_river(seed, 150)):
            before = len(one.keys)
            one.process(river.block([row], at))
            met["full"] += one.budget.full
            met["renumbered"] += len(one.keys) < before
        met["forgotten"] += one.budget.roster.forgotten
        met["refused"] += one.counters()["refused"]
        met["too_late"] += one.counters()["too_late"]
    assert all(met.values()), met
