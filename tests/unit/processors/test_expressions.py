"""Expressions of rules against Python's own arithmetic, row by row; and what they refuse."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.columns import KeyTable, Lanes, to_columns
from processors.facts import DeviceFacts
from processors.rules.derive import Derivation
from processors.rules.evaluation import FUNCTIONS
from processors.rules.expressions import ExpressionError, compile_expression
from processors.rules.files import parse_rules
from tests.support import river
from tests.support.river import Row

READINGS: list[dict[str, Any]] = [
    {"power": 812.5, "wind": 7.0, "state": "run"},
    {"power": -3, "wind": 0, "state": "stop"},
    {"power": 100, "state": "run", "inner.load": 4},
    {"wind": 12.25},
    {"power": "much", "wind": True, "state": 5},
    {"power": 1e308, "wind": 3},
]


def apply(readings: Sequence[dict[str, Any]], where: str = "", **compute: str) -> list[dict[str, float] | None]:
    """What the rule sees of each reading; None for one that it does not see."""
    derivation, keys = Derivation(where, compute), KeyTable()
    rows = [Row(f"d{number % 3}", number, reading) for number, reading in enumerate(readings)]
    columns = derivation.apply(to_columns(river.block(rows), keys, Lanes(), derivation.texts), keys, DeviceFacts())
    found: list[dict[str, float] | None] = [None if key < 0 else {} for key in columns.key]
    for name, field in columns.fields.items():
        for at, value in zip(range(len(rows)) if field.rows is None else field.rows, field.values, strict=True):
            if (one := found[at]) is not None:
                one[name] = float(value)
    return found


def seen(where: str) -> list[int]:
    return [at for at, fields in enumerate(apply(READINGS, where)) if fields is not None]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("power > 0", [0, 2, 5]),
        ("not (power > 0)", [1, 3, 4]),  # a comparison with what is not there is false
        ("power > 0 and wind >= 7", [0]),
        ("power > 0 or wind > 10", [0, 2, 3, 5]),
        ("0 < power < 500", [2]),
        ("has(power)", [0, 1, 2, 4, 5]),
        ("not has(power)", [3]),
        ("has(state) and not has(power)", []),
        ("has(node) and has(inner.load)", [2]),
        ("power != 100", [0, 1, 5]),
        ("state == 'run'", [0, 2]),
        ("state != 'run'", [1]),
        ("state in ('stop', 'fault')", [1]),
        ("not state in ('stop', 'fault')", [0, 2, 3, 4, 5]),
        ("state not in ('stop', 'fault')", [0, 2]),
        ("power in (812.5, 100)", [0, 2]),
        ("device == 'd1'", [1, 4]),
        ("device in ('d0', 'd2') and node == 'n1'", [0, 2, 3, 5]),
        ("inner.load == 4", [2]),
        ("power * wind > 1", [0]),  # beyond all bounds is unknown
        ("power / wind > 1", [0, 5]),  # by zero, too
        ("True", [0, 1, 2, 3, 4, 5]),
        ("(1 if wind > 5 else 0) == 1", [0, 3]),
        ("abs(power) == 3", [1]),
    ],
)
def test_filters(where: str, rows: list[int]) -> None:
    assert seen(where) == rows


NAMED: list[dict[str, Any]] = [
    {"Motor/Speed": 5, "state": "run", "other": "run", "µg": 1, "class": 2, "device": "a", "running": True},
    {"Motor/Speed": 1, "state": "run", "other": "off", "µg": 5, "ready": True, "running": False},
    {"power-w": 5, "state": 3, "other": 3, "true": 1, "μg": 5, "running": 2, "ready": 1},
    {"Water flow [l/s]": 5, "state": 3, "other": "3", "temp_°C": 4, "running": None},
    {"power-w": "", "Water flow [l/s]": "none", "running": "true"},
]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("field('Motor/Speed') > 3", [0]),
        ("has(field('Motor/Speed'))", [0, 1]),
        ('field("power-w") > 3', [2]),
        ("has(field('power-w'))", [2, 4]),
        ("field('Water flow [l/s]') == 'none' or field('temp_°C') == 4", [3, 4]),
        ("field('class') == 2", [0]),
        ("field('device') == 'a' and device == 'd0'", [0]),
        ("µg > 3", [1]),  # as it is written here: with the micro sign, the one below with the Greek letter
        ("μg > 3", [2]),
        ("state == other", [0, 2]),  # as numbers, or as texts
        ("state != other", [1]),
        ("state in (other, 'off')", [0, 2]),
        ("running", [0, 2]),
        ("not running", [1, 3, 4]),
        ("running == True", [0]),
        ("running == 1", [0]),
        ("running == false", [1]),
        ("running != true", [1, 2]),
        ("running == ready", []),
        ("running in (False, 2)", [1, 2]),
        ("(running > 0) == (µg < 3)", [0, 1, 3, 4]),
        ("has(running)", [0, 1, 2, 4]),
        ("running and state == 'run'", [0]),
        ("(5 if running else 6) == 5", [0, 2]),
        ("running + 1 == 2", [0]),
        ("true", [0, 1, 2, 3, 4]),
        ("field('true') == 1", [2]),
    ],
)
def test_names_of_any_kind_and_what_stands_in_a_field_says_the_reading(where: str, rows: list[int]) -> None:
    assert [at for at, fields in enumerate(apply(NAMED, where)) if fields is not None] == rows


def test_what_may_be_meant_otherwise_is_said() -> None:
    for text, said in (
        ("power-w > 3", "“power-w” is power minus w (put spaces around - if so); a field of this name is written"),
        ("Motor/Speed > 3", "field('Motor/Speed')"),
    ):
        [doubt] = compile_expression(text, wanted="truth").doubts
        assert said in doubt
    assert not compile_expression("power - w > a / b and a-1 > 2", wanted="truth").doubts


def test_computed_fields_stand_beside_the_others_and_see_those_before_them() -> None:
    found = apply(READINGS, half="power / 2", quarter="half / 2", power="0 - power")
    assert found[0] == {"power": -812.5, "wind": 7.0, "half": 406.25, "quarter": 203.125}
    assert found[3] == {"wind": 12.25}
    assert found[4] == {"state": 5.0, "wind": 1.0}  # true


def test_a_filter_sees_computed_fields() -> None:
    found = apply(READINGS, "ratio > 100", ratio="power / wind")
    assert [at for at, fields in enumerate(found) if fields is not None] == [0, 5]


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-1000, 1000)
EXPRESSIONS: list[tuple[str, Callable[[float, float], float]]] = [
    ("a + b * 2 - 1", lambda a, b: a + b * 2 - 1),
    ("-a / (b + 0.5)", lambda a, b: -a / (b + 0.5)),
    ("min(a, b) + max(a, 3)", lambda a, b: min(a, b) + max(a, 3)),
    ("sqrt(abs(a)) + floor(b)", lambda a, b: math.sqrt(abs(a)) + math.floor(b)),
    ("degrees(atan2(a, b))", lambda a, b: math.degrees(math.atan2(a, b))),
    ("sin(a) * cos(b)", lambda a, b: math.sin(a) * math.cos(b)),
    ("(a if a > b else b) ** 2", lambda a, b: max(a, b) ** 2),
]


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), which=st.integers(0, len(EXPRESSIONS) - 1))
def test_arithmetic_is_pythons(pairs: list[tuple[float, float]], which: int) -> None:
    text, plain = EXPRESSIONS[which]
    found = apply([{"a": a, "b": b} for a, b in pairs], out=text)
    for (a, b), fields in zip(pairs, found, strict=True):
        assert fields is not None
        try:
            wanted = plain(a, b)
        except ZeroDivisionError:
            assert "out" not in fields
        else:
            assert fields["out"] == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=40), st.integers(0, 38), st.sampled_from(sorted(FUNCTIONS)))
def test_any_split_gives_the_same_bytes(values: list[float], cut: int, name: str) -> None:
    text = f"{name}({', '.join(['a / 1000'] * FUNCTIONS[name][0])})"
    readings, cut = [{"a": value} for value in values], 1 + cut % (len(values) - 1)
    assert apply(readings[:cut], out=text) + apply(readings[cut:], out=text) == apply(readings, out=text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power >", "cannot be read: invalid syntax"),
        ("power + 1", "“power + 1” is a number; here a truth is needed"),
        ("state == 'run' > 0", "texts are compared with ==, != and in only"),
        ("(power > 1) < (wind > 1)", "truths are compared with ==, != and in only"),
        ("'power w' > 3", "a field of this name is written field('power w')"),
        ("class > 3", "is written field('Motor/Speed')"),
        ("temp_°C > 3", "at character 6: invalid character '°'"),
        ("device.labels.my-line == 'a'", "a label label('my-line')"),
        ("field(power) > 1", "field takes one name in quotes: field('…')"),
        ("field('a', 'b') > 1", "field takes one name in quotes"),
        ("label('') == 'a'", "label takes one name in quotes"),
        ("feld('a') > 1", "did you mean field?"),
        ("state == '\\d'", "invalid escape sequence '\\d'"),
        ("has('power')", "has takes the name of a field"),
        ("power == None", "whether a reading has a field, has(…) says"),
        ("__import__('os').system('x') == 0", "no function is called __import__('os').system"),
        ("open('x') == 1", "no function is called open"),
        ("sqr(power) > 1", "did you mean sqrt?"),
        ("min(power) > 1", "min takes 2 arguments, not 1"),
        ("[x for x in power]", "is not allowed here"),
        ("(lambda: 1)() > 0", "no function is called"),
        ("power[0] > 1", "is not allowed here"),
        ("power.__class__.x() > 1", "no function is called"),
        ("state > 'run'", "texts are compared with ==, != and in only"),
        ("state == 'run' == 1", "here a text is needed"),
        ("power is 1", "“is” is not allowed"),
        ("power in 3", "behind “in” stands a list"),
        ("power @ 2 > 1", "this operator is not known"),
        ("~power > 1", "write not"),
        ("has(power + 1)", "has takes the name of a field"),
        ("min(*power) > 1", "takes plain arguments"),
        ("None == 1", "is no number, text, True or False"),
        (f"power > {'9' * 400}", "too large"),
        ("power > 1 " + "and power > 1 " * 100, "characters, 1000 are allowed"),
        ("-" * 100 + "power > 1", "nested deeper"),
        ("(" * 300 + "1" + ")" * 300 + " > 0", "cannot be read"),
        ("(" * 20 + "a" + " in (1, 2))" * 20, "too much to compute"),
        ("(1 if " * 6 + "a" + " in (1, 2, 3, 4, 5, 6) else 2)" * 6 + " > 0", "too much to compute"),
        ("", "cannot be read"),
        ("a\0b > 1", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, wanted="truth")
    assert said in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text("ab()+-*/<>=!.,'\" 1notandrif", max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        compile_expression(text, wanted="number")


def test_a_rule_with_a_filter_and_a_computed_field() -> None:
    text = (
        '[[window]]\nname = "w"\nsize_s = 10\nwhere = "state == \'run\'"\n'
        'compute = { efficiency = "power / wind" }\nevery_field = []\nfields = { efficiency = ["count", "mean"] }\n'
    )
    rules = parse_rules([(text, "r.toml")])
    processor = river.processor(*rules.windows)
    rows = [Row("a", second * 1000, {"power": 10.0 * second, "wind": 5, "state": "run"}) for second in range(5)]
    rows += [Row("a", 5000, {"power": 1e6, "wind": 5, "state": "stop"}), river.health(20_000)]
    values = river.values(processor.process(river.block(rows)))
    assert [(value["count"], value["fields"]) for value in values] == [(5, {"efficiency": {"count": 5, "mean": 4.0}})]


def test_a_mistake_in_a_rule_is_named_with_its_line() -> None:
    window = '[[window]]\nname = "w"\nsize_s = 10\n'
    for line, said in (
        ('where = "power >"', "r.toml:4: window[0].where: “power >” cannot be read"),
        ('compute = { e = "sqr(a)" }', "r.toml:4: window[0].compute.e: no function is called sqr"),
        ('compute = { device = "a" }', "cannot name a computed field"),
        ('compute = { a = "b + 1", b = "c" }', "window[0].compute.a: it reads b, which is computed behind it"),
        (
            'where = "e == \'x\'"\ncompute = { e = "a" }',
            "window[0].where: e is computed, so it is a number and no text",
        ),
    ):
        with pytest.raises(Exception, match=r"r\.toml:4") as caught:
            parse_rules([(window + line + "\n", "r.toml")])
        assert said in str(caught.value)


def test_versions_of_rules_without_expressions_stay() -> None:
    """State belongs to a version: a new key must not change that of a rule that does not use it."""
    (window,) = parse_rules([('[[window]]\nname = "w"\nsize_s = 10\n', "r.toml")]).windows
    assert window.version == "w@5ab4eed3"
    (other,) = parse_rules([('[[window]]\nname = "w"\nsize_s = 10\ncompute = { a = "b" }\n', "r.toml")]).windows
    assert other.version != window.version
