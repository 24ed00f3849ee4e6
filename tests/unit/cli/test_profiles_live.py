"""Of which dead letters `profiles test --live` shows what a profile makes: those that the node would read by it."""

from __future__ import annotations

import pytest

from devices.profiles import Profile
from headwater.cli.deadletters import DeadLetter
from headwater.cli.profiles import is_tried_on

SCALE, METER, OTHER = Profile(name="scale"), Profile(name="meter", format="modbus"), Profile(name="other")
PUMP = Profile(name="pump", topics=("site/{device}",))
EVERYTHING = Profile(name="everything", topics=("#",))
PORTS: dict[str, Profile | None] = {
    "serial:a": SCALE,
    "serial:b": OTHER,
    "serial:c": None,
    "serial:d": PUMP,
    "modbus:hall/7": METER,
}
LETTERS = [
    ("serial:a", "a", "json"),
    ("serial:a", "a", "framing"),
    ("serial:b", "b", "json"),
    ("serial:c", "c", "json"),
    ("serial:d", "d", "json"),
    ("modbus:hall/7", "m7", "modbus"),
    ("mqtt:pump-1", "site/pump-1", "json"),
    ("broker:hall", "yard/pump-2", "json"),
    ("sink:influx", "readings", "json"),
    ("processor:mine", "readings", "json"),
]


def taken(profile: Profile, ports: dict[str, Profile | None]) -> list[str]:
    letters = [
        DeadLetter(0, 1, 1, f"edge-1/{source}", b"x", {"source": source, "topic": topic, "decoder": decoder})
        for source, topic, decoder in LETTERS
    ]
    return [one.source for one in letters if is_tried_on(profile, one, ports)]


@pytest.mark.parametrize(
    ("profile", "sources"),
    [
        (SCALE, ["serial:a"]),
        (OTHER, ["serial:b"]),
        (METER, ["modbus:hall/7"]),
        (PUMP, ["serial:d", "mqtt:pump-1"]),
        (EVERYTHING, ["serial:c", "mqtt:pump-1", "broker:hall"]),
    ],
)
def test_a_profile_is_tried_on_what_the_node_reads_by_it(profile: Profile, sources: list[str]) -> None:
    assert taken(profile, PORTS) == sources


def test_a_profile_that_no_port_names_yet_is_tried_on_every_port_of_its_kind() -> None:
    lines = ["serial:a", "serial:b", "serial:c", "serial:d"]
    assert taken(Profile(name="new"), PORTS) == lines
    assert taken(Profile(name="new", format="modbus"), PORTS) == ["modbus:hall/7"]
