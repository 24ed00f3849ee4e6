"""NMEA 0183 sentences to Readings: wind, weather, depth, speed, heading and position.

A sentence is `$ttsss,field,field*hh`: talker, formatter, fields, and as checksum the exclusive or of every byte between
`$` and `*` (NMEA 0183, section 5.3). Values reach a profile's fields by these paths:

`RMC.latitude`, `DBT.depth` …     a value of a sentence that `nmea_sentences` describes, by its name
`MWV.angle`, `MWV.speed`          wind angle and speed, whatever the reference
`MWV.R.angle`, `MWV.T.speed` …    only of sentences with this reference: R relative, T theoretical (true)
`XDR.NAME`                        the transducer of this name; one that has no name goes by its type letter, `XDR.C`
`GSV.3`, `PGRMZ.1`                a sentence's field by its number, from 1 on: of any sentence, proprietary ones too,
                                  but XDR, whose transducers may be called so
`IIMWV.speed`                     with the talker before the formatter: only of this talker
`datetime`, `talker`              the moment that RMC or ZDA states, as ISO 8601; the talker's two letters

One sentence is one Reading, and a message may be several lines of them; without `[fields]` every value in a described
sentence becomes a field under its path. `options.sentences` are the kinds to read: others say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import xor
from typing import NamedTuple

from devices.decoders.nmea_sentences import (
    DECODER,
    HECTOPASCALS,
    METRES_PER_SECOND,
    SENTENCES,
    Column,
    Sentence,
    converted,
    number,
    of_unit,
    plain,
    undecodable,
    valid,
)
from devices.decoders.plans import PlanCache
from devices.options import NmeaOptions, read_options
from devices.profiles import Profile
from devices.reading import Reading, Scalar, Undecodable
from devices.shape import READINGS_MAX, Shape

_ADDRESS = re.compile(r"P[A-Z0-9]{2,14}|[A-Z0-9]{5}")  # a proprietary one names its maker and what it likes
_POSITION = re.compile(r"[1-9][0-9]{0,2}")
_ADDRESSES_MAX = 256
_FOLDED_BYTES_MAX = 256
_NO_SENTENCE = Sentence(0, 0, ())

Value = tuple[tuple[str, ...], Scalar]  # the paths that name it, most general last


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic or port, sentences), in order: readings, or why there are none."""
    return _plans.of(profile).decode(messages)


class _Kind(NamedTuple):
    """What an address (`GPRMC`) means under a profile."""

    formatter: str
    sentence: Sentence
    special: Callable[[list[str]], Iterator[Value]] | None
    columns: tuple[Column, ...]
    """Those that some path of the profile names; all, where it lists no fields."""
    aliases: dict[str, list[str]]
    """The path of a value → the profile's own paths for it."""
    positions: list[tuple[str, int]]
    """The profile's path → which field, from 0."""


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        options = read_options(NmeaOptions, profile.options if profile is not None else {})
        self._optional = options.checksum == "optional"
        self._only = frozenset(options.sentences)
        self._shape = Shape(profile, DECODER)
        self._kinds: dict[str, _Kind] = {}

    def decode(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
        stripped = [data.rstrip(b"\r\n") for _, data in messages]
        sums = checksums([data[1:].partition(b"*")[0] for data in stripped])
        results: list[list[Reading] | Undecodable] = []
        for (topic, _), data, checksum in zip(messages, stripped, sums, strict=True):
            try:
                if b"\n" in data:
                    results.append(self._several(topic, data))
                else:
                    results.append(self._readings(topic, data, checksum))
            except Undecodable as error:
                results.append(error)
        return results

    def _several(self, topic: str, data: bytes) -> list[Reading]:
        """A message of many sentences: refused whole for one, because half a message stored would be a silent loss."""
        readings: list[Reading] = []
        lines = data.splitlines()
        if len(lines) > READINGS_MAX:
            raise undecodable(f"more than {READINGS_MAX} lines in one message")
        for line_number, line in enumerate(lines, start=1):
            if line:
                try:
                    readings += self._readings(topic, line, reduce(xor, line[1:].partition(b"*")[0], 0))
                except Undecodable as error:
                    raise undecodable(f"line {line_number}: {error.reason}") from None
        return readings

    def _readings(self, topic: str, data: bytes, checksum: int) -> list[Reading]:
        """None for a sentence of a kind that the profile does not want."""
        address, *fields = self._checked_body(data, checksum).split(",")
        kind = self._kinds.get(address) or self._prepare(address)
        if self._only and kind.formatter not in self._only:
            return []
        values = self._values(address, kind, fields)
        if not values:
            everything = dict(self._all(kind, fields))
            if not everything:
                raise undecodable(f"{kind.formatter} holds no value")
            return [self._shape.reading(topic, everything)]  # which says what is there instead
        return [self._shape.reading(topic, values)]

    def _checked_body(self, data: bytes, checksum: int) -> str:
        """What stands between `$` and `*`, once the checksum is found right."""
        if data[:1] not in (b"$", b"!"):
            raise undecodable("a sentence begins with $")
        body, star, claimed = data[1:].partition(b"*")
        if star:
            if not re.fullmatch(rb"[0-9A-Fa-f]{2}", claimed):
                raise undecodable("two hexadecimal digits must follow the *")
            if checksum != int(claimed, 16):
                raise undecodable(f"the checksum is {checksum:02X}, the sentence says {claimed.decode().upper()}")
        elif not self._optional:
            raise undecodable("no checksum")
        try:
            return body.decode("ascii")
        except UnicodeDecodeError as error:
            raise undecodable(f"byte {error.start + 1} is not ASCII") from None

    def _prepare(self, address: str) -> _Kind:
        if not _ADDRESS.fullmatch(address):
            raise undecodable(f"“{address[:20]}” is no talker and formatter")
        formatter = address if address[0] == "P" else address[2:]
        sentence = SENTENCES.get(formatter, _NO_SENTENCE)
        special = _SPECIAL.get(formatter)
        aliases: dict[str, list[str]] = {}
        positions: list[tuple[str, int]] = []
        for path in dict.fromkeys(self._shape.paths):
            head, _, rest = path.partition(".")
            if rest and head in (formatter, address):
                if _POSITION.fullmatch(rest) and formatter != "XDR":  # a transducer may be called 1
                    positions.append((path, int(rest) - 1))
                else:
                    aliases.setdefault(f"{formatter}.{rest}", []).append(path)
            elif path == "datetime":
                aliases.setdefault(f"{formatter}.datetime", []).append(path)
        is_wanted = not self._only or formatter in self._only
        if is_wanted and special is None and sentence is _NO_SENTENCE and not positions:
            raise undecodable(
                f"sentences of kind {formatter} are not known: name their fields by number in a profile "
                f"(path = “{formatter}.1”)"
            )
        columns = sentence.columns
        if self._shape.listed:
            columns = tuple(one for one in columns if not one.name or f"{formatter}.{one.name}" in aliases)
        kind = _Kind(formatter, sentence, special, columns, aliases, positions)
        if len(self._kinds) >= _ADDRESSES_MAX:
            self._kinds.clear()
        self._kinds[address] = kind
        return kind

    def _values(self, address: str, kind: _Kind, fields: list[str]) -> dict[str, Scalar]:
        """The values that matter, by the profile's paths; by their own where it lists no fields."""
        listed, aliases = self._shape.listed, kind.aliases
        values: dict[str, Scalar] = {}
        for paths, value in kind.special(fields) if kind.special is not None else _columns(kind, kind.columns, fields):
            if not listed:
                values[paths[0]] = value
            for path in paths:
                for alias in aliases.get(path, ()):
                    values[alias] = value
        for path, at in kind.positions:
            if at < len(fields) and (found := plain(fields[at])) is not None:
                values[path] = found
        if values and "talker" in self._shape.paths:
            values["talker"] = address[:2]
        return values

    def _all(self, kind: _Kind, fields: list[str]) -> Iterator[tuple[str, Scalar]]:
        for paths, value in kind.special(fields) if kind.special else _columns(kind, kind.sentence.columns, fields):
            yield paths[0], value


def _columns(kind: _Kind, columns: Sequence[Column], fields: list[str]) -> Iterator[Value]:
    formatter, sentence = kind.formatter, kind.sentence
    if len(fields) < sentence.least:
        raise undecodable(f"{formatter} has {sentence.least} fields or more, not {len(fields)}")
    fields = fields + [""] * (sentence.width - len(fields))
    found: dict[str, Scalar] = {}
    for name, at, read, is_exact in columns:
        if name in found and not is_exact:
            continue
        if (value := read(fields, at, f"{formatter}.{name}")) is not None:
            found[name] = value
    for name, value in found.items():
        yield (f"{formatter}.{name}",), value


def checksums(bodies: Sequence[bytes]) -> Sequence[int]:
    """The exclusive or of each one's bytes, of all at once: side by side they are one long number, folded in halves."""
    longest = max(map(len, bodies), default=0)
    if longest > _FOLDED_BYTES_MAX:
        return [reduce(xor, body, 0) for body in bodies]
    width = 1 << max(longest - 1, 0).bit_length()
    folded = int.from_bytes(b"".join([body.ljust(width, b"\0") for body in bodies]), "big")
    bits = width * 8 // 2
    while bits >= 8:
        folded ^= folded >> bits  # only the last byte of each body is clean in the end
        bits //= 2
    return folded.to_bytes(width * len(bodies), "big")[width - 1 :: width]


def _wind(fields: list[str]) -> Iterator[Value]:
    """MWV: angle, reference, speed, speed unit, status."""
    if len(fields) < 5:
        raise undecodable(f"MWV has 5 fields, not {len(fields)}")
    angle, reference, speed, unit, status, *_ = fields
    valid(status)
    if reference not in ("R", "T"):
        raise undecodable(f"MWV reference “{reference[:20]}” is neither R nor T")
    if angle:
        degrees = number(angle, "wind angle")
        if not 0 <= degrees <= 360:
            raise undecodable(f"wind angle {angle} is not between 0 and 360 degrees")
        yield (f"MWV.{reference}.angle", "MWV.angle"), degrees % 360
    if speed:
        metres = of_unit(METRES_PER_SECOND, speed, unit, "MWV speed")
        if metres < 0:
            raise undecodable(f"wind speed {speed} is negative")
        yield (f"MWV.{reference}.speed", "MWV.speed"), metres


def _transducers(fields: list[str]) -> Iterator[Value]:
    """XDR: one or more of type, value, unit, name; a transducer with nothing to say has an empty value."""
    if len(fields) % 4 == 1 and not fields[-1]:
        fields = fields[:-1]  # Airmar's weather stations end a sentence with a comma of their own
    if len(fields) < 4 or len(fields) % 4:
        raise undecodable(f"XDR has its fields in fours, not {len(fields)}")
    for kind, text, unit, name in zip(*(iter(fields),) * 4, strict=True):
        if not text:
            continue
        value = number(text, f"transducer {name or kind}")
        if kind == "P":
            if unit not in ("B", "P"):
                raise undecodable(f"pressure unit “{unit[:20]}” of transducer {name or kind} is neither B nor P")
            value = converted(value, HECTOPASCALS[unit])
        yield (f"XDR.{name or kind}",), value


_SPECIAL: dict[str, Callable[[list[str]], Iterator[Value]]] = {"MWV": _wind, "XDR": _transducers}
_plans: PlanCache[_Plan] = PlanCache(_Plan)
