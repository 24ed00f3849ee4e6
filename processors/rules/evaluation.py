"""What compiled expressions of rules are evaluated on, and with: columns in, a column out. Sans-IO."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from processors.columns import Bools, Floats
from processors.documents import Texts


class Table(NamedTuple):
    """What an expression is evaluated on: columns of one length."""

    rows: int
    number: Callable[[str], Floats]
    """A field's numbers, 1 and 0 for true and false; NaN where it has none."""
    text: Callable[[str], Texts]
    """A field's texts; None where it has none."""
    fact: Callable[[str], Texts]
    """`device`, `node`, or what is known of the device, such as `device.site`; None where it is not known."""


class Expression(NamedTuple):
    """A compiled expression. `numbers`, `texts`: the fields that it reads as such.

    `doubts`: what may be meant otherwise than it is read, in plain words.
    """

    source: str
    of: Callable[[Table], Any]
    numbers: frozenset[str]
    texts: frozenset[str]
    doubts: tuple[str, ...]


ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
FUNCTIONS: dict[str, tuple[int, Any]] = {
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log10": (1, np.log10),
    "sin": (1, np.sin),
    "cos": (1, np.cos),
    "tan": (1, np.tan),
    "atan2": (2, np.arctan2),
    "radians": (1, np.radians),
    "degrees": (1, np.degrees),
    "floor": (1, np.floor),
    "ceil": (1, np.ceil),
    "round": (1, np.rint),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
}
"""Name -> (how many arguments, function over columns). `has`, `field` and `label` are known besides."""


def are_there(texts: Any) -> Bools:
    """Which texts are known."""
    return np.array([text is not None for text in texts], dtype=np.bool_)


def same_text(one: Any, other: Any, count: int, *, equal: bool) -> Bools:
    """Texts, a column or one, compared: what is not known is neither the same nor another."""
    one, other = (np.full(count, side, dtype=object) if isinstance(side, str) else side for side in (one, other))
    both = np.array([a is not None and b is not None for a, b in zip(one, other, strict=True)], dtype=np.bool_)
    same: Bools = np.asarray(one == other, dtype=np.bool_)
    return both & (same if equal else ~same)


def known(compare: Any, one: Floats, other: Floats, count: int) -> Bools:
    """A comparison with an unknown number is false, != too."""
    found = compare(one, other) & np.isfinite(one) & np.isfinite(other)
    return found if np.shape(found) == (count,) else np.broadcast_to(found, count)


def evaluate_number(expression: Expression, table: Table) -> Floats:
    """The numbers that it says; NaN where they are unknown."""
    with np.errstate(all="ignore"):
        found: Floats = np.asarray(expression.of(table), dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def evaluate_truth(expression: Expression, table: Table) -> Bools:
    """Where it holds."""
    with np.errstate(all="ignore"):
        return np.asarray(expression.of(table), dtype=np.bool_)


def fields_of(expressions: Iterable[Expression]) -> tuple[frozenset[str], frozenset[str]]:
    """(fields read as numbers, fields read as texts) of several."""
    numbers: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    for expression in expressions:
        numbers, texts = numbers | expression.numbers, texts | expression.texts
    return numbers, texts
