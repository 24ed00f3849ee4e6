"""Filters and computed fields of one window rule: columns in, the columns that the rule sees out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from processors.columns import Columns, Floats, KeyTable
from processors.documents import FieldColumn, Texts
from processors.facts import DeviceFacts
from processors.rules.evaluation import Expression, Table, evaluate_number, evaluate_truth, fields_of
from processors.rules.expressions import SPECIAL, compile_expression


class Derivation:
    """`where` ('' is everything) and `compute` of a rule, compiled. Raises `ExpressionError`.

    `facts`: what of the device the rule wants to find in the columns' texts, such as `device.zone`.
    """

    def __init__(self, where: str, compute: Mapping[str, str], facts: Collection[str] = ()) -> None:
        self._where: Expression | None = compile_expression(where, wanted="truth") if where else None
        self._compute = {name: compile_expression(text, wanted="number") for name, text in compute.items()}
        used = [*self._compute.values(), *([self._where] if self._where is not None else [])]
        _, self.texts = fields_of(used)
        self._facts = facts

    def apply(self, columns: Columns, keys: KeyTable, facts: DeviceFacts) -> Columns:
        """The same rows: those that do not fit have key -1, computed fields stand beside the others.

        Computed fields see the reading's own fields and those computed before them; the filter sees all of them.
        """
        if not len(columns) or not (self._where is not None or self._compute or self._facts):
            return columns
        cache: dict[str, Floats] = {}

        def number(name: str) -> Floats:
            if name not in cache:
                cache[name] = _dense(columns.fields.get(name), len(columns))
            return cache[name]

        computed: set[str] = set()

        def text(name: str) -> Texts:
            return np.full(len(columns), None, dtype=object) if name in computed else columns.texts[name]

        def fact(name: str) -> Texts:
            if name in SPECIAL:
                return _names(columns, keys, of_node=name == "node")
            return facts.column(name, columns, keys)

        table = Table(len(columns), number, text, fact)
        fields = dict(columns.fields)
        for name, expression in self._compute.items():
            cache[name] = evaluate_number(expression, table)
            computed.add(name)
            rows = np.flatnonzero(~np.isnan(cache[name]))
            fields.pop(name, None)
            if len(rows):
                fields[name] = FieldColumn(rows, cache[name][rows])
        key = columns.key
        if self._where is not None:
            key = np.where(evaluate_truth(self._where, table), key, -1)
        # not `_replace`, which asks for the length that `Columns` gives another meaning
        texts = {**columns.texts, **{name: fact(name) for name in self._facts}} if self._facts else columns.texts
        coded = {name: column for name, column in columns.coded.items() if name not in computed}
        return Columns(key, columns.time, columns.backfill, fields, columns.marks, columns.refused, texts, coded)


def _dense(column: FieldColumn | None, count: int) -> Floats:
    """One number a row; NaN where there is none."""
    if column is None:
        return np.full(count, np.nan)
    if column.rows is None:
        return column.values
    found = np.full(count, np.nan)
    found[column.rows] = column.values
    return found


def _names(columns: Columns, keys: KeyTable, *, of_node: bool) -> Texts:
    """The device's or the node's name of each row; None where the record has no key."""
    used, rows = np.unique(columns.key, return_inverse=True)
    names = np.empty(len(used), dtype=object)
    names[:] = [None if key < 0 else keys.device(key)[0 if of_node else 1] for key in used.tolist()]
    found: Texts = names[rows]
    return found
