"""The one table of defaults, in the README, against the defaults themselves."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
import pytest

from gateway.log.settings import LogSettings
from headwater.app.topics import _CONFIG
from headwater.settings.model import DEFAULTS
from processors.settings import ProcessorSettings
from tests.support.tree import ROOT

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "days": 24 * 3_600_000}
_NOT_SHOWN = {"index_interval_bytes", "open_segments_max"}  # of no account for what is kept, or what survives
GB = 1_000_000_000


def rows() -> dict[str, list[str]]:
    text = (ROOT / "README.md").read_text().partition("### How long data is kept")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {name.replace("`", ""): rest for name, *rest in cells[2:]}


def number(cell: str) -> int:
    found = re.fullmatch(r"(−?[\d,]+) ?(KiB|MiB|days|)( \(no limit\))?", cell)
    assert found is not None, cell
    return int(found[1].replace("−", "-").replace(",", "")) * _UNITS[found[2]]


@pytest.mark.parametrize(("role", "column"), [("edge", 0), ("central", 1)])
def test_each_default_of_the_log_stands_in_the_table(role: Literal["edge", "central"], column: int) -> None:
    told = {name: cells[column] for name, cells in rows().items() if name in LogSettings.__struct_fields__}
    settings = msgspec.convert(DEFAULTS[role]["log"], LogSettings)
    expected = {name: getattr(settings, name) for name in LogSettings.__struct_fields__ if name not in _NOT_SHOWN}
    if role == "central":  # it has no uplink
        assert told.pop("keep_replicated_h") == "(no uplink)"
        del expected["keep_replicated_h"]
    assert {name: number(cell) for name, cell in told.items()} == expected


def test_what_is_kept_for_people_is_kept_as_long_as_the_table_says() -> None:
    days = ProcessorSettings().output_retention_days
    assert rows()["windows, alerts"][:2] == [f"{days:g} days"] * 2
    assert number(rows()["topic events"][0]) == int(_CONFIG["events"]["retention.ms"])


def test_the_sum_of_the_card_is_right() -> None:
    edge, central, how = rows()["a 32 GB card, for readings"]
    card, *less = (float(each) for each in re.findall(r"\d+\.\d", how))
    assert edge == central == f"{card - sum(less):.1f} GB"
    kept = LogSettings()
    assert less[1] == round((kept.free_floor_bytes + kept.reserve_bytes) / GB, 1)
