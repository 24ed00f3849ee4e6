"""Bounds of rules that are met are problems in the status, with what to do."""

from __future__ import annotations

from headwater.app.rule_problems import rule_problems
from processors.job import RuleJob
from processors.rules.model import Rules, WindowRule
from tests.support import river
from tests.support.river import Row


def problems(rule: WindowRule, rows: list[Row]) -> list[str]:
    rules = Rules(windows=(rule,), alerts=())
    one = river.processor(rule)
    one.process(river.block(rows))
    return rule_problems(RuleJob(rules, place="central", name="x").about([one]), 1 << 20)


def test_a_rule_that_leaves_fields_out_names_the_device_that_has_them() -> None:
    odd = [Row("bad", 1_000, {"a": 1, "b": 1}), Row("good", 1_000, {"power": 1}), river.health(2_000)]
    [line] = problems(river.window(fields_max=2), odd)
    assert "w of readings/0 leaves fields out: it has its fields_max = 2, 2 of them first from n1/bad." in line
    assert "every_field = []" in line
    assert problems(river.window(fields_max=3), odd) == []


def test_a_rule_that_holds_its_windows_max_is_named() -> None:
    rows = [Row(f"d{device}", 1_000, {"x": 1}) for device in range(16)]
    [line] = problems(river.window(windows_max=16), rows)
    assert line.startswith("w of readings/0 holds its windows_max")
    assert problems(river.window(windows_max=17), rows) == []


def test_full_memory_is_told() -> None:
    [line] = rule_problems({"memory": {"full": 1, "bytes": 3 << 20}}, 2 << 20)
    assert "3 MiB held" in line
    assert "is 2 MiB" in line
