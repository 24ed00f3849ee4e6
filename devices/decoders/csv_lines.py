"""CSV to Readings: one line is one reading, by the rules of RFC 4180 and with the liberties that loggers take.

The columns are named by the profile's `options.columns`, else by the first line of every message. A cell that reads as
a number is a number (`type = "text"` keeps `007` a text), one of `options.null` (empty, NaN) is left out, and what was
meant as a number and is none (`inf`, `1,5`) is refused. A
message with one bad line is refused whole, and the line is named: half a message stored would be a silent loss.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from devices.decoders.columns import numbers, one_line_each
from devices.decoders.plans import PlanCache
from devices.options import CsvOptions, read_options
from devices.profiles import Profile
from devices.reading import Reading, Undecodable, one_by_one
from devices.shape import READINGS_MAX, Shape, broken_number, number_of

DECODER = "csv"
_THOUSANDS = re.compile(r"\.(?=[0-9]{3}(?:[.,]|$))")


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, payload), in order: a reading per line, or why there are none."""
    return _plans.of(profile).decode(messages)


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        self._options = read_options(CsvOptions, profile.options if profile is not None else {})
        self._shape = Shape(profile, DECODER)
        self._null = frozenset(self._options.null)
        kinds = profile.fields.items() if profile is not None else ()
        self._texts = {spec.path or name for name, spec in kinds if spec.type in ("text", "boolean")}
        stamp = profile.timestamp if profile is not None else None
        if stamp is not None and stamp.unit in ("text", "iso8601"):
            self._texts |= {stamp.path, stamp.time_path}
        if profile is not None and profile.device_path:
            self._texts.add(profile.device_path)  # device 007 is not device 7
        options = self._options
        self._regular = bool(options.columns) and not (options.comment or options.skip_lines) and options.decimal == "."

    def decode(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
        found = self._by_columns(messages) if self._regular and len(messages) > 1 else None
        return one_by_one(self._message, messages) if found is None else found

    def _by_columns(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable] | None:
        """The group at once, where each message is a line without quotes and no cell is left out; else None."""
        text = one_line_each([payload for _, payload in messages])
        if text is None or self._options.quote in text:
            return None
        lines = text.split("\n")
        rows = [line.split(self._options.delimiter) for line in lines]
        if set(map(len, rows)) != {len(self._options.columns)}:
            return None
        if max(map(len, lines)) > csv.field_size_limit():
            return None
        try:
            columns = [
                self._column(name, cells)
                for name, cells in zip(self._options.columns, zip(*rows, strict=True), strict=True)
            ]
            values = [dict(zip(self._options.columns, row, strict=True)) for row in zip(*columns, strict=True)]
            return [[reading] for reading in self._shape.readings([topic for topic, _ in messages], values)]
        except Undecodable:
            return None  # which message it is, and which line

    def _column(self, name: str, cells: Sequence[str]) -> Sequence[int | float | str]:
        """What stands in a column. Raises `Undecodable`, also where a cell says that nothing does."""
        cells = list(map(str.strip, cells))
        if not self._null.isdisjoint(cells):
            raise _undecodable("a cell is left out")
        if name in self._texts:
            return cells
        found = numbers(cells)
        return [self._cell(cell, name) for cell in cells] if found is None else found

    def _message(self, topic: str, payload: bytes) -> list[Reading]:
        options = self._options
        try:
            text = payload.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _undecodable(f"byte {error.start} is not UTF-8") from None
        # CRLF as in RFC 4180, or a bare LF or CR
        numbered = list(enumerate(io.StringIO(text, newline=""), start=1))[options.skip_lines :]
        if options.comment:
            numbered = [(number, line) for number, line in numbered if not line.startswith(options.comment)]
        rows = csv.reader(
            [line for _, line in numbered], delimiter=options.delimiter, quotechar=options.quote, strict=True
        )
        columns = list(options.columns)
        readings: list[Reading] = []
        try:
            for row in rows:
                if not row:
                    continue
                if not columns:
                    columns = _header(row)
                    continue
                readings.append(self._row(topic, columns, row))
                if len(readings) > READINGS_MAX:
                    raise _undecodable(f"more than {READINGS_MAX} lines in one message")
        except csv.Error as error:
            raise _undecodable(f"line {numbered[rows.line_num - 1][0]}: {error}") from None
        except Undecodable as error:
            raise _undecodable(f"line {numbered[rows.line_num - 1][0]}: {error.reason}") from None
        if not readings:
            headed = columns and not options.columns
            raise _undecodable("a header and no line of data" if headed else "the message is empty")
        return readings

    def _row(self, topic: str, columns: list[str], row: list[str]) -> Reading:
        if len(row) != len(columns):
            raise _undecodable(f"{len(row)} cells where {len(columns)} columns are named ({', '.join(columns)[:120]})")
        null, texts = self._null, self._texts
        values: dict[str, Any] = {}
        for name, cell in zip(columns, row, strict=True):
            cell = cell.strip()
            if cell in null:
                continue
            values[name] = cell if name in texts else self._cell(cell, name)
        return self._shape.reading(topic, values)

    def _cell(self, cell: str, name: str) -> int | float | str:
        written = cell
        if self._options.decimal == ",":
            written = _THOUSANDS.sub("", cell).replace(",", ".") if "," in cell else cell
        number = number_of(written)
        if number is None and (wrong := broken_number(cell)):
            hint = "; options.decimal says so" if "," in cell and self._options.decimal == "." else ""
            raise _undecodable(f"column “{name[:80]}”: {wrong}{hint}")
        return cell if number is None else number


def _header(row: list[str]) -> list[str]:
    columns = [cell.strip() for cell in row]
    if not all(columns):
        raise _undecodable(f"column {columns.index('') + 1} of the header has no name: name them in options.columns")
    if len(set(columns)) != len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise _undecodable(f"two columns of the header are called “{twice[:80]}”")
    return columns


def _undecodable(reason: str) -> Undecodable:
    return Undecodable(reason, decoder=DECODER)


_plans: PlanCache[_Plan] = PlanCache(_Plan)
