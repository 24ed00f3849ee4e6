"""Rule files: what they may say, and every mistake with file, line, key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from processors.rules import load_rules, parse_rules

WINDOW = '[[window]]\nname = "w"\nsize_s = 10\n'
ALERT = '[[alert]]\nname = "hot"\nwindow = "w"\nfield = "t"\nfire_above = 85\n'


def test_the_shipped_rules_for_a_wind_farm() -> None:
    rules = load_rules(["wind-farm"])
    [window], [alert] = rules.windows, rules.alerts
    assert (window.size_ms, window.topic) == (10_000, "readings")
    assert window.aggregates_of("power") == ("count", "mean", "min", "max")
    assert "circular_mean" in window.aggregates_of("wind_direction")
    assert (alert.field, alert.fire_level, alert.clear_level, alert.for_s) == ("gearbox_temperature", 85, 75, 10)
    assert alert.runs == "central"
    assert rules.topics == ["readings"]


def test_a_file_by_path_and_two_files_together(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(WINDOW)
    (tmp_path / "b.toml").write_text(ALERT)
    rules = load_rules([str(tmp_path / "a.toml"), str(tmp_path / "b.toml")])
    assert [rule.name for rule in rules.windows] == ["w"]
    assert rules.alerts[0].clear_level == 85


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WINDOW + "sise_s = 5\n", "r.toml:4: [[window]] sise_s: unknown key; did you mean “size_s”?"),
        (WINDOW.replace("10", '"ten"'), "r.toml:3: [[window]] size_s: expected a number, got text in quotes"),
        (WINDOW.replace("10", "0.00001"), "r.toml:3: [[window]] size_s: 1e-05 is no whole number of milliseconds"),
        (WINDOW.replace("10", "-1"), "r.toml:3: [[window]] size_s"),
        ('\n[[window]]\nname = "w"\n', "r.toml:2: [[window]] size_s: this key is missing"),
        (WINDOW.replace('"w"', '"W w"'), "r.toml:2: [[window]] name: “W w” is no name"),
        (
            WINDOW + 'every_field = ["mean", "maen"]\n',
            "r.toml:4: [[window]] every_field: “maen” is not known; did you mean “mean”?",
        ),
        (WINDOW + '[window.fields]\np = ["median"]\n', "r.toml:5: [[window]] fields.p: “median” is not"),
        (WINDOW + 'kind = "hopping"\n', "r.toml:4: [[window]] kind"),
        (WINDOW + "every_field = []\n", "r.toml:1: [[window]] fields: nothing to compute"),
        (WINDOW + WINDOW, "r.toml:5: [[window]] name: a second window is named “w”"),
        (WINDOW + ALERT + ALERT, "r.toml:10: [[alert]] name: a second alert is named “hot”"),
        (
            WINDOW + ALERT.replace('"w"', '"v"'),
            "r.toml:6: [[alert]] window: there is no window named “v”; there is w",
        ),
        (ALERT, "r.toml:3: [[alert]] window: there is no window named “w”; there is none at all"),
        (WINDOW + ALERT.replace("fire_above = 85", ""), "[[alert]] fire_above: an alert has either"),
        (WINDOW + ALERT + "fire_below = 3\n", "r.toml:8: [[alert]] fire_above: an alert has either"),
        (WINDOW + ALERT + "clear_below = 90\n", "r.toml:9: [[alert]] clear_below: 90.0 must be at or below fire_above"),
        (
            WINDOW + ALERT + "clear_above = 70\n",
            "r.toml:9: [[alert]] clear_above: an alert with fire_above is cleared by",
        ),
        (WINDOW + ALERT + 'aggregate = "sum"\n', "r.toml:9: [[alert]] aggregate: window “w” does not compute sum of t"),
        ('[windows]\nname = "w"\n', "r.toml:1: “windows” is no kind of rule"),
        ("title = 3\n", "r.toml:1: “title” is no kind of rule"),
        ("[[window]]\nname = w\n", "r.toml:2: no valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rules([(text, "r.toml")])
    assert said in caught.value.what
    assert caught.value.hint


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rules named “wind-fram”") as caught:
        load_rules(["wind-fram"])
    assert "wind-farm" in caught.value.hint
    with pytest.raises(UserError, match="No such file"):
        load_rules([str(tmp_path / "none.toml")])
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8 at byte 0"):
        load_rules([str(tmp_path / "bytes.toml")])


def test_a_version_changes_with_what_a_rule_computes_and_with_nothing_else() -> None:
    one = parse_rules([(WINDOW + ALERT, "a.toml")])
    same = parse_rules([("# a comment\n" + ALERT + WINDOW, "b.toml")])
    other = parse_rules([(WINDOW.replace("10", "20") + ALERT, "a.toml")])
    assert one.windows[0].version == same.windows[0].version
    assert one.windows[0].version != other.windows[0].version
    assert one.alerts[0].version(one.windows[0]) != other.alerts[0].version(other.windows[0])
