"""Every sync and rename in the source has a scenario that is red without it, named in the documentation."""

from __future__ import annotations

import re

import pytest

from tests.support.tree import texts
from tests.torture.mutants import Mutant, sites, uncalled
from tests.torture.scenarios import SCENARIOS

QUICK = [name for name in SCENARIOS if not name.startswith("cuts")]


def listed() -> dict[str, str]:
    """Site -> the scenario that catches its loss, from docs/durability.md."""
    page = next(text for path, text in texts().items() if str(path) == "docs/durability.md")
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", page.partition("### Syncs and renames")[2], re.MULTILINE))


def test_every_site_is_listed_and_no_other() -> None:
    assert set(listed()) == {site.name for site in sites()}
    assert {caught.strip("`") for caught in listed().values()} <= SCENARIOS.keys()
    assert not uncalled()


def test_every_scenario_is_green_with_the_real_code() -> None:
    for name in QUICK:
        if name not in ("mending", "swap_damaged", "expired", "orders"):  # they take seconds
            SCENARIOS[name](Mutant(None))


def red(site_name: str, scenario: str) -> bool:
    site = next(each for each in sites() if each.name == site_name)
    mutant = Mutant(site)
    try:
        SCENARIOS[scenario](mutant)
    except Exception:
        return mutant.dropped > 0
    return False


@pytest.mark.parametrize("scenario", ["folders", "reserve", "journal", "kept_tail", "closed", "cut_end", "fresh"])
def test_a_sample_of_mutants(scenario: str) -> None:
    mine = [name for name, caught in listed().items() if caught == f"`{scenario}`"]
    assert mine
    assert [name for name in mine if not red(name, scenario)] == []


@pytest.mark.long("mutants")
def test_every_mutant_turns_its_scenario_red() -> None:
    caught = {name: said.strip("`") for name, said in listed().items()}
    for name in SCENARIOS:
        SCENARIOS[name](Mutant(None))
    assert [name for name, scenario in caught.items() if not red(name, scenario)] == []
