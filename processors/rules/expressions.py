"""Expressions of rules: filters and computed fields, over columns. Sans-IO, no `eval`.

    where = "power > 0 and state == 'run' and not device in ('t-1', 't-2')"
    compute = { efficiency = "power / (0.6 * wind_speed ** 3)" }

The text is parsed by Python's own parser and its tree is walked: only what `_Builder` knows exists, so an expression
can compute and compare and nothing else. Names are fields (`a.b` for nested ones, `field('any/name')`), `device`,
`node` and what is known of the device (`device.site`, `label('any-name')`). What stands in a field says the reading, so
a field has the type of its place: a number (true is 1, false 0), a truth (a number that is not 0) or a text. A number
that a reading does not have is unknown: what is computed from it is absent, a comparison with it is false. Division by
zero and numbers beyond all bounds are unknown too. docs/windows.md, "Filters and computed fields", is for users.
"""

from __future__ import annotations

import ast
import difflib
import operator
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from processors.columns import Bools
from processors.rules.evaluation import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    Expression,
    Table,
    are_there,
    known,
    same_text,
)

Type = Literal["number", "truth", "text"]

TEXT_MAX = 1_000
DEPTH_MAX = 40
NODES_MAX = 2_000
SPECIAL = ("device", "node")
OF_DEVICE = ("device.site", "device.zone", "device.type")
LABEL = "device.labels."
_ANY_NAME = "a field's name that is more than letters, digits, _ and dots is written field('Motor/Speed')"
_TRUTHS = {"true": True, "false": False}  # as JSON and TOML write them
_QUOTES = ("field", "label")


class ExpressionError(ValueError):
    """What is wrong with an expression, in plain words."""


class _Node(NamedTuple):
    type: Type | Literal["field"]
    of: Callable[[Table], Any]
    field: str = ""


def compile_expression(text: str, *, wanted: Type) -> Expression:
    """An expression that says a number or a truth. Raises `ExpressionError`."""
    if len(text) > TEXT_MAX:
        raise ExpressionError(f"it has {len(text)} characters, {TEXT_MAX} are allowed")
    builder = _Builder(text.strip())
    of = builder.typed(_parsed(builder.source), -1, wanted)
    return Expression(text, of, frozenset(builder.numbers), frozenset(builder.texts), tuple(builder.doubts))


def _parsed(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an escape such as \\d, and of 1if: Python is about to refuse them
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        hint = f"; {_ANY_NAME}" if said.startswith("invalid syntax") or "character" in said else ""
        raise ExpressionError(f"“{text}” cannot be read{where}: {said}{hint}") from None


class _Builder:
    """Walks the tree once; what it does not know is refused by name."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.numbers: set[str] = set()
        self.texts: set[str] = set()
        self.doubts: list[str] = []
        self._nodes = 0

    def build(self, tree: ast.expr, depth: int) -> _Node:
        if depth > DEPTH_MAX:
            raise ExpressionError(f"it is nested deeper than {DEPTH_MAX}")
        self._nodes += 1  # what stands before `in` is computed for each item of the list
        if self._nodes > NODES_MAX:
            raise ExpressionError("it is too much to compute for one reading")
        match tree:
            case ast.Constant():
                return _constant(tree.value)
            case ast.Name() | ast.Attribute():
                return self._name(self._path(tree))
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

    def typed(self, tree: ast.expr, depth: int, wanted: Type) -> Callable[[Table], Any]:
        """What a part of the expression says, as a type that its place wants."""
        return self._as(self.build(tree, depth + 1), wanted, tree)

    def _as(self, node: _Node, wanted: Type, tree: ast.expr) -> Callable[[Table], Any]:
        name = node.field
        if node.type == wanted:
            return node.of
        if node.type != "field":
            raise ExpressionError(
                f"“{ast.unparse(tree)}” is a {node.type}; here a {wanted} is needed{_way(node, wanted)}"
            )
        if wanted == "text":
            self.texts.add(name)
            return lambda table: table.text(name)
        self.numbers.add(name)
        if wanted == "number":
            return lambda table: table.number(name)
        return lambda table: known(np.not_equal, table.number(name), np.zeros(table.rows), table.rows)

    def _name(self, name: str) -> _Node:
        if name in _TRUTHS:
            return _constant(_TRUTHS[name])
        if name.startswith("device.") and not is_of_device(name):
            near = difflib.get_close_matches(name, [*OF_DEVICE, f"{LABEL}…"], n=1)
            said = f"did you mean {near[0]}?" if near else f"there are {', '.join(OF_DEVICE)} and {LABEL}…"
            raise ExpressionError(f"nothing is known as {name}; {said}")
        if name in SPECIAL or is_of_device(name):
            return _Node("text", lambda table: table.fact(name))
        return _field(name)

    def _path(self, tree: ast.expr) -> str:
        """`a.b.c` of names and attributes, as it is written: the parser makes another letter of some (µ, ﬁ)."""
        read = _dotted(tree)
        if read.isascii():
            return read
        written = ast.get_source_segment(self.source, tree) or ""
        if unicodedata.normalize("NFKC", written) != read:
            raise ExpressionError(f"“{written}” is no plain name; {_ANY_NAME}")
        return written

    def _unary(self, tree: ast.UnaryOp, depth: int) -> _Node:
        if isinstance(tree.op, ast.Not):
            inner = self.typed(tree.operand, depth, "truth")
            return _Node("truth", lambda table: ~inner(table))
        inner = self.typed(tree.operand, depth, "number")
        if isinstance(tree.op, ast.USub):
            return _Node("number", lambda table: -inner(table))
        if isinstance(tree.op, ast.UAdd):
            return _Node("number", inner)
        raise ExpressionError("~ is not allowed; write not")

    def _arithmetic(self, tree: ast.BinOp, depth: int) -> _Node:
        function = ARITHMETIC.get(type(tree.op))
        if function is None:
            raise ExpressionError(f"“{ast.unparse(tree)}”: this operator is not known; there are + - * / // % **")
        left, right = self.typed(tree.left, depth, "number"), self.typed(tree.right, depth, "number")
        self._doubt(tree)
        return _Node("number", lambda table: function(left(table), right(table)))

    def _doubt(self, tree: ast.BinOp) -> None:
        """Names of fields often have a - or / in them, and then it is no mistake of grammar."""
        written = ast.get_source_segment(self.source, tree) or ""
        of_names = isinstance(tree.left, ast.Name | ast.Attribute) and isinstance(tree.right, ast.Name | ast.Attribute)
        if of_names and isinstance(tree.op, ast.Sub | ast.Div) and not any(map(str.isspace, written)):
            sign, says = ("-", "minus") if isinstance(tree.op, ast.Sub) else ("/", "divided by")
            self.doubts.append(
                f"“{written}” is {_dotted(tree.left)} {says} {_dotted(tree.right)} (put spaces around {sign} if so); "
                f"a field of this name is written field('{written}')"
            )

    def _logic(self, tree: ast.BoolOp, depth: int) -> _Node:
        parts = [self.typed(part, depth, "truth") for part in tree.values]
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
            else _Node("truth", lambda table: np.logical_and.reduce([part.of(table) for part in parts]))
        )

    def _compared(self, left: ast.expr, operation: ast.cmpop, right: ast.expr, depth: int) -> _Node:
        if isinstance(operation, ast.In | ast.NotIn):
            return self._member(left, right, depth, negate=isinstance(operation, ast.NotIn))
        compare = COMPARISONS.get(type(operation))
        if compare is None:
            raise ExpressionError("“is” is not allowed; write ==")
        one, other = self.build(left, depth + 1), self.build(right, depth + 1)
        types, equal = {one.type, other.type}, isinstance(operation, ast.Eq)
        if types & {"text", "truth"} and not isinstance(operation, ast.Eq | ast.NotEq):
            which = "texts are" if "text" in types else "truths are"
            raise ExpressionError(f"{which} compared with ==, != and in only{_meant(left, right)}")
        found: list[Callable[[Table], Bools]] = []
        if "text" in types or (types == {"field"} and isinstance(operation, ast.Eq | ast.NotEq)):
            text, to_text = self._as(one, "text", left), self._as(other, "text", right)
            found.append(lambda table: same_text(text(table), to_text(table), table.rows, equal=equal))
        if "text" not in types:
            number, to_number = self._countable(one, left), self._countable(other, right)
            found.append(lambda table: known(compare, number(table), to_number(table), table.rows))
        if len(found) == 1:
            return _Node("truth", found[0])
        # Of two fields a reading says whether they are numbers or texts.
        return _Node("truth", lambda table: found[0](table) | found[1](table))

    def _countable(self, node: _Node, tree: ast.expr) -> Callable[[Table], Any]:
        if node.type == "truth":
            return lambda table: np.asarray(node.of(table), dtype=np.float64)
        return self._as(node, "number", tree)

    def _member(self, left: ast.expr, right: ast.expr, depth: int, *, negate: bool) -> _Node:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise ExpressionError("behind “in” stands a list: device in ('a', 'b')")
        operation = ast.NotEq() if negate else ast.Eq()
        parts = [self._compared(left, operation, item, depth + 1).of for item in right.elts]
        reduce = np.logical_and.reduce if negate else np.logical_or.reduce
        return _Node("truth", lambda table: reduce([part(table) for part in parts]))

    def _choice(self, tree: ast.IfExp, depth: int) -> _Node:
        test = self.typed(tree.test, depth, "truth")
        yes, no = self.typed(tree.body, depth, "number"), self.typed(tree.orelse, depth, "number")
        return _Node("number", lambda table: np.where(test(table), yes(table), no(table)))

    def _call(self, tree: ast.Call, depth: int) -> _Node:
        name = tree.func.id if isinstance(tree.func, ast.Name) else ast.unparse(tree.func)
        if tree.keywords or any(isinstance(part, ast.Starred) for part in tree.args):
            raise ExpressionError(f"{name}(…) takes plain arguments")
        if name in _QUOTES:
            quoted = _quoted(name, tree.args)
            return _field(quoted) if name == "field" else _Node("text", lambda table: table.fact(LABEL + quoted))
        if name == "has":
            return self._has(tree.args)
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, [*FUNCTIONS, "has", *_QUOTES], n=1, cutoff=0.4)
            said = f"did you mean {near[0]}?" if near else f"there are has, field, label, {', '.join(FUNCTIONS)}"
            raise ExpressionError(f"no function is called {name}; {said}")
        count, function = FUNCTIONS[name]
        if len(tree.args) != count:
            raise ExpressionError(f"{name} takes {count} argument{'s' * (count > 1)}, not {len(tree.args)}")
        parts = [self.typed(part, depth, "number") for part in tree.args]
        return _Node("number", lambda table: function(*(part(table) for part in parts)))

    def _has(self, arguments: Sequence[ast.expr]) -> _Node:
        node = self.build(arguments[0], 0) if len(arguments) == 1 else _constant(0)
        if node.type == "text" and not isinstance(arguments[0], ast.Constant):
            return _Node("truth", lambda table: are_there(node.of(table)))
        if node.type != "field":
            raise ExpressionError("has takes the name of a field: has(power), has(field('Motor/Speed'))")
        number, text = self._as(node, "number", arguments[0]), self._as(node, "text", arguments[0])
        return _Node("truth", lambda table: ~np.isnan(number(table)) | are_there(text(table)))


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
    raise ExpressionError(f"{value!r} is no number, text, True or False; whether a reading has a field, has(…) says")


def _field(name: str) -> _Node:
    return _Node("field", lambda table: table.number(name), name)


def _quoted(function: str, arguments: Sequence[ast.expr]) -> str:
    match arguments:
        case [ast.Constant(value=str(name))] if name:
            return name
    raise ExpressionError(f"{function} takes one name in quotes: {function}('…')")


def _dotted(tree: ast.expr) -> str:
    if isinstance(tree, ast.Name):
        return tree.id
    if isinstance(tree, ast.Attribute):
        return f"{_dotted(tree.value)}.{tree.attr}"
    raise ExpressionError(f"“{ast.unparse(tree)}” names no field")


def _way(node: _Node, wanted: Type) -> str:
    """How what was meant may be written."""
    if node.type == "truth" and wanted == "number":
        return ": write 1 if … else 0"
    return f"; {_ANY_NAME}, a label label('my-line')" if node.type == "text" and wanted == "number" else ""


def _meant(*trees: ast.expr) -> str:
    quoted = [tree.value for tree in trees if isinstance(tree, ast.Constant) and isinstance(tree.value, str)]
    return f"; a field of this name is written field({quoted[0]!r})" if quoted else ""
