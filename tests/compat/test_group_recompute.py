"""`headwater aggregates recompute` of a group: revisions from the cluster's log, beside its members."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.cli.aggregates import list_results
from headwater.cli.aggregates_why import why
from headwater.cli.recompute import recompute
from headwater.errors import UserError
from tests.compat.test_group_processing import SETTINGS, START_MS
from tests.support import river
from tests.support.group_processing import Group, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.river import Row

RULES = """
[[window]]
name = "w"
size_s = 10
fields = { t = ["count", "mean"] }
allowed_lateness_s = 5
[[window]]
name = "of_node"
size_s = 10
group_by = ["node"]
fields = { t = ["count", "sum"] }
allowed_lateness_s = 5
"""


def at(second: float, t: float, mark: dict[str, Any] | None = None) -> Row:
    return Row("a", START_MS + round(second * 1000), {"t": t}, mark, "n0")


def mark(second: float) -> dict[str, Any]:
    return river.mark("n0", START_MS + round(second * 1000))


def latest(group: Group) -> dict[tuple[str, int], dict[str, Any]]:
    """By rule and second."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for records in said(group.bootstrap, "aggregates"):
        for _, value, _ in records:
            one = json.loads(value)
            found[one["rule"], (one["start"] - START_MS) // 1000] = one
    return found


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    node = KafkaNode(tmp_path)
    (tmp_path / "rules.toml").write_text(RULES)
    make_topic(node.address, "readings", 2)
    group = Group(tmp_path, node.address, SETTINGS)
    yield group
    group.close()
    node.kill()


def run(group: Group, capsys: pytest.CaptureFixture[str], *, dry_run: bool = False) -> str:
    since, until_s = f"{START_MS}", f"{START_MS + 100_000}"
    capsys.readouterr()
    asyncio.run(recompute(str(group.file), since=since, until=until_s, rule="", dry_run=dry_run, as_json=False))
    return capsys.readouterr().out


@pytest.mark.long("process")
@pytest.mark.timeout(120)
def test_what_came_too_late_is_in_a_revision_that_is_made_once(
    group: Group, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(group.bootstrap, [river.block([at(1, 1), at(2, 2), at(12, 3), at(50, 4, mark(45))])])
    group.start("a")
    until(lambda: ("of_node", 10) in latest(group) and ("w", 10) in latest(group), "windows are told")
    assert run(group, capsys, dry_run=True).startswith("6 windows: 4 as the log says, 0 would be revised")
    asyncio.run(list_results(str(group.file), rule="of_node", group="", number=9, incomplete=False, as_json=True))
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with pytest.raises(UserError, match="there is no window rule “nope” here"):
        asyncio.run(list_results(str(group.file), rule="nope", group="", number=9, incomplete=False, as_json=True))
    assert [(one["group"], one["start"], one["count"]) for one in listed] == [
        ("node/n0", START_MS, 2),
        ("node/n0", START_MS + 10_000, 1),
    ]
    time_ms = str(START_MS + 55_000)
    asyncio.run(why(str(group.file), "node/n0", at=time_ms, rule="of_node", as_json=True))
    [found] = json.loads(capsys.readouterr().out)
    assert (found["held_by"]["node"], found["readings"], found["told"]) == ("n0", 1, None)
    feed(group.bootstrap, [river.block([at(3, 9), at(33, 7), at(51, 4, mark(46))])])  # nobody takes the first two now
    before = latest(group)
    assert run(group, capsys, dry_run=True).splitlines()[0].endswith("4 would be revised")
    assert latest(group) == before
    assert run(group, capsys).splitlines()[0].endswith("4 revised")
    now = latest(group)
    for rule, mean in (("w", {"count": 3, "mean": 4.0}), ("of_node", {"count": 3, "sum": 12.0})):
        told = now[rule, 0]
        assert (told["revision"], told["complete"], told["cause"], told["fields"]["t"]) == (1, True, "recompute", mean)
        assert told["before"]["count"] == 2
        assert (now[rule, 30]["revision"], now[rule, 30]["count"]) == (0, 1)
        assert now[rule, 10] == before[rule, 10]
    assert run(group, capsys).splitlines()[0].endswith("0 revised")
    assert group.stop("a") == 0
    assert run(group, capsys).splitlines()[0].endswith("0 revised")  # also with nobody at work
    (group.folder / "rules.toml").write_text(RULES.replace('"mean"', '"max"'))
    with pytest.raises(UserError, match="group farm has not computed rule “w” yet as it is in the file"):
        run(group, capsys)
