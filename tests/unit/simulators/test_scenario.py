from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from simulators.scenario import Clocks, Delivery, FleetSpec, Links, Signal, read_scenario, shipped_scenarios

GOOD = '[[fleets]]\nname = "pump"\n[fleets.signals]\nlevel = { base = 1.0 }\n'


@pytest.mark.parametrize("name", shipped_scenarios())
def test_what_ships_is_good(name: str) -> None:
    scenario = read_scenario(name)
    assert scenario.description
    assert scenario.per_second > 0


def test_tsbs_has_the_disorder_that_its_name_promises() -> None:
    light, heavy = (read_scenario(name).fleets[0].delivery for name in ("tsbs-light", "tsbs-heavy"))
    assert (light.missing, light.out_of_order) == (0.01, 0.05)
    assert (heavy.missing, heavy.out_of_order) == (0.1, 0.3)


def test_an_unknown_name_lists_those_that_ship() -> None:
    with pytest.raises(UserError) as caught:
        read_scenario("pump-hose")
    assert "pump-house" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "[fleets.delivery]\nmising = 0.1\n", ":6: unknown key “mising” in [fleets[0].delivery]; did you mean"),
        (GOOD + "[fleets.delivery]\nmissing = 2\n", ":6: fleets[0].delivery.missing must be"),
        (GOOD.replace("1.0", '"high"'), ":4: fleets[0].signals.level.base must be a number, not text in quotes"),
        (GOOD.replace("base", "kind = 'wave', base"), "“wave” is not known"),
        (GOOD + GOOD, ":6: two fleets are called “pump”"),
        (GOOD.replace('"pump"\n', '"pump"\ndevices = 2\ntopic = "all"\n'), ":4: {device} is missing"),
        (GOOD.replace('"pump"\n', '"pump"\ntopic = "a/+"\n'), "“+” is for subscribers"),
        (GOOD.replace("level", "seq"), "“seq” is what every message says of itself"),
        ("seed = 1\nfleets = []\n", "there is no [[fleets]] to simulate"),
        (
            GOOD.replace('"pump"\n', '"pump"\ndevices = 2\ntransport = "serial"\nlink = "/tmp/x"\n'),
            ":5: {line} is missing",
        ),
        ("[[fleets]\n", ":1: no valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_scenario(str(file))
    assert said in caught.value.what


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(GOOD + "[fleets.delivery]\nmising = 0.1\nlate = 7\n")
    with pytest.raises(UserError) as caught:
        read_scenario(str(file))
    assert len(caught.value.what.splitlines()) == 2


def test_the_documented_scenario_is_good_and_every_key_is_described(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "simulators.md").read_text()
    block = next(part for part in text.split("```toml\n")[1:] if "[[fleets]]" in part).partition("```")[0]
    file = tmp_path / "tanks.toml"
    file.write_text(block)
    assert read_scenario(str(file)).fleets[0].devices == 200
    for struct in (FleetSpec, Signal, Delivery, Clocks, Links):
        for field in struct.__struct_fields__:
            assert f"`{field}`" in text or f"[fleets.{field}]" in text, field
