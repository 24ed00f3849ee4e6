"""docs/windows.md: its rules are rules, and its examples are what these rules say, byte for byte."""

from __future__ import annotations

import re

from processors.processor import PartitionProcessor
from processors.rules.files import parse_rules
from tests.support import river
from tests.support.river import Row
from tests.support.tree import ROOT

PAGE = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
T0 = 1_700_000_000_000


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_what_the_rules_on_the_page_say() -> None:
    toml = "\n".join(blocks("toml"))
    one = PartitionProcessor(parse_rules([(toml, "windows.md")]), "readings", 0, place="central")
    rows = [
        Row("t01", T0 + 1, {"power": 812, "wind_direction": 350, "sequence": 1}, node="edge-1"),
        Row("t01", T0 + 2, {"power": 7.5, "wind_direction": 10, "sequence": 2}, node="edge-1"),
        river.health(T0 + 10_000, "edge-1", T0),
    ]
    late, aggregate, alert = (text.strip().encode() for text in blocks("json"))
    assert [output.record[2] for output in one.process(river.block(rows))] == [aggregate]
    hot = [Row("t01", T0 + second * 1000, {"gearbox_temperature": 91.5}, node="edge-1") for second in (3, 13)]
    one = PartitionProcessor(parse_rules([(toml, "windows.md")]), "readings", 0, place="central")
    outputs = one.process(river.block([*hot, river.health(T0 + 20_000, "edge-1", T0)]))
    assert outputs[-1].record[2] == alert
    one.process(river.block([river.health(T0 + 180_000_000, "edge-1", T0)]))
    old = [Row("t01", T0, {"power": 812}, node="edge-1"), river.health(T0 + 180_001_000, "edge-1", T0)]
    outputs = one.process(river.block(old, 4711))
    assert [output.record[2] for output in outputs if output.version.startswith("farm_10s")] == [late]
