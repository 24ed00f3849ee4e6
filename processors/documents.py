"""The values of a block of records as columns: JSON objects, a NumPy array per field, one JSON call per block.

Members of nested objects are fields named `outer.inner`, as ingest names them; arrays are no values of fields.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from headwater.errors import UNREADABLE
from processors.aggregates.texts import are_texts, boxed
from processors.pieces import Pieces
from processors.plain import read_plain, whole

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]

DEPTH_MAX = 32
"""Objects that lie deeper in a record are left out."""
_NUMERIC = {float, int, bool}  # true is 1, false 0
_DECODER = msgspec.json.Decoder(dict)


class FieldColumn(NamedTuple):
    """A field: its values (of booleans 1 and 0), and the rows that they stand in (None: every row has one).

    `texts`: values that are texts are codes (`aggregates.texts`), each the place of its text in here.
    """

    rows: Ints | None
    values: Floats
    texts: Sequence[str] = ()


class Read(NamedTuple):
    """What a block's documents hold: all numbers; of what was asked for the texts, and values with texts among them."""

    numbers: dict[str, FieldColumn]
    texts: dict[str, Texts]
    coded: dict[str, FieldColumn]


def read_values(values: Sequence[bytes | None], texts: frozenset[str], coded: frozenset[str]) -> tuple[Read, list[int]]:
    """Values as `columns_of` has them, and the rows of those that hold no object."""
    if not isinstance(values, Pieces):
        documents, bad = documents_of(values)
        return columns_of(documents, texts, coded), bad
    plain, left = read_plain(values)
    documents, bad = documents_of([values[row] for row in left.tolist()])
    rest, count = columns_of(documents, texts, coded), len(values)
    numbers = {
        name: FieldColumn(*whole([*plain.get(name, ()), *_placed(rest.numbers.get(name), left)], count))
        for name in plain.keys() | rest.numbers.keys()
    }
    with_texts = {
        name: FieldColumn(*whole([*plain.get(name, ()), *_placed(column, left)], count), column.texts)
        for name, column in rest.coded.items()
    }
    columns = {name: np.full(count, None, dtype=object) for name in texts}
    for name, column in columns.items():
        column[left] = rest.texts[name]
    return Read(numbers, columns, with_texts), left[bad].tolist()


def _placed(column: FieldColumn | None, left: Ints) -> list[tuple[Ints, Floats]]:
    """A column of rows that stand at `left`."""
    return [] if column is None else [(left if column.rows is None else left[column.rows], column.values)]


def documents_of(values: Sequence[bytes | None]) -> tuple[list[dict[str, Any]], list[int]]:
    """The decoded JSON objects, {} where there is none, and the rows of those."""
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]  # None: a TypeError, dealt with below
        # As many newlines as separators: then each value is one line, and each line one whole JSON text.
        if joined.count(b"\n") == len(values) - 1:
            documents = _DECODER.decode_lines(joined)
            if len(documents) == len(values):
                return documents, []
    except (*UNREADABLE, TypeError):
        pass  # a tombstone or a malformed value: find it below
    documents, bad = [], []
    for row, value in enumerate(values):
        try:
            documents.append(_DECODER.decode(value) if value is not None else {})
            if value is None:
                bad.append(row)
        except UNREADABLE:
            documents.append({})
            bad.append(row)
    return documents, bad


def columns_of(documents: list[dict[str, Any]], texts: frozenset[str], coded: frozenset[str]) -> Read:
    """Fields as columns. `texts`: fields wanted as texts; `coded`: fields wanted with their texts as codes."""
    columns = [(name, values, set(map(type, values))) for name, values in _raw_columns(documents)]
    if any(dict in kinds for _, _, kinds in columns):
        documents = [_flat(document) for document in documents]
        columns = [(name, values, set(map(type, values))) for name, values in _raw_columns(documents)]
    numbers, with_texts = {}, {}
    for name, values, kinds in columns:
        column = _numbers(values, kinds)
        if column is not None:
            numbers[name] = column
        if name in coded and str in kinds:
            with_texts[name] = _coded(values, kinds)
        elif name in coded and column is not None:
            with_texts[name] = column
    return Read(numbers, {name: _text_column(documents, name) for name in texts}, with_texts)


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    """Members of nested objects as `outer.inner`; of members of one name the nested one counts, as in ingest."""
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, dict[str, Any], int]] = [("", document, 1)]
    while waiting:
        prefix, node, depth = waiting.pop()
        for key, member in node.items():
            if type(member) is not dict:
                flat[prefix + key] = member
            elif depth < DEPTH_MAX:
                waiting.append((f"{prefix}{key}.", member, depth + 1))
    return flat


def _raw_columns(documents: list[dict[str, Any]]) -> Iterable[tuple[str, Sequence[Any]]]:
    names = list(documents[0]) if documents else []
    if names and set(map(len, documents)) == {len(names)}:
        # As many members each: if none of these is missing anywhere, all documents have just these.
        with contextlib.suppress(KeyError):
            found = list(map(itemgetter(*names), documents))
            return zip(names, zip(*found, strict=True) if len(names) > 1 else [found], strict=True)
    return [(name, [document.get(name) for document in documents]) for name in set().union(*documents)]


def _numbers(column: Sequence[Any], kinds: set[type]) -> FieldColumn | None:
    if kinds <= _NUMERIC:
        # beyond the largest double there is an int in it: found below
        with contextlib.suppress(OverflowError):
            return FieldColumn(None, np.array(column, dtype=np.float64))
    elif not kinds & _NUMERIC:
        return None
    # JSON knows no NaN, so a NaN below always stands for "no number here".
    values = np.array([_number(value) for value in column], dtype=np.float64)
    rows = np.flatnonzero(~np.isnan(values))
    return FieldColumn(rows, values[rows]) if len(rows) else None


def _coded(column: Sequence[Any], kinds: set[type]) -> FieldColumn:
    """A column with texts in it, each text once beside it."""
    if kinds == {str}:
        places = {text: place for place, text in enumerate(dict.fromkeys(column))}
        codes = np.fromiter(map(places.__getitem__, column), np.int64, len(column))
        return FieldColumn(None, boxed(codes), list(places))
    rows = [row for row, value in enumerate(column) if type(value) is str]
    texts = [column[row] for row in rows]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    values = np.array([_number(value) for value in column], dtype=np.float64)
    values[rows] = boxed(np.fromiter(map(places.__getitem__, texts), np.int64, len(texts)))
    there = np.flatnonzero(~np.isnan(values) | are_texts(values))
    return FieldColumn(there, values[there], list(places))


def _text_column(documents: list[dict[str, Any]], name: str) -> Texts:
    found = np.empty(len(documents), dtype=object)
    found[:] = [value if isinstance(value := document.get(name), str) else None for document in documents]
    return found


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) in _NUMERIC:
        try:
            return float(value)
        except OverflowError:
            return float("nan")
    return float("nan")
