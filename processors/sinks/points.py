"""Readings and aggregates as InfluxDB line protocol: one record, one line.

A point's identity is measurement, tags and time, and all of them follow from the record alone: written again it
replaces itself, and a window's later revision replaces the earlier one. Escaping, order and numbers are those of
influxdb-client's own `Point.to_line_protocol` (InfluxDB reference, “Line protocol”); times are milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.consume.reader import Block
from headwater.errors import UNREADABLE
from processors.results import ToldResult
from processors.sinks.settings import InfluxSettings

SERIES_MAX = 50_000
"""Series heads and field names that are remembered; past it they are made anew each time."""
TIME_FIELD = "time_"
"""InfluxDB takes no field called `time`."""
_NAME = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\=", "\n": r"\n", "\t": r"\t", "\r": r"\r"})
_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ ", "\n": r"\n", "\t": r"\t", "\r": r"\r"})
_TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})
_INTEGER_MAX = (1 << 63) - 1

Pairs = list[tuple[str, str]]
"""A line's fields in its order: name and value, both as they stand in the line."""


class Unfit(Exception):  # noqa: N818 - a verdict on one record, not a failure
    """This record cannot be a point; says why."""


class _Result(ToldResult):
    """And which shift it is of, and where a session has gone that was joined to another."""

    shift: str = ""
    merged_into: int | None = None


class Line(NamedTuple):
    """A record as a point. `series` is measurement and tags; `time_ms` the point's time."""

    series: str
    fields: Pairs
    time_ms: int

    def text(self, without: frozenset[str] = frozenset()) -> str:
        """The line; "" when no field is left."""
        kept = [f"{name}={value}" for name, value in self.fields if name not in without]
        return f"{self.series} {','.join(kept)} {self.time_ms}" if kept else ""

    @property
    def measurement(self) -> str:
        """Escaped, as in the line."""
        end = 0
        while (end := self.series.find(",", end)) > 0 and self.series[end - 1] == "\\":
            end += 1
        return self.series if end < 0 else self.series[:end]


class Mapper:
    """Blocks to lines, by the settings' names."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._settings = settings
        self._typed = settings.numbers == "typed"
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self._decode_result = msgspec.json.Decoder(_Result).decode
        self._series: dict[tuple[str, ...], str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._escaped: dict[str, str] = {}
        self.left_out = 0
        """Members that no point can hold: lists, numbers beyond a float."""

    def lines(self, block: Block, first: int, end: int) -> Iterator[Line | Unfit | None]:
        """A line for each of the block's records from index `first` on; None for a record that says nothing."""
        make = self._aggregate if block.topic == "aggregates" else self._reading
        for at in range(first, end):
            try:
                yield make(block, at)
            except Unfit as unfit:
                yield unfit

    def _reading(self, block: Block, at: int) -> Line | None:
        node, slash, device = _text(block.keys[at]).partition("/")
        if not slash:
            raise Unfit("the key is not <node>/<device>")
        try:
            value = self._decode(block.values[at] or b"")
        except UNREADABLE as error:
            raise Unfit(f"the value is no JSON object: {error}") from None
        fields: dict[str, str] = {}
        for name, item in _flat(value, "."):
            self._put(fields, self._settings.readings_field, name, "", item)
        if not fields:
            return None
        return Line(self._head("readings", node, device), self._pairs(fields), block.timestamps[at])

    def _aggregate(self, block: Block, at: int) -> Line | None:
        data = block.values[at]
        if data is None:
            return None  # a tombstone of a compacted topic
        try:
            result = self._decode_result(data)
        except UNREADABLE as error:
            raise Unfit(f"the value is no aggregate: {error}") from None
        fields: dict[str, str] = {}
        nulls = []
        for name, kinds in result.fields.items():
            for kind, item in _flat(kinds, "_"):
                before = len(fields)
                self._put(fields, self._settings.aggregates_field, name, kind, item)
                if len(fields) == before:
                    nulls.append(f"{name}.{kind}")
        # A point cannot lose a field: a revision must say which of the earlier ones' fields it has none of.
        if nulls or result.revision:
            fields["nulls"] = _rendered(",".join(nulls), typed=True)
        fields |= {"revision": f"{result.revision}i", "count": f"{result.count}i", "end": f"{result.end}i"}
        fields |= {"complete": _rendered(result.complete, typed=True), "cause": _rendered(result.cause, typed=True)}
        if result.merged_into is not None:
            fields["merged_into"] = f"{result.merged_into}i"
        node, slash, device = result.group.partition("/")
        head = self._head("aggregates", node if slash else "", device if slash else node, result.rule, result.shift)
        time_ms = result.start if self._settings.aggregates_time == "start" else result.end
        return Line(head, self._pairs(fields), time_ms)

    def _put(self, fields: dict[str, str], template: str, name: str, kind: str, item: Any) -> None:
        if item is None:
            return
        rendered = _rendered(item, typed=self._typed)
        known = self._names.get((name, kind))
        if known is None:
            known = template.format(field=name, aggregate=kind)
            known = TIME_FIELD if known == "time" else known
            if len(self._names) < SERIES_MAX:
                self._names[name, kind] = known
        if rendered and known:
            fields[known] = rendered
        else:
            self.left_out += 1

    def _pairs(self, fields: dict[str, str]) -> Pairs:
        escaped = self._escaped
        pairs = []
        for name, value in sorted(fields.items()):
            known = escaped.get(name)
            if known is None:
                known = name.translate(_NAME)
                if len(escaped) < SERIES_MAX:
                    escaped[name] = known
            pairs.append((known, value))
        return pairs

    def _head(self, topic: str, *of: str) -> str:
        found = self._series.get((topic, *of))
        if found is None:
            found = self._new_head(topic, dict(zip(("node", "device", "rule", "shift"), of, strict=False)))
            if len(self._series) < SERIES_MAX:
                self._series[(topic, *of)] = found
        return found

    def _new_head(self, topic: str, names: dict[str, str]) -> str:
        settings = self._settings
        readings = topic == "readings"
        measurement = settings.readings_measurement if readings else settings.aggregates_measurement
        tags = settings.readings_tags if readings else settings.aggregates_tags
        head = measurement.format(**names).translate(_MEASUREMENT)
        if not head or head[0] == "#":
            raise Unfit(f"“{head}” cannot name a measurement")
        for name, template in sorted(tags.items()):
            value = template.format(**names).translate(_NAME)
            if value.endswith("\\"):
                value += " "  # as influxdb-client: it would escape what follows
            if value:
                head += f",{name.translate(_NAME)}={value}"
        return head


def type_of(value: str) -> str:
    """The type of a field's value as it stands in a line, in InfluxDB's words."""
    if value[0] == '"':
        return "string"
    if value[0] in "tf":
        return "boolean"
    return {"i": "integer", "u": "unsigned"}.get(value[-1], "float")


def _rendered(item: Any, *, typed: bool) -> str:
    """A field's value, "" for what no field can hold."""
    kind = type(item)
    if kind is float:
        if not math.isfinite(item):
            return ""
        text = str(item)
        return text[:-2] if text.endswith(".0") else text
    if kind is bool:
        return "true" if item else "false"
    if kind is int:
        if typed:
            return f"{item}i" if -_INTEGER_MAX <= item <= _INTEGER_MAX else ""
        return str(item) if abs(item) < 1 << 1023 else ""
    if kind is str:
        return f'"{item.translate(_TEXT)}"'
    return ""


def _flat(value: dict[str, Any], joint: str) -> Iterator[tuple[str, Any]]:
    """An object's members; those of objects in it under joined names."""
    waiting = list(reversed(value.items()))
    while waiting:
        name, item = waiting.pop()
        if type(item) is dict:
            waiting.extend((f"{name}{joint}{inner}", one) for inner, one in reversed(item.items()))
        else:
            yield name, item


def _text(data: bytes | None) -> str:
    try:
        return (data or b"").decode()
    except UnicodeDecodeError:
        raise Unfit("the key is not UTF-8") from None
