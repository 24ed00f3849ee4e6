"""Rule files with mistakes: whatever is wrong, only our own error is raised, and every line of it names a place."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS
from headwater.errors import UserError
from processors.processor import PartitionProcessor
from processors.rules.files import parse_rules

VALID = """\
[[window]]
name = "farm"
size_s = 10
where = "state == 'run' and power > 0"
compute = { efficiency = "power / (wind_speed ** 3)" }
every_field = ["count", "mean"]
fields = { wind_direction = ["circular_mean"], efficiency = ["p95"] }

[[window]]
name = "hops"
kind = "hopping"
size_s = 60
every_s = 10
devices = ["t-*"]

[[window]]
name = "shift"
kind = "calendar"
calendar = "shifts"
zone = "Europe/Berlin"
[window.shifts]
early = "06:00"
late = "14:00"

[[window]]
name = "crane"
kind = "session"
gap_s = 3.5
windows_max = 1000

[[alert]]
name = "hot"
window = "farm"
field = "temperature"
aggregate = "mean"
fire_above = 85
clear_below = 75.5
for_s = 10
severity = "critical"
runs = "central"
"""
LINES = VALID.splitlines()
KEYS = [index for index, line in enumerate(LINES) if "=" in line]
PLACE = re.compile(r"r\.toml:(\d+): \S")

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(repr)
values = st.one_of(
    st.integers().map(str),
    st.integers(10**18, 10**400).map(str),
    st.floats().map(lambda value: str(value)),
    st.sampled_from(["true", "[]", "{}", "[[]]", "[1, 'a']", "{ a = 1 }", "1979-05-27", "07:32:00", "''", "1e999"]),
    st.sampled_from(["'Europe/Berlin'", "'Mars/Base'", "'/etc/passwd'", "'../UTC'", "'day'", "'hopping'", "'farm'"]),
    st.sampled_from(["'1 +'", "'a.b.c > 0'", "'__import__(1)'", "'x' ", "'-' ", "'power'", "'(' ", "'9**9**9 > 1'"]),
    texts,
)
names = st.from_regex(r"[A-Za-z_-]{1,12}", fullmatch=True)


@st.composite
def changed_value(draw: Any) -> str:
    at = draw(st.sampled_from(KEYS))
    return "\n".join([*LINES[:at], f"{LINES[at].split('=')[0]}= {draw(values)}", *LINES[at + 1 :]])


@st.composite
def changed_key(draw: Any) -> tuple[str, int, str]:
    """A text, and line and name of a key that is not known there."""
    at = draw(st.sampled_from([index for index in KEYS if LINES[index].split(" ")[0] not in ("early", "late")]))
    name = draw(names.filter(lambda name: name not in VALID))
    return "\n".join([*LINES[:at], f"{name} = 1", *LINES[at:]]), at + 1, name


@st.composite
def torn(draw: Any) -> str:
    at = draw(st.integers(0, len(VALID)))
    piece: str = draw(st.sampled_from(["", '"', "[", "{", "\n=\n", "\x00", "'''", "]]", "\\"]))
    return VALID[:at] + piece + VALID[at + 1 :]


@st.composite
def shuffled(draw: Any) -> str:
    """Lines that are gone, doubled and in another order."""
    return "\n".join(draw(st.lists(st.sampled_from(LINES), max_size=30)))


def mistakes(text: str) -> list[str]:
    """What is said about a text; rules that are taken must be such that processors can be made of them."""
    try:
        rules = parse_rules([(text, "r.toml")])
    except UserError as error:
        return error.what.splitlines()
    for topic in rules.topics:
        block = Block(topic, 0, [0], [1_000], [b"n/t-1"], [b'{"power":1}'], [NO_HEADERS], 1)
        PartitionProcessor(rules, topic, 0, place="central").process(block)
    return []


def test_what_is_changed_here_is_right_before() -> None:
    assert mistakes(VALID) == []


@settings(deadline=None)
@given(st.one_of(changed_value(), torn(), shuffled()))
@example(VALID.replace("10", "nan"))
@example(VALID.replace("10", "1" + "0" * 400))
@example(VALID.replace('"Europe/Berlin"', '"\\u0000"'))
@example(VALID.replace('"06:00"', "[]"))
@example(VALID.replace("85", "nan"))
def test_a_mistake_raises_our_own_error_with_its_line(text: str) -> None:
    lines = text.count("\n") + 1
    for line in mistakes(text):
        found = PLACE.match(line)
        assert found or re.fullmatch(r"and \d+ more", line), line
        assert found is None or 1 <= int(found[1]) <= lines, line


@settings(deadline=None)
@given(changed_key())
def test_an_unknown_key_is_named_with_its_line(changed: tuple[str, int, str]) -> None:
    text, line, name = changed
    assert any(said.startswith(f"r.toml:{line}: unknown key “{name}”") for said in mistakes(text))


@settings(deadline=None)
@given(st.sampled_from(KEYS), st.integers(-(10**6), 10**6))
def test_a_wrong_type_is_named_with_its_key(at: int, number: int) -> None:
    name, _, value = LINES[at].partition(" = ")
    if value[0] in "0123456789":
        return  # a number is right there
    text = "\n".join([*LINES[:at], f"{name} = {number}", *LINES[at + 1 :]])
    assert any(said.startswith(f"r.toml:{at + 1}: ") and f".{name} must be" in said for said in mistakes(text)), text
