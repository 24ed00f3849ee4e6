"""What the windows of a rule say, and what they count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, repeat
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from gateway.log.headers import encode_headers

T = TypeVar("T")
Text = list[bytes | list[bytes]]
"""Columns of text beside each other; bytes are a column in which all rows are the same."""
_ENCODER = msgspec.json.Encoder()

NEVER = -(1 << 62)
"""Before every event time."""
EVER = 1 << 62
"""Behind every event time."""


class WindowResult(NamedTuple):
    """One emission.

    `first_complete`: no earlier revision of this window was complete. `retro`: it was closed by backfill. `more`:
    members that only windows of this kind have.
    """

    group: str
    start: int
    end: int
    revision: int
    complete: bool
    cause: str
    retro: bool
    first_complete: bool
    readings: int
    fields: dict[str, dict[str, Any]]
    more: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default; nobody writes into it


class ToldResult(msgspec.Struct):
    """What a record of topic `aggregates` says of its window (docs/windows.md), read back."""

    rule: str
    group: str
    start: int
    end: int
    revision: int
    complete: bool
    cause: str
    count: int
    fields: dict[str, dict[str, Any]]


def aggregate_value(rule: str, result: WindowResult) -> dict[str, Any]:
    """The value of its record in topic `aggregates`."""
    value: dict[str, Any] = {
        "rule": rule,
        "group": result.group,
        "start": result.start,
        "end": result.end,
        "revision": result.revision,
        "complete": result.complete,
        "cause": result.cause,
        "count": result.readings,
        "fields": result.fields,
    }
    if result.retro:
        value["retro"] = True
    return value | result.more


class FieldResults(NamedTuple):
    """A field's aggregates in some windows: a list with one entry a window for each of them, in the rule's order.

    `has`: which windows have a value of this field; in the others it is left out.
    """

    name: str
    has: list[bool]
    aggregates: dict[str, list[Any]]

    def text(self) -> Text:
        """Its member of `fields`, also where it is left out."""
        text: Text = [_ENCODER.encode(self.name) + b":"]
        for name, column in self.aggregates.items():
            text += [b"{" if len(text) == 1 else b",", _ENCODER.encode(name) + b":", _tokens(column)]
        return [*text, b"}"]

    def rows(self) -> list[dict[str, Any] | None]:
        """Window by window; None where the field is left out."""
        names = tuple(self.aggregates)
        found = zip(self.has, zip(*self.aggregates.values(), strict=True), strict=True)
        return [dict(zip(names, row, strict=True)) if has else None for has, row in found]


def by_window(fields: Sequence[FieldResults], count: int) -> list[dict[str, dict[str, Any]]]:
    """The fields of each of so many windows."""
    rows = [(field.name, field.rows()) for field in fields]
    return [{name: one for name, column in rows if (one := column[row]) is not None} for row in range(count)]


class Told(NamedTuple):
    """Some emissions as columns, what is said of windows as in `WindowResult`.

    `more`: row -> members that others have not.
    """

    groups: list[str]
    starts: list[int]
    ends: list[int]
    revisions: list[int]
    complete: list[bool]
    causes: list[str]
    retro: list[bool]
    first_complete: list[bool]
    readings: list[int]
    fields: list[FieldResults]
    more: dict[int, dict[str, Any]]

    def rows(self) -> list[WindowResult]:
        """One by one."""
        fields = by_window(self.fields, len(self.groups))
        more = [self.more.get(row, {}) for row in range(len(self.groups))]
        columns = (self.groups, self.starts, self.ends, self.revisions, self.complete, self.causes, self.retro)
        found = zip(*columns, self.first_complete, self.readings, fields, more, strict=True)
        return list(map(WindowResult._make, found))

    def values(self, rule: str) -> list[bytes]:
        """What `aggregate_value` gives, as JSON; made column by column, with what is the same in all rows once."""
        said = {
            "rule": [rule],
            "group": self.groups,
            "start": _once(self.starts),
            "end": _once(self.ends),
            "revision": _once(self.revisions),
            "complete": _once(self.complete),
            "cause": _once(self.causes),
            "count": self.readings,
        }
        text: Text = []
        for name, column in said.items():
            text += [b'%b"%b":' % (b"," if text else b"{", name.encode()), _tokens(column)]
        text += [b',"fields":{', *_fields_text(self.fields), b"}"]
        if any(self.retro) or self.more:
            last = [{"retro": True} if retro else {} for retro in self.retro]
            rest = _ENCODER.encode_lines([one | self.more.get(row, {}) for row, one in enumerate(last)]).split(b"\n")
            text.append([b"}" if line == b"{}" else b"," + line[1:] for line in rest[:-1]])
        else:
            text.append(b"}")
        return _joined(text, len(self.groups))


def _fields_text(fields: Sequence[FieldResults]) -> Text:
    """The members of `fields`."""
    texts = [field.text() for field in fields]
    if all(all(field.has) for field in fields):
        return [piece for text in texts for piece in ([b","] if text is not texts[0] else []) + text]
    columns = [
        [line if has else b"" for line, has in zip(_joined(text, len(field.has)), field.has, strict=True)]
        for text, field in zip(texts, fields, strict=True)
    ]
    return [[b",".join(filter(None, row)) for row in zip(*columns, strict=True)]]


def _once(column: list[Any]) -> list[Any]:
    """A column of which one entry is enough if all are the same."""
    return column[:1] if column.count(column[0]) == len(column) else column


def _tokens(column: list[Any]) -> bytes | list[bytes]:
    """Each entry as JSON; of a column with a single entry that alone."""
    tokens = _ENCODER.encode_lines(column).split(b"\n")
    del tokens[-1]  # there is a newline behind each
    return tokens if len(tokens) > 1 else tokens[0]


def _joined(text: Text, count: int) -> list[bytes]:
    """The pieces of each of so many rows as one; a piece that is no list is the same in all of them."""
    columns: list[Iterable[bytes]] = []
    for is_same, pieces in groupby(text, lambda piece: isinstance(piece, bytes)):
        if is_same:
            columns.append(repeat(b"".join(cast("Iterable[bytes]", pieces)), count))
        else:
            columns += cast("Iterable[list[bytes]]", pieces)
    return list(map(b"".join, zip(*columns, strict=True)))


class Results:
    """What one mark lets a rule say: emissions sorted by window start and group."""

    def __init__(self, parts: Sequence[Told]) -> None:
        self._parts = [part for part in parts if part.groups]
        groups = list(chain.from_iterable(part.groups for part in self._parts))
        starts = list(chain.from_iterable(part.starts for part in self._parts))
        # By texts and then by numbers: twice as fast as by pairs of them.
        self._order = sorted(range(len(groups)), key=groups.__getitem__)
        if len(set(starts)) > 1:
            self._order.sort(key=starts.__getitem__)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[WindowResult]:
        return iter(self._sorted([part.rows() for part in self._parts]))

    def values(self, rule: str) -> list[bytes]:
        """The values of their records in topic `aggregates`."""
        return self._sorted([part.values(rule) for part in self._parts])

    @property
    def groups(self) -> list[str]:
        return self._sorted([part.groups for part in self._parts])

    @property
    def starts(self) -> list[int]:
        return self._sorted([part.starts for part in self._parts])

    @property
    def ends(self) -> list[int]:
        return self._sorted([part.ends for part in self._parts])

    def _sorted(self, columns: Sequence[list[T]]) -> list[T]:
        """Columns of the parts as one."""
        joined = columns[0] if len(columns) == 1 else list(chain.from_iterable(columns))
        return list(map(joined.__getitem__, self._order))


def numbered(header: str, before: str, numbers: range) -> list[bytes]:
    """Header sections of records with this header alone, whose value is `before` and a number."""
    found: list[bytes] = []
    while numbers:
        size = len(str(numbers[0]))
        head = encode_headers([(header, before.encode() + bytes(size))])[:-size]
        found += map(head.__add__, map(b"%d".__mod__, numbers[: 10**size - numbers[0]]))
        numbers = numbers[10**size - numbers[0] :]
    return found


class Counters(msgspec.Struct):
    """What a window rule has counted on one partition since its start, in results (the first two) and readings."""

    windows_emitted: int = 0
    revisions: int = 0
    late: int = 0
    too_late: int = 0
    overflow: int = 0
