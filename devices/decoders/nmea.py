"""NMEA 0183 sentences to Readings: wind (MWV) and transducers (XDR), as weather stations and met masts send them.

A sentence is `$ttsss,field,field*hh`: talker, formatter, fields, and as checksum the exclusive or of every byte between
`$` and `*` (NMEA 0183, section 5.3). Values reach a profile's fields by these paths:

`MWV.angle`, `MWV.speed`          wind angle in degrees and speed in m/s, whatever its reference
`MWV.R.angle`, `MWV.T.speed` …    only of sentences with this reference: R relative, T theoretical (true)
`XDR.NAME`                        the transducer of this name; one that has no name goes by its type letter, `XDR.C`

Units are made one: speeds in m/s (K km/h, M m/s, N knots), pressures in hPa (B bar, P pascal); the others stay as the
standard has them (C degrees Celsius, P percent, D degrees, …). One sentence is one Reading; without `[fields]` every
value in it becomes a field under its path. The profile's `options.checksum = "optional"` takes in sentences that carry
none; one that is wrong is never taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from devices.profiles import Profile, scaled
from devices.reading import Reading, Scalar, Undecodable

DECODER = "nmea0183"
METRES_PER_SECOND = {"K": 1 / 3.6, "M": 1.0, "N": 1852 / 3600}  # MWV, speed units
HECTOPASCALS = {"B": 1000.0, "P": 0.01}  # XDR of type P (pressure)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")  # NMEA 0183 knows no exponents, and float() would take “nan”
_DECIMALS = 6  # a unit conversion must not invent digits: 1.02481 bar are 1024.81 hPa

Value = tuple[tuple[str, ...], float]  # the paths that name it, most general last, and the number


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (port name, sentence), in order: a reading, or why there is none."""
    optional = profile is not None and profile.options.get("checksum") == "optional"
    results: list[list[Reading] | Undecodable] = []
    for source, data in messages:
        device = profile.device if profile is not None and profile.device else source
        try:
            formatter, values = parse_sentence(data, checksum_required=not optional)
            fields = _fields(profile, formatter, list(values))
        except Undecodable as error:
            results.append(error)
        else:
            results.append([Reading(device, fields)])
    return results


def parse_sentence(data: bytes, *, checksum_required: bool = True) -> tuple[str, Iterator[Value]]:
    """A sentence's formatter (`MWV`) and its values. Raises `Undecodable`, the values' iterator too."""
    body = _checked_body(data, checksum_required=checksum_required)
    address, *fields = body.split(",")
    formatter = address[2:]
    if not re.fullmatch(r"[A-Z0-9]{5}", address):
        raise _undecodable(f"“{address[:20]}” is no talker and formatter")
    if formatter == "MWV":
        return formatter, _wind(fields)
    if formatter == "XDR":
        return formatter, _transducers(fields)
    raise _undecodable(f"sentences of kind {formatter} are not read (MWV and XDR are)")


def _checked_body(data: bytes, *, checksum_required: bool) -> str:
    """What stands between `$` and `*`, once the checksum is found right."""
    if data[:1] != b"$":
        raise _undecodable("a sentence begins with $")
    body, star, claimed = data[1:].partition(b"*")
    if star:
        if not re.fullmatch(rb"[0-9A-Fa-f]{2}", claimed):
            raise _undecodable("two hexadecimal digits must follow the *")
        checksum = 0
        for byte in body:
            checksum ^= byte
        if checksum != int(claimed, 16):
            raise _undecodable(f"the checksum is {checksum:02X}, the sentence says {claimed.decode().upper()}")
    elif checksum_required:
        raise _undecodable("no checksum")
    try:
        return body.decode("ascii")
    except UnicodeDecodeError as error:
        raise _undecodable(f"byte {error.start + 1} is not ASCII") from None


def _wind(fields: list[str]) -> Iterator[Value]:
    """MWV: angle, reference, speed, speed unit, status."""
    if len(fields) != 5:
        raise _undecodable(f"MWV has 5 fields, not {len(fields)}")
    angle, reference, speed, unit, status = fields
    if status != "A":
        raise _undecodable(f"the device says that its data is not valid (status {status or 'empty'})")
    if reference not in ("R", "T"):
        raise _undecodable(f"MWV reference “{reference[:20]}” is neither R nor T")
    if angle:
        degrees = _number(angle, "wind angle")
        if not 0 <= degrees <= 360:
            raise _undecodable(f"wind angle {angle} is not between 0 and 360 degrees")
        yield (f"MWV.{reference}.angle", "MWV.angle"), degrees % 360
    if speed:
        if unit not in METRES_PER_SECOND:
            raise _undecodable(f"MWV speed unit “{unit[:20]}” is none of K, M, N")
        metres = _number(speed, "wind speed")
        if metres < 0:
            raise _undecodable(f"wind speed {speed} is negative")
        yield (f"MWV.{reference}.speed", "MWV.speed"), _scaled(metres, METRES_PER_SECOND[unit])


def _transducers(fields: list[str]) -> Iterator[Value]:
    """XDR: one or more of type, value, unit, name; a transducer with nothing to say has an empty value."""
    if len(fields) % 4 == 1 and not fields[-1]:
        fields = fields[:-1]  # Airmar's weather stations end a sentence with a comma of their own
    if len(fields) < 4 or len(fields) % 4:
        raise _undecodable(f"XDR has its fields in fours, not {len(fields)}")
    for kind, value, unit, name in zip(*(iter(fields),) * 4, strict=True):
        if not value:
            continue
        number = _number(value, f"transducer {name or kind}")
        if kind == "P":
            if unit not in HECTOPASCALS:
                raise _undecodable(f"pressure unit “{unit[:20]}” of transducer {name or kind} is neither B nor P")
            number = _scaled(number, HECTOPASCALS[unit])
        yield (f"XDR.{name or kind}",), number


def _number(text: str, what: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        raise _undecodable(f"{what}: “{text[:20]}” is no number")
    return number


def _scaled(number: float, factor: float) -> float:
    return number if factor == 1.0 else round(number * factor, _DECIMALS)


def _fields(profile: Profile | None, formatter: str, values: list[Value]) -> dict[str, Scalar]:
    """The profile's fields that this sentence holds. Raises `Undecodable` when there are none."""
    if not values:
        raise _undecodable(f"{formatter} holds no value")
    if profile is None or not profile.fields:
        return {paths[0]: number for paths, number in values}
    by_path = {path: number for paths, number in values for path in paths}
    fields: dict[str, Scalar] = {}
    for name, spec in profile.fields.items():
        number = by_path.get(spec.path or name)
        if number is not None:
            plain = spec.scale == 1.0 and spec.offset == 0.0
            fields[name] = number if plain else scaled(number, spec.scale, spec.offset)
    if not fields:
        found = ", ".join(paths[0] for paths, _ in values)
        raise _undecodable(f"profile {profile.name} names none of {found[:200]}")
    return fields


def _undecodable(reason: str) -> Undecodable:
    return Undecodable(reason, decoder=DECODER)
