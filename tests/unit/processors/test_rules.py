"""Rule files: what they may say, and every mistake with file, line, key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from processors.rules.files import load_rules, parse_rules

WINDOW = '[[window]]\nname = "w"\nsize_s = 10\n'
HOPPING = WINDOW + 'kind = "hopping"\nevery_s = 5\n'
SESSION = '[[window]]\nname = "w"\nkind = "session"\ngap_s = 3\n'
CALENDAR = '[[window]]\nname = "w"\nkind = "calendar"\ncalendar = "day"\nzone = "Europe/Berlin"\n'
SHIFTS = CALENDAR.replace("day", "shifts") + 'shifts = { early = "06:00", night = "22:00" }\n'
DEAD_MAN = '[[alert]]\nname = "quiet"\nwindow = "w"\nsilent_after_s = 120\n'
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
        (WINDOW + "sise_s = 5\n", "r.toml:4: unknown key “sise_s” in [window[0]]; did you mean “size_s”?"),
        (WINDOW.replace("10", '"ten"'), "r.toml:3: window[0].size_s must be a number, not text in quotes"),
        (WINDOW.replace("10", "0.00001"), "r.toml:3: window[0].size_s: 1e-05 is no whole number of milliseconds"),
        (WINDOW.replace("10", "-1"), "r.toml:3: window[0].size_s"),
        ('\n[[window]]\nname = "w"\n', "r.toml:2: window[0].size_s: this key is missing"),
        (WINDOW.replace('"w"', '"W w"'), "r.toml:2: window[0].name must be at most 64 of a-z"),
        (
            WINDOW + 'every_field = ["mean", "maen"]\n',
            "r.toml:4: window[0].every_field[1]: “maen” is not known; did you mean “mean”?",
        ),
        (WINDOW + '[window.fields]\np = ["median"]\n', "r.toml:5: window[0].fields.p[0]: “median” is not"),
        (WINDOW + 'kind = "hoping"\n', "r.toml:4: window[0].kind: “hoping” is not known; did you mean “hopping”?"),
        (WINDOW + 'kind = "hopping"\n', "r.toml:1: window[0].every_s: this key is missing: a hopping window needs it"),
        (HOPPING.replace("5", "20"), "r.toml:5: window[0].every_s: 20.0 leaves readings between windows of 10.0 s"),
        (HOPPING.replace("5", "0.0007"), "r.toml:5: window[0].every_s: 0.0007 is no whole number of milliseconds"),
        (HOPPING.replace("10", "36000.001"), "window[0].every_s: a window would be put together from 36000001 panes"),
        (WINDOW + "gap_s = 5\n", "r.toml:4: window[0].gap_s: a tumbling window has no gap_s"),
        (WINDOW + 'zone = "Europe/Berlin"\n', "r.toml:4: window[0].zone: a tumbling window has no zone"),
        (SESSION + "size_s = 5\n", "r.toml:5: window[0].size_s: a session window has no size_s"),
        (SESSION.replace("gap_s = 3\n", ""), "r.toml:1: window[0].gap_s: this key is missing: a session window"),
        (
            CALENDAR.replace("Berlin", "Berlim"),
            "r.toml:5: window[0].zone: “Europe/Berlim” is no time zone here; did you mean “Europe/Berlin”?",
        ),
        (
            CALENDAR.replace("Europe/Berlin", "devcie"),
            "r.toml:5: window[0].zone: “devcie” is no time zone here; did you mean",
        ),
        (
            CALENDAR.replace("Europe/Berlin", "device") + 'default_zone = "Mars"\n',
            "r.toml:6: window[0].default_zone: “Mars” is no time zone here",
        ),
        (
            CALENDAR + 'default_zone = "Europe/Rome"\n',
            'r.toml:6: window[0].default_zone: only zone = "device" has a default_zone',
        ),
        (
            WINDOW + 'group_by = ["sight"]\n',
            "r.toml:4: window[0].group_by[0]: devices cannot be grouped by “sight”; did you mean site?",
        ),
        (WINDOW + 'group_by = ["site", "site"]\n', "r.toml:4: window[0].group_by: a label stands there twice"),
        (
            CALENDAR.replace("Europe/Berlin", "device") + 'group_by = ["site"]\n',
            "r.toml:5: window[0].zone: a group of devices has no zone of its own",
        ),
        (
            WINDOW + 'default_zone = "Europe/Rome"\n',
            "r.toml:4: window[0].default_zone: a tumbling window has no default",
        ),
        (
            WINDOW + "where = \"device.sit == 'a'\"\n",
            "r.toml:4: window[0].where: nothing is known as device.sit; did you mean device.site?",
        ),
        (WINDOW + "where = 'device.site > 3'\n", "r.toml:4: window[0].where: texts are compared with"),
        (CALENDAR.replace("day", "dya"), "r.toml:4: window[0].calendar: “dya” is not known; did you mean “day”?"),
        (CALENDAR.replace("day", "shifts"), 'window[0].shifts: calendar = "shifts" and the key shifts go together'),
        (SHIFTS.replace("22:00", "25:00"), "r.toml:6: window[0].shifts.night: “25:00” is no time of day"),
        (SHIFTS.replace("22:00", "06:00"), "r.toml:6: window[0].shifts: two shifts begin at the same time"),
        (WINDOW + "every_field = []\n", "r.toml:4: window[0].every_field: nothing to compute"),
        (WINDOW + "devices = []\n", "r.toml:4: window[0].devices: the rule would take no reading"),
        (WINDOW + "nodes = []\n", "r.toml:4: window[0].nodes: the rule would take no reading"),
        (
            WINDOW + "allowed_lateness_s = 1e300\n",
            "r.toml:4: window[0].allowed_lateness_s: 1e+300 s is more than a hundr",
        ),
        (
            WINDOW + ALERT + "flap_half_life_s = 60\n",
            "alert[0].flap_half_life_s: only with flaps_max is anything damped",
        ),
        (WINDOW + "early_every_s = 11\n", "r.toml:4: window[0].early_every_s: 11 s is longer than a window (10 s)"),
        (CALENDAR + "early_every_s = 90001\n", "early_every_s: 90001 s is longer than a window (90000 s)"),
        (WINDOW + WINDOW, "r.toml:5: window[1].name: a second window is named “w”; the first stands at r.toml:1"),
        (WINDOW + ALERT + ALERT, "r.toml:10: alert[1].name: a second alert is named “hot”"),
        (
            WINDOW + ALERT.replace('"w"', '"v"'),
            "r.toml:6: alert[0].window: there is no window named “v”; there is w",
        ),
        (ALERT, "r.toml:3: alert[0].window: there is no window named “w”; there is none at all"),
        (WINDOW + ALERT.replace("fire_above = 85", ""), "alert[0].fire_above: an alert has either"),
        (WINDOW + ALERT + "fire_below = 3\n", "r.toml:8: alert[0].fire_above: an alert has either"),
        (WINDOW + ALERT + "clear_below = 90\n", "r.toml:9: alert[0].clear_below: 90.0 must be at or below fire_above"),
        (
            WINDOW + ALERT + "clear_above = 70\n",
            "r.toml:9: alert[0].clear_above: an alert with fire_above is cleared by",
        ),
        (WINDOW + ALERT + 'aggregate = "sum"\n', "r.toml:9: alert[0].aggregate: window “w” does not compute sum of t"),
        (
            WINDOW + 'every_field = ["durations"]\n' + ALERT + 'aggregate = "durations"\n',
            "r.toml:10: alert[0].aggregate: durations are several numbers, an alert needs one",
        ),
        (WINDOW + ALERT.replace("85", "nan"), "r.toml:8: alert[0].fire_above: nan is no number to count with"),
        (WINDOW + "allowed_lateness_s = inf\n", "r.toml:4: window[0].allowed_lateness_s: inf is no number"),
        ('[windows]\nname = "w"\n', "r.toml:1: unknown key “windows”; did you mean “window”?"),
        *(
            (WINDOW + f'topic = "{topic}"\n', f"r.toml:4: window[0].topic: there are no windows over “{topic}”: {why}")
            for topic, why in (
                ("aggregates", "results of windows are written there"),
                ("alerts", "results of windows are written there"),
                ("late", "results of windows are written there"),
                ("processors-w-repartition", "results of windows are written there"),
                ("devices", "it is Headwater's own"),
                ("headwater.progress", "it is Headwater's own"),
                ("a b", "that is no name of a topic"),
            )
        ),
        ("title = 3\n", "r.toml:1: unknown key “title”; the nearest known one is “alert”"),
        (WINDOW.replace("[[", "[").replace("]]", "]"), "r.toml:1: [window] is one of several: write [[window]]"),
        ("[[window]]\nsize_s = 3\n", "r.toml:1: window[0] needs the key “name”"),
        ("[[window]]\nname = w\n", "r.toml:2: no valid TOML"),
        ('[[window]]\nname = "w\n', "r.toml:2: no valid TOML"),
        ("[[window]]\nname = 3 #\nx = [1,\n", "r.toml:3: no valid TOML"),
        (WINDOW + "windows_max = " + "9" * 5000, "r.toml:4: no valid TOML: a number of thousands of digits"),
        (WINDOW + "compute = " + "[" * 5000, "r.toml:4: no valid TOML: lists or tables within each other without end"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rules([(text, "r.toml")])
    assert said in caught.value.what
    assert caught.value.hint


def test_all_mistakes_of_all_files_are_named_at_once_in_their_order() -> None:
    first = HOPPING.replace("10", '"ten"') + 'where = "power >"\nwindos_max = 3\n' + WINDOW.replace("name", "nane")
    second = "\n" + WINDOW.replace('"w"', '"v"').replace("10", "-1") + ALERT + "clear_above = 3\nseverity = 'loud'\n"
    with pytest.raises(UserError) as caught:
        parse_rules([(first, "a.toml"), (second, "b.toml")])
    found = caught.value.what.splitlines()
    assert [line.split(": ")[0] for line in found] == [
        *("a.toml:3", "a.toml:6", "a.toml:7", "a.toml:9", "b.toml:4", "b.toml:10", "b.toml:11")
    ]
    for line, key in zip(found, ("size_s", "where", "windos_max", "nane", "size_s", "clear", "sev"), strict=True):
        assert key in line


def test_one_mistake_makes_no_others() -> None:
    """A window that is wrong itself is not called missing, nor what it would have computed."""
    for text, count in (
        (WINDOW.replace('"w"', "3") + ALERT, 1),
        (WINDOW + 'kind = "sessoin"\ngap_s = 3\n', 1),
        (WINDOW + 'every_field = ["maen"]\n' + ALERT, 1),
        (WINDOW + ALERT.replace("85", '"85"'), 1),
        (CALENDAR.replace('"day"', '"dya"') + 'shifts = { a = "01:00" }\n', 1),
        *((WINDOW + DEAD_MAN.replace("120", bad), 1) for bad in ("-1", '"2 min"', "nan", "[120]")),
        (WINDOW + DEAD_MAN.replace("silent_after_s", "silent_afters_s"), 1),
        (WINDOW + 'group_by = ["site"]\n' + DEAD_MAN.replace("120", "-1"), 1),
    ):
        with pytest.raises(UserError) as caught:
            parse_rules([(text, "r.toml")])
        assert len(caught.value.what.splitlines()) == count, caught.value.what


def test_a_hundred_mistakes_are_not_all_printed() -> None:
    with pytest.raises(UserError) as caught:
        parse_rules([(WINDOW + "".join(f"key{number} = 1\n" for number in range(100)), "r.toml")])
    assert caught.value.what.splitlines()[-1] == "and 80 more"


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rules named “wind-fram”") as caught:
        load_rules(["wind-fram"])
    assert "wind-farm" in caught.value.hint
    with pytest.raises(UserError, match="there is no such file"):
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


@pytest.mark.parametrize("name", ["", 'name = "No Name"\n', 'nmae = "n"\n'])
def test_all_mistakes_of_a_window_without_a_good_name_are_told_at_once(name: str) -> None:
    text = f'[[window]]\n{name}size_s = -1\nwhere = "power >"\nzone = "Europe/Nowhere"\n'
    text += 'every_field = ["men"]\n[window.compute]\nx = "1 +"\n'
    with pytest.raises(UserError) as error:
        parse_rules([(text, "mine.toml")])
    told = error.value.what
    assert told.replace("a field's name", "").count("name") == 1 or "nmae" in told
    for key in ("size_s", "where", "zone", "every_field", "compute"):
        assert f"window[0].{key}" in told, told


@pytest.mark.parametrize(
    ("text", "page"),
    [
        (WINDOW.replace("10", "-1"), "docs/windows.md"),
        ('[[processor]]\nname = "p"\nfile = "p.txt"\n', "docs/processors.md"),
        (WINDOW.replace("10", "-1") + '[[processor]]\nname = "p"\nfile = "p.txt"\n', "docs/windows.md"),
    ],
)
def test_the_page_that_describes_the_keys_is_named(text: str, page: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rules([(text, "r.toml")])
    assert caught.value.hint.startswith(page)
