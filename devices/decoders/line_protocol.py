"""InfluxDB line protocol to Readings: one line is one reading.

`measurement,tag=value field=1,other="text" 1465839830100400200`: the grammar and its escapes are those of
InfluxDB's reference (“Line protocol”: elements, data types and format, quotes, special characters). Without a
profile the device is the topic. Field paths are the field keys (`measurement.key` as well, where a profile lists
it), tags are text fields beside them; `options.device_tag` names the device by a tag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from devices.decoders.columns import floats, one_line_each
from devices.decoders.plans import PlanCache
from devices.options import LineProtocolOptions, read_options
from devices.profiles import Profile
from devices.reading import Reading, Undecodable, one_by_one
from devices.shape import READINGS_MAX, Shape
from devices.times import from_unit

DECODER = "line-protocol"
_BLANKS = re.compile(r"[ \t\r]+")
# A name or a tag's value: anything but the characters that end it, which a backslash before them makes ordinary. A
# line's end stays one: what a line is refused for does not depend on the lines behind it.
_MEASUREMENT = re.compile(r"(?:\\[^\n]|[^\\, \n])+")
_KEY = re.compile(r"(?:\\[^\n]|[^\\,= \n])+")
_STRING = re.compile(r'"((?:\\[\s\S]|[^"\\])*)"')
_BARE = re.compile(r"[^, \n]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_INTEGER = re.compile(r"([+-]?[0-9]{1,20})([iu])")
_TIME = re.compile(r"-?[0-9]{1,19}")
# Series, fields, and the timestamp if there is one, of a line without quotes and escapes.
_PLAIN_LINE = re.compile(r"^([^ \t#\n][^ \n]*) ([^ \n]+)(?: (-?[0-9]{1,19}))?$", re.MULTILINE)
_SEPARATORS = re.compile("([,=])")
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
_Line = tuple[str, dict[str, str], dict[str, Any], int | None]  # measurement, tags, fields, timestamp
_RANGES = {"i": (-(2**63), 2**63 - 1), "u": (0, 2**64 - 1)}


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, payload), in order: a reading per line, or why there are none."""
    return _plans.of(profile).decode(messages)


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        self._options = read_options(LineProtocolOptions, profile.options if profile is not None else {})
        self._shape = Shape(profile, DECODER)

    def decode(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
        found = self._by_columns(messages) if len(messages) > 1 else None
        return one_by_one(self._message, messages) if found is None else found

    def _by_columns(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable] | None:
        """The group at once, where each message is one plain line with the fields of the first; else None."""
        text = one_line_each([payload for _, payload in messages])
        if text is None or "\\" in text or '"' in text:
            return None
        lines = _PLAIN_LINE.findall(text)
        if len(lines) != len(messages):
            return None
        heads, fields, ends = zip(*lines, strict=True)
        pieces = list(map(_SEPARATORS.split, fields))
        names = pieces[0][0::4]
        between = ["=", ","] * len(names)
        if any(each[0::4] != names or each[1::2] != between[:-1] for each in pieces) or "" in names:
            return None
        try:
            return self._rows([topic for topic, _ in messages], heads, names, [each[2::4] for each in pieces], ends)
        except Undecodable:
            return None  # which message it is

    def _rows(
        self, topics: list[str], heads: Sequence[str], names: list[str], words: list[list[str]], ends: Sequence[str]
    ) -> list[list[Reading] | Undecodable] | None:
        series = {head: _quick_series(head) for head in set(heads)}
        stamps = [self._event_ms(int(end)) if end else None for end in ends]
        columns = [
            floats(cells) or [_value(word, name) for word in cells]
            for name, cells in zip(names, zip(*words, strict=True), strict=True)
        ]
        rows, devices = [], []
        for head, values in zip(heads, zip(*columns, strict=True), strict=True):
            if (named := series[head]) is None:
                return None
            row, device = self._values(*named, dict(zip(names, values, strict=True)))
            rows.append(row)
            devices.append(device)
        return [[one] for one in self._shape.readings(topics, rows, events_ms=stamps, devices=devices)]

    def _message(self, topic: str, payload: bytes) -> list[Reading]:
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            raise _undecodable(f"byte {error.start} is not UTF-8") from None
        readings: list[Reading] = []
        at, number = 0, 1
        is_plain = "\\" not in text and '"' not in text
        while at < len(text):
            if (blanks := _BLANKS.match(text, at)) is not None and blanks.end() > at:
                at = blanks.end()
                continue
            stop = len(text) if (found := text.find("\n", at)) < 0 else found
            if text[at] in "\n#":
                at, number = stop + 1, number + 1
                continue
            try:
                start, line = at, _quick_line(text[at:stop]) if is_plain else None
                if line is None:
                    at, line = _line(text, at)
                else:
                    at = stop + 1
                reading = self._reading(topic, *line)
            except Undecodable as error:
                raise _undecodable(f"line {number}: {error.reason}") from None
            number += text.count("\n", start, at)
            readings.append(reading)
            if len(readings) > READINGS_MAX:
                raise _undecodable(f"more than {READINGS_MAX} lines in one message")
        if not readings:
            raise _undecodable("the message is empty")
        return readings

    def _reading(
        self, topic: str, measurement: str, tags: dict[str, str], fields: dict[str, Any], stamp: int | None
    ) -> Reading:
        values, device = self._values(measurement, tags, fields)
        event_ms = None if stamp is None else self._event_ms(stamp)
        return self._shape.reading(topic, values, event_ms=event_ms, device=device, scalars=True)

    def _event_ms(self, stamp: int) -> int:
        return int(from_unit(stamp, self._options.precision))

    def _values(self, measurement: str, tags: dict[str, str], fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """A line's values by path, and its device if it names one."""
        options = self._options
        values = fields
        if options.prefix_measurement:
            values = {f"{measurement}.{name}": value for name, value in fields.items()}
        device = tags.get(options.device_tag, "") if options.device_tag else ""
        if options.device_tag and not device:
            raise _undecodable(f"no tag “{options.device_tag}”, which names the device")
        if options.tags:
            for name, text_value in tags.items():
                if name != options.device_tag:
                    values.setdefault(name, text_value)
        if self._shape.listed:
            values = {**{f"{measurement}.{name}": value for name, value in fields.items()}, **values}
        return values, device


def _quick_series(text: str) -> tuple[str, dict[str, str]] | None:
    """Measurement and tags without escapes; None when they are not as simple as that, or wrong."""
    measurement, *pairs = text.split(",")
    if not measurement:
        return None
    tags: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key or not value or "=" in value:
            return None
        tags[key] = value
    return measurement, tags


def _quick_line(line: str) -> _Line | None:
    """A line without quotes and escapes, which most are; None when it is not as simple as that, or wrong."""
    parts = line.rstrip("\r").split(" ")
    if not 2 <= len(parts) <= 3 or not all(parts):
        return None
    if (series := _quick_series(parts[0])) is None:
        return None
    measurement, tags = series
    fields: dict[str, Any] = {}
    for pair in parts[1].split(","):
        key, _, word = pair.partition("=")
        if not key or _FLOAT.fullmatch(word) is None or math.isinf(real := float(word)):
            if not key or not word or "=" in word or "\r" in word:
                return None
            fields[key] = _value(word, key)
        else:
            fields[key] = real
    if len(parts) == 3:
        return (measurement, tags, fields, int(parts[2])) if _TIME.fullmatch(parts[2]) else None
    return measurement, tags, fields, None


def _line(text: str, at: int) -> tuple[int, _Line]:
    """The line that begins at `at`, and where the next one does."""
    at, measurement, tags = _series(text, at)
    at, fields = _fields(text, at)
    at, stamp = _end(text, at)
    return at, (measurement, tags, fields, stamp)


def _series(text: str, at: int) -> tuple[int, str, dict[str, str]]:
    """Measurement and tag set, and the blank behind them."""
    found = _MEASUREMENT.match(text, at)
    if found is None:
        raise _undecodable("no measurement")
    measurement, at = _unescape(found[0], ", "), found.end()
    tags: dict[str, str] = {}
    while text[at : at + 1] == ",":
        key = _KEY.match(text, at + 1)
        if key is None or text[key.end() : key.end() + 1] != "=":
            raise _undecodable("a tag is key=value")
        value = _KEY.match(text, key.end() + 1)
        if value is None:
            raise _undecodable(f"tag “{key[0][:80]}” has no value")
        tags[_unescape(key[0], ",= ")] = _unescape(value[0], ",= ")
        at = value.end()
    if text[at : at + 1] != " ":
        raise _undecodable("no fields: a line is measurement,tags fields time")
    while text[at : at + 1] == " ":
        at += 1
    return at, measurement, tags


def _fields(text: str, at: int) -> tuple[int, dict[str, Any]]:
    fields: dict[str, Any] = {}
    while True:
        key = _KEY.match(text, at)
        if key is None or text[key.end() : key.end() + 1] != "=":
            raise _undecodable("a field is key=value")
        name, at = _unescape(key[0], ",= "), key.end() + 1
        if text[at : at + 1] == '"':
            found = _STRING.match(text, at)
            if found is None:
                raise _undecodable(f"the text of field “{name[:80]}” has no end")
            fields[name] = re.sub(r'\\(["\\])', r"\1", found[1])
        else:
            found = _BARE.match(text, at)
            fields[name] = _value(found[0].rstrip("\r") if found is not None else "", name)
            if found is None:
                raise _undecodable(f"field “{name[:80]}” has no value")
        at = found.end()
        if text[at : at + 1] != ",":
            return at, fields
        at += 1


def _value(word: str, name: str) -> int | float | bool:
    if (found := _INTEGER.fullmatch(word)) is not None:
        number, (least, most) = int(found[1]), _RANGES[found[2]]
        if not least <= number <= most:
            raise _undecodable(f"field “{name[:80]}”: {word} does not fit 64 bits")
        return number
    if _FLOAT.fullmatch(word):
        if not math.isfinite(real := float(word)):
            raise _undecodable(f"field “{name[:80]}”: {word[:40]} is too large")
        return real
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    raise _undecodable(f"field “{name[:80]}”: “{word[:40]}” is no number, boolean or text in quotes")


def _end(text: str, at: int) -> tuple[int, int | None]:
    """The timestamp, if there is one, and where the next line begins."""
    stop = len(text) if (found := text.find("\n", at)) < 0 else found
    word = text[at:stop].strip(" \r")
    if word and text[at] != " ":
        raise _undecodable(f"“{word[:40]}” after a field's value")
    if not word:
        return stop + 1, None
    if not _TIME.fullmatch(word):
        raise _undecodable(f"“{word[:40]}” is no timestamp")
    return stop + 1, int(word)


def _unescape(text: str, special: str) -> str:
    """A backslash before a special character is dropped; before any other it stands for itself."""
    return re.sub(rf"\\([{special}])", r"\1", text) if "\\" in text else text


def _undecodable(reason: str) -> Undecodable:
    return Undecodable(reason, decoder=DECODER)


_plans: PlanCache[_Plan] = PlanCache(_Plan)
