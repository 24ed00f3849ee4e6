"""Rule files: what they may say, and every mistake with file, line, key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from processors.rules import load_rules, parse_rules

WINDOW = '[[window]]\nname = "w"\nsize_s = 10\n'
HOPPING = WINDOW + 'kind = "hopping"\nevery_s = 5\n'
SESSION = '[[window]]\nname = "w"\nkind = "session"\ngap_s = 3\n'
CALENDAR = '[[window]]\nname = "w"\nkind = "calendar"\ncalendar = "day"\nzone = "Europe/Berlin"\n'
SHIFTS = CALENDAR.replace("day", "shifts") + 'shifts = { early = "06:00", night = "22:00" }\n'
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
        (WINDOW + 'kind = "hoping"\n', "r.toml:4: [[window]] kind: “hoping” is not known; did you mean “hopping”?"),
        (WINDOW + 'kind = "hopping"\n', "r.toml:1: [[window]] every_s: this key is missing: a hopping window needs it"),
        (HOPPING.replace("5", "20"), "r.toml:5: [[window]] every_s: 20.0 leaves readings between windows of 10.0 s"),
        (HOPPING.replace("5", "0.0007"), "r.toml:5: [[window]] every_s: 0.0007 is no whole number of milliseconds"),
        (HOPPING.replace("10", "36000.001"), "[[window]] every_s: a window would be put together from 36000001 panes"),
        (WINDOW + "gap_s = 5\n", "r.toml:4: [[window]] gap_s: a tumbling window has no gap_s"),
        (WINDOW + 'zone = "Europe/Berlin"\n', "r.toml:4: [[window]] zone: a tumbling window has no zone"),
        (SESSION + "size_s = 5\n", "r.toml:5: [[window]] size_s: a session window has no size_s"),
        (SESSION.replace("gap_s = 3\n", ""), "r.toml:1: [[window]] gap_s: this key is missing: a session window"),
        (
            CALENDAR.replace("Berlin", "Berlim"),
            "r.toml:5: [[window]] zone: “Europe/Berlim” is no time zone here; did you mean “Europe/Berlin”?",
        ),
        (CALENDAR.replace("day", "dya"), "r.toml:4: [[window]] calendar: “dya” is not known; did you mean “day”?"),
        (CALENDAR.replace("day", "shifts"), '[[window]] shifts: calendar = "shifts" and the key shifts go together'),
        (SHIFTS.replace("22:00", "25:00"), "r.toml:6: [[window]] shifts.night: “25:00” is no time of day"),
        (SHIFTS.replace("22:00", "06:00"), "r.toml:6: [[window]] shifts: two shifts begin at the same time"),
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
        (
            WINDOW + 'every_field = ["durations"]\n' + ALERT + 'aggregate = "durations"\n',
            "r.toml:10: [[alert]] aggregate: durations are several numbers, an alert needs one",
        ),
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


def test_rules_of_every_kind_are_rules() -> None:
    for text in (HOPPING, SESSION, CALENDAR, SHIFTS):
        [rule] = parse_rules([(text, "r.toml")]).windows
        assert rule.kind != "tumbling"


def test_a_key_that_is_left_out_is_no_part_of_the_version() -> None:
    [one] = parse_rules([(WINDOW, "r.toml")]).windows
    [same] = parse_rules([(WINDOW + 'kind = "tumbling"\nallowed_lateness_s = 86400\n', "r.toml")]).windows
    assert one.version == same.version


def test_a_version_changes_with_what_a_rule_computes_and_with_nothing_else() -> None:
    one = parse_rules([(WINDOW + ALERT, "a.toml")])
    same = parse_rules([("# a comment\n" + ALERT + WINDOW, "b.toml")])
    other = parse_rules([(WINDOW.replace("10", "20") + ALERT, "a.toml")])
    assert one.windows[0].version == same.windows[0].version
    assert one.windows[0].version != other.windows[0].version
    assert one.alerts[0].version(one.windows[0]) != other.alerts[0].version(other.windows[0])
