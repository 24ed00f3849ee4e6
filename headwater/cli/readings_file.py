"""Readings from a file, for `headwater process test`: JSON lines or CSV, as `tail --json` and `export` write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import msgspec

from headwater.cli.export import parse_time
from headwater.errors import UNREADABLE, UserError

Row = tuple[str, int, dict[str, Any]]
"""(key, event time in ms, fields)"""

READINGS_MAX = 1_000_000
NODE = "test"
_HINT = 'A line is {"device": "pump-7", "time": "2026-03-29T12:00:00Z", "fields": {"flow": 1.5}}; or CSV with a header.'


def read_readings(file: str) -> list[Row]:
    """In the order of the file. Raises `UserError` naming the line."""
    rows: list[Row] = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            found = _csv(handle) if file.endswith(".csv") else _json(handle)
            for line, members in found:
                try:
                    rows.append(_row(members, len(rows), rows[-1][1] if rows else -1000))
                except (ValueError, TypeError, UserError) as error:
                    what = error.what if isinstance(error, UserError) else str(error)
                    raise UserError(f"{file}:{line}: {what}", hint=_HINT) from None
                if len(rows) > READINGS_MAX:
                    raise UserError(f"{file} has more than {READINGS_MAX:,} readings", hint="Take a part of them.")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text in UTF-8", hint=_HINT) from None
    if not rows:
        raise UserError(f"{file} has no readings", hint=_HINT)
    return rows


def _json(handle: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(handle, 1):
        if not line.strip():
            continue
        try:
            members = msgspec.json.decode(line)
        except UNREADABLE as error:
            raise UserError(f"line {number} is no JSON: {error}", hint=_HINT) from None
        if not isinstance(members, dict):
            raise UserError(f"line {number} is no JSON object", hint=_HINT)
        yield number, members


def _csv(handle: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(handle)
    for members in reader:
        yield reader.line_num, {name: _cell(text) for name, text in members.items() if name and text}


def _cell(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _row(members: dict[str, Any], number: int, before_ms: int) -> Row:
    members = dict(members)
    key = members.pop("key", None) or members.pop("device", None) or "device"
    members.pop("device", None)
    time, time_ms = members.pop("time", None), members.pop("time_ms", None)
    if time_ms is None:
        time_ms = before_ms + 1000 if time is None else parse_time(str(time), "time", 0)
    for extra in ("topic", "partition", "offset", "headers"):
        if "value" in members or "fields" in members:
            members.pop(extra, None)
    fields = members.pop("value", None) if "value" in members else members.pop("fields", members)
    if not isinstance(fields, dict):
        raise ValueError("its fields are no object")
    if not isinstance(time_ms, int) or time_ms < 0:
        raise ValueError(f"its time is {time_ms!r}")
    key = str(key)
    return key if "/" in key else f"{NODE}/{key}", time_ms, fields
