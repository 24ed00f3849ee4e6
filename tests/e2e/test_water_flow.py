"""docs/windows.md "A worked example": its very files and commands, and what they say counted by hand.

The recording bears the local time and its offset in each row, so days are counted here by the text of the rows.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.group_processing import Group, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.recorded import Played, Player
from tests.support.recordings import water_flow
from tests.support.tree import ROOT

SECTION = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8").partition("## A worked example")[2]
SECTION = SECTION.partition("\n## ")[0]
HOUR_MS = 3_600_000
FLOW = "water-flow.csv"
Reading = tuple[int, float]


def rows_of(path: Path) -> list[tuple[str, int, float]]:
    """(local time as it is written, ms, litres a second)."""
    lines = path.read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    return [(text, round(datetime.fromisoformat(text).timestamp() * 1000), float(flow)) for text, flow in cells]


def days_of(rows: list[tuple[str, int, float]]) -> dict[int, tuple[int, list[Reading]]]:
    """Start of each local day -> (its length in hours, its readings). Midnights are written with the day's offset."""
    by_day: dict[str, list[Reading]] = defaultdict(list)
    for text, at, flow in rows:
        by_day[text[:10]].append((at, flow))
    found = {}
    for day, readings in by_day.items():
        offset = "+01:00" if day <= "2022-03-27" else "+02:00"
        start = round(datetime.fromisoformat(f"{day}T00:00:00{offset}").timestamp() * 1000)
        found[start] = (23 if day == "2022-03-27" else 24, readings)
    return found


def litres(readings: list[Reading], start: int, end: int) -> float:
    """Litres a second in straight lines from reading to reading, level to the window's ends."""
    corners = [(start, readings[0][1]), *readings, (end, readings[-1][1])]
    return math.fsum((b[0] - a[0]) / 1000 * (a[1] + b[1]) / 2 for a, b in pairwise(corners))


def check_days(played: Played, rows: list[tuple[str, int, float]]) -> None:
    days = days_of(rows)
    told = {value["start"]: value for value in played.values if value["rule"] == "day"}
    assert told.keys() == days.keys()
    for start, (hours, readings) in days.items():
        value, claim = told[start], told[start]["fields"]["flow"]
        flows = [flow for _, flow in readings]
        assert value["end"] - start == hours * HOUR_MS
        assert (value["revision"], value["complete"], value["cause"]) == (0, True, "close")
        assert value["count"] == claim["count"] == len(readings)
        assert (claim["min"], claim["max"]) == (min(flows), max(flows))
        assert math.isclose(claim["mean"], math.fsum(flows) / len(flows), rel_tol=1e-12)
        assert math.isclose(claim["integral"], litres(readings, start, value["end"]), rel_tol=1e-12)
    # By hand: awk -F, '$1 ~ /^2022-03-27T/ {n++; s+=$2; l=$2; if (n==1) f=$2} END {print n, s, 3600*(s-f/2+l/2)}'
    short = told[1_648_335_600_000]
    assert (short["count"], short["end"]) == (23, 1_648_418_400_000)
    assert math.isclose(short["fields"]["flow"]["mean"], 2358.61 / 23, rel_tol=1e-12)
    assert round(short["fields"]["flow"]["integral"]) == 8_490_132
    whole = told[1_648_418_400_000]
    assert (whole["count"], round(whole["fields"]["flow"]["integral"])) == (24, 8_939_808)


def check_hours(played: Played, rows: list[tuple[str, int, float]]) -> None:
    wanted: dict[int, list[float]] = defaultdict(list)
    for _, at, flow in rows:
        for start in range(at // HOUR_MS * HOUR_MS - 5 * HOUR_MS, at + 1, HOUR_MS):
            wanted[start].append(flow)
    told = {value["start"]: value for value in played.values if value["rule"] == "six_hours"}
    assert told.keys() == wanted.keys()
    for start, flows in wanted.items():
        assert told[start]["end"] == start + 6 * HOUR_MS
        assert told[start]["count"] == len(flows)
        assert math.isclose(told[start]["fields"]["flow"]["mean"], math.fsum(flows) / len(flows), rel_tol=1e-12)
        assert told[start]["fields"]["flow"]["min"] == min(flows)


def check_stretches(played: Played, rows: list[tuple[str, int, float]]) -> None:
    """Of the ten holes in the recording seven are longer than two hours."""
    cuts = [0, *(n for n in range(1, len(rows)) if rows[n][1] - rows[n - 1][1] >= 3 * HOUR_MS), len(rows)]
    wanted = [(rows[begin][1], rows[end - 1][1] + 3 * HOUR_MS, end - begin) for begin, end in pairwise(cuts)]
    told = [(one["start"], one["end"], one["count"]) for one in played.values if one["rule"] == "without_a_hole"]
    assert sorted(told) == wanted
    assert len(told) == 8


def what_is_shown(player: Player, block: str) -> None:
    """The commands print what the page shows of them, `…` standing for the rest."""
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        arguments = command.split()
        if arguments[0] == "headwater":
            printed = player.headwater(*arguments[1:])
        else:
            printed = subprocess.run(["bash", "-c", command], cwd=player.folder, capture_output=True, text=True).stdout
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        for line in shown.splitlines():
            assert line == "…" or " ".join(line.split()) in lines, f"{command}\n{line}\n{printed}"


@pytest.mark.timeout(180)
def test_the_worked_example_inline_and_in_a_group(tmp_path: Path) -> None:
    player = Player(tmp_path)
    for name, text in re.findall(r"```toml (\S+)\n(.*?)```", SECTION, re.DOTALL):
        (tmp_path / name).write_text(text)
    fetch, unpack, run, replay = re.findall(r"^\$ (.*?)(?: +#.*)?$", SECTION, re.MULTILINE)[:4]
    name, _, version = fetch.split()[-1].partition("==")
    assert f"\n{name}=={version} " in (ROOT / "requirements" / "data.txt").read_text()
    assert (unpack.split()[0], run) == ("python", "headwater run")
    arguments = replay.split()
    assert arguments[:3] == ["headwater", "simulate", "replay"]
    (tmp_path / arguments[3]).parent.mkdir(parents=True)
    rows = rows_of(water_flow((tmp_path / arguments[3]).parent))
    assert len(rows) == 1_268
    [asked] = [block for block in re.findall(r"```console\n(.*?)```", SECTION, re.DOTALL) if "aggregates" in block]

    windows = len(days_of(rows)) + len({at - n * HOUR_MS for _, at, _ in rows for n in range(6)}) + 8
    played = player.play(arguments[2:], lambda told: len(told) >= windows, lambda: what_is_shown(player, asked))
    check_days(played, rows)
    check_hours(played, rows)
    check_stretches(played, rows)
    for size, restart in ((1, False), (97, True), (10_000, False)):
        assert played.again(tmp_path / "water.toml", size, restart=restart) == played.said
    group_folder = tmp_path / "group"
    group_folder.mkdir()
    kafka = KafkaNode(group_folder)
    try:
        in_a_group(group_folder, tmp_path / "water.toml", kafka.address, played)
    finally:
        kafka.kill()


def in_a_group(folder: Path, rules: Path, address: str, played: Played) -> None:
    """`headwater process` over the same records says the same keys, values and timestamps in the same order."""
    make_topic(address, "readings", 1)
    feed(address, [played.readings])
    group = Group(folder, address, f'rules = ["{rules}"]\n')
    try:
        group.start("a")
        log = {"a": group.log_of("a")}
        until(lambda: "took over" in group.log_of("a").read_text(), "it has its partition", log)
        until(lambda: len(said(address, "aggregates")[0]) >= len(played.said), "all windows are told", log)
        assert said(address, "aggregates") == [played.said]
        assert group.stop("a") == 0
    finally:
        group.close()
