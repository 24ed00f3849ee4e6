"""Expressions of rules: filters and computed fields, over columns. Sans-IO, no `eval`.

    where = "power > 0 and state == 'run' and not device in ('t-1', 't-2')"
    compute = { efficiency = "power / (0.6 * wind_speed ** 3)" }

The text is parsed by Python's own parser and its tree is walked: only what `_Builder` knows exists, so an expression
can compute and compare and nothing else. Names are fields (`a.b` for nested ones), `device`, `node` and what is known
of the device (`device.site`). A number that
a reading does not have is unknown: what is computed from it is absent, a comparison with it is false. Division by zero
and numbers beyond all bounds are unknown too. docs/windows.md, "Filters and computed fields", is for users.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
Type = Literal["number", "truth", "text"]

TEXT_MAX = 1_000
DEPTH_MAX = 40
NODES_MAX = 2_000
SPECIAL = ("device", "node")
OF_DEVICE = ("device.site", "device.zone", "device.type")
LABEL = "device.labels."


class ExpressionError(ValueError):
    """What is wrong with an expression, in plain words."""


class Table(NamedTuple):
    """What an expression is evaluated on: columns of one length."""

    rows: int
    number: Callable[[str], Floats]
    """A field's numbers; NaN where it has none."""
    text: Callable[[str], Texts]
    """A field's texts, `device`, `node`, or what is known of the device; None where there is none."""


class _Node(NamedTuple):
    type: Type
    of: Callable[[Table], Any]


class Expression(NamedTuple):
    """A compiled expression. `numbers`, `texts`: the fields that it reads as such."""

    source: str
    type: Type
    of: Callable[[Table], Any]
    numbers: frozenset[str]
    texts: frozenset[str]


_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type[ast.cmpop], Any] = {
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
"""Name -> (how many arguments, function over columns). `has(field)` is known besides."""


def compile_expression(text: str, *, wanted: Type) -> Expression:
    """An expression that says a number or a truth. Raises `ExpressionError`."""
    if len(text) > TEXT_MAX:
        raise ExpressionError(f"it has {len(text)} characters, {TEXT_MAX} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ExpressionError(f"“{text}” cannot be read{where}: {said}") from None
    builder = _Builder()
    node = builder.build(tree.body, 0)
    if node.type != wanted:
        raise ExpressionError(f"“{text}” says a {node.type}; here a {wanted} is needed")
    return Expression(text, node.type, node.of, frozenset(builder.numbers), frozenset(builder.texts))


class _Builder:
    """Walks the tree once; what it does not know is refused by name."""

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self.texts: set[str] = set()
        self._nodes = 0

    def build(self, tree: ast.expr, depth: int, *, as_text: bool = False) -> _Node:
        if depth > DEPTH_MAX:
            raise ExpressionError(f"it is nested deeper than {DEPTH_MAX}")
        self._nodes += 1  # what stands before `in` is computed for each item of the list
        if self._nodes > NODES_MAX:
            raise ExpressionError("it is too much to compute for one reading")
        match tree:
            case ast.Constant():
                return _constant(tree.value)
            case ast.Name() | ast.Attribute():
                return self._name(_path(tree), as_text=as_text)
            case ast.UnaryOp():
                return self._unary(tree, depth)
            case ast.BinOp():
                return self._arithmetic(tree, depth)
            case ast.BoolOp():
                return self._logic(tree, depth)
            case ast.Compare():
                return self._comparison(tree, depth)
            case ast.IfExp():
                return self._choice(tree, depth)
            case ast.Call():
                return self._call(tree, depth)
        raise ExpressionError(
            f"“{ast.unparse(tree)}” is not allowed here: numbers, texts, fields, + - * / // % **, "
            "comparisons, and, or, not, in, if … else, and functions"
        )

    def _typed(self, tree: ast.expr, depth: int, wanted: Type) -> Callable[[Table], Any]:
        node = self.build(tree, depth + 1, as_text=wanted == "text")
        if node.type != wanted:
            raise ExpressionError(f"“{ast.unparse(tree)}” is a {node.type}; here a {wanted} is needed")
        return node.of

    def _name(self, name: str, *, as_text: bool) -> _Node:
        if name.startswith("device.") and not is_of_device(name):
            near = difflib.get_close_matches(name, [*OF_DEVICE, f"{LABEL}…"], n=1)
            said = f"did you mean {near[0]}?" if near else f"there are {', '.join(OF_DEVICE)} and {LABEL}…"
            raise ExpressionError(f"nothing is known as {name}; {said}")
        if as_text or name in SPECIAL or is_of_device(name):
            self.texts.add(name)
            return _Node("text", lambda table: table.text(name))
        self.numbers.add(name)
        return _Node("number", lambda table: table.number(name))

    def _unary(self, tree: ast.UnaryOp, depth: int) -> _Node:
        if isinstance(tree.op, ast.Not):
            inner = self._typed(tree.operand, depth, "truth")
            return _Node("truth", lambda table: ~inner(table))
        inner = self._typed(tree.operand, depth, "number")
        if isinstance(tree.op, ast.USub):
            return _Node("number", lambda table: -inner(table))
        if isinstance(tree.op, ast.UAdd):
            return _Node("number", inner)
        raise ExpressionError("~ is not allowed; write not")

    def _arithmetic(self, tree: ast.BinOp, depth: int) -> _Node:
        function = _ARITHMETIC.get(type(tree.op))
        if function is None:
            raise ExpressionError(f"“{ast.unparse(tree)}”: this operator is not known; there are + - * / // % **")
        left, right = self._typed(tree.left, depth, "number"), self._typed(tree.right, depth, "number")
        return _Node("number", lambda table: function(left(table), right(table)))

    def _logic(self, tree: ast.BoolOp, depth: int) -> _Node:
        parts = [self._typed(part, depth, "truth") for part in tree.values]
        join = operator.and_ if isinstance(tree.op, ast.And) else operator.or_

        def of(table: Table) -> Any:
            found = parts[0](table)
            for part in parts[1:]:
                found = join(found, part(table))
            return found

        return _Node("truth", of)

    def _comparison(self, tree: ast.Compare, depth: int) -> _Node:
        parts, left = [], tree.left
        for operation, right in zip(tree.ops, tree.comparators, strict=True):
            parts.append(self._compared(left, operation, right, depth))
            left = right
        return (
            parts[0]
            if len(parts) == 1
            else _Node("truth", lambda table: np.logical_and.reduce([of(table) for _, of in parts]))
        )

    def _compared(self, left: ast.expr, operation: ast.cmpop, right: ast.expr, depth: int) -> _Node:
        if isinstance(operation, ast.In | ast.NotIn):
            return self._member(left, right, depth, negate=isinstance(operation, ast.NotIn))
        compare = _COMPARISONS.get(type(operation))
        if compare is None:
            raise ExpressionError("“is” is not allowed; write ==")
        if _is_text(left) or _is_text(right):
            if not isinstance(operation, ast.Eq | ast.NotEq):
                raise ExpressionError("texts are compared with ==, != and in only")
            one, other = self._typed(left, depth, "text"), self._typed(right, depth, "text")
            equal = isinstance(operation, ast.Eq)
            return _Node("truth", lambda table: _same_text(one(table), other(table), table.rows, equal=equal))
        first, second = self._typed(left, depth, "number"), self._typed(right, depth, "number")
        return _Node("truth", lambda table: _known(compare, first(table), second(table), table.rows))

    def _member(self, left: ast.expr, right: ast.expr, depth: int, *, negate: bool) -> _Node:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise ExpressionError("behind “in” stands a list: device in ('a', 'b')")
        operation = ast.NotEq() if negate else ast.Eq()
        parts = [self._compared(left, operation, item, depth + 1).of for item in right.elts]
        reduce = np.logical_and.reduce if negate else np.logical_or.reduce
        return _Node("truth", lambda table: reduce([part(table) for part in parts]))

    def _choice(self, tree: ast.IfExp, depth: int) -> _Node:
        test = self._typed(tree.test, depth, "truth")
        yes, no = self._typed(tree.body, depth, "number"), self._typed(tree.orelse, depth, "number")
        return _Node("number", lambda table: np.where(test(table), yes(table), no(table)))

    def _call(self, tree: ast.Call, depth: int) -> _Node:
        name = tree.func.id if isinstance(tree.func, ast.Name) else ast.unparse(tree.func)
        if tree.keywords or any(isinstance(part, ast.Starred) for part in tree.args):
            raise ExpressionError(f"{name}(…) takes plain arguments")
        if name == "has":
            return self._has(tree.args)
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, [*FUNCTIONS, "has"], n=1, cutoff=0.4)
            said = f"did you mean {near[0]}?" if near else f"there are has, {', '.join(FUNCTIONS)}"
            raise ExpressionError(f"no function is called {name}; {said}")
        count, function = FUNCTIONS[name]
        if len(tree.args) != count:
            raise ExpressionError(f"{name} takes {count} argument{'s' * (count > 1)}, not {len(tree.args)}")
        parts = [self._typed(part, depth, "number") for part in tree.args]
        return _Node("number", lambda table: function(*(part(table) for part in parts)))

    def _has(self, arguments: Sequence[ast.expr]) -> _Node:
        if len(arguments) != 1 or not isinstance(arguments[0], ast.Name | ast.Attribute):
            raise ExpressionError("has takes the name of a field: has(power)")
        node = self._name(_path(arguments[0]), as_text=False)
        of = node.of
        if node.type == "text":
            return _Node("truth", lambda table: np.array([text is not None for text in of(table)], dtype=np.bool_))
        return _Node("truth", lambda table: ~np.isnan(of(table)))


def is_of_device(name: str) -> bool:
    """Whether a name is a text that is known of the device and not said by the reading."""
    return name in OF_DEVICE or (name.startswith(LABEL) and "." not in name[len(LABEL) :] and len(name) > len(LABEL))


def _constant(value: object) -> _Node:
    if isinstance(value, bool):
        return _Node("truth", lambda table: np.full(table.rows, value))
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            raise ExpressionError("a number in it is too large") from None
        return _Node("number", lambda table: np.full(table.rows, number))
    if isinstance(value, str):
        return _Node("text", lambda table: value)
    raise ExpressionError(f"{value!r} is no number, text, True or False")


def _path(tree: ast.expr) -> str:
    """`a.b.c` of names and attributes."""
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Attribute):
        return f"{_path(tree.value)}.{tree.attr}"
    raise ExpressionError(f"“{ast.unparse(tree)}” names no field")


def _is_text(tree: ast.expr) -> bool:
    constant = isinstance(tree, ast.Constant) and isinstance(tree.value, str)
    return constant or (isinstance(tree, ast.Name) and tree.id in SPECIAL) or _begins_with_device(tree)


def _begins_with_device(tree: ast.expr) -> bool:
    while isinstance(tree, ast.Attribute):
        tree = tree.value
        if isinstance(tree, ast.Name) and tree.id == "device":
            return True
    return False


def _known(compare: Any, one: Floats, other: Floats, count: int) -> Bools:
    """A comparison with an unknown number is false, != too."""
    found = compare(one, other) & np.isfinite(one) & np.isfinite(other)
    return found if np.shape(found) == (count,) else np.broadcast_to(found, count)


def _same_text(one: Any, other: Any, count: int, *, equal: bool) -> Bools:
    one, other = (np.full(count, side, dtype=object) if isinstance(side, str) else side for side in (one, other))
    known = np.array([a is not None and b is not None for a, b in zip(one, other, strict=True)], dtype=np.bool_)
    same: Bools = np.asarray(one == other, dtype=np.bool_)
    return known & (same if equal else ~same)


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
    """(fields read as numbers, fields read as texts) of several; what no reading says itself aside."""
    numbers: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    for expression in expressions:
        numbers, texts = numbers | expression.numbers, texts | expression.texts
    return numbers, frozenset(name for name in texts if name not in SPECIAL and not is_of_device(name))
