"""What stands where in the sentences of NMEA 0183 (version 4.1, section 8, approved sentences): one table.

A layout names a sentence's fields from its first one on; a reader takes one or two of them (a value and its unit, an
angle and its hemisphere) and gives the value in the unit that all sentences share: degrees, m/s, m, °C, hPa. Where a
sentence says one thing in several units (DBT: feet, metres, fathoms), what needs no conversion wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from devices.reading import Scalar, Undecodable
from devices.shape import broken_number, number_of

DECODER = "nmea0183"
Reader = Callable[[list[str], int, str], Scalar]  # (fields, where, what for): the value; None where nothing stands

METRES_PER_SECOND = {"K": 1 / 3.6, "M": 1.0, "N": 1852 / 3600}
METRES = {"M": 1.0, "f": 0.3048, "F": 1.8288, "N": 1852.0, "K": 1000.0}
HECTOPASCALS = {"B": 1000.0, "P": 0.01, "I": 33.8638866667}
_CELSIUS = {"C": 1.0}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")  # no exponents, and float() would take “nan”
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9]|60)(\.[0-9]+)?")
_COORDINATE = re.compile(r"([0-9]{2,3})([0-5][0-9](?:\.[0-9]*)?)")
_DECIMALS = 6  # a unit conversion must not invent digits: 1.02481 bar are 1024.81 hPa
_DEGREE_DECIMALS = 9


class Column(NamedTuple):
    """A value of a sentence. `is_exact`: it comes in the shared unit, and wins over an earlier one of its name."""

    name: str
    at: int
    read: Reader
    is_exact: bool


class Sentence(NamedTuple):
    """A kind of sentence: how many fields it has at least, and at most as far as they are known; what they say."""

    least: int
    width: int
    columns: tuple[Column, ...]


def undecodable(reason: str) -> Undecodable:
    """A sentence that is no reading."""
    return Undecodable(reason, decoder=DECODER)


def number(text: str, what: str) -> float:
    """The number that a field is. Raises `Undecodable`."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise undecodable(f"{what}: “{text[:20]}” is no number")
    return value


def converted(value: float, factor: float) -> float:
    """A number in another unit, without digits that nobody measured."""
    return value if factor == 1.0 else round(value * factor, _DECIMALS)


def of_unit(units: dict[str, float], text: str, unit: str, what: str) -> float:
    """A number and the letter of its unit. Raises `Undecodable`."""
    factor = units.get(unit)
    if factor is None:
        raise undecodable(f"{what} unit “{unit[:20]}” is none of {', '.join(units)}")
    return converted(number(text, what), factor)


def valid(status: str) -> None:
    """A status field. Raises `Undecodable` when the device itself does not trust what it says."""
    if status != "A":
        raise undecodable(f"the device says that its data is not valid (status {status or 'empty'})")


def plain(text: str) -> Scalar:
    """A field of a sentence that no table describes: a number where it reads as one, else the text; None if empty."""
    if not text:
        return None
    found = number_of(text)
    if found is None and (wrong := broken_number(text)):
        raise undecodable(wrong)
    return text if found is None else found


# --- readers


def _number(fields: list[str], at: int, what: str) -> Scalar:
    return number(fields[at], what) if fields[at] else None


def _whole(fields: list[str], at: int, what: str) -> Scalar:
    if not fields[at]:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", fields[at]):
        raise undecodable(f"{what}: “{fields[at][:20]}” is no whole number")
    return int(fields[at])


def _text(fields: list[str], at: int, what: str) -> Scalar:
    return fields[at] or None


def _of_unit(units: dict[str, float], fields: list[str], at: int, what: str) -> Scalar:
    return of_unit(units, fields[at], fields[at + 1], what) if fields[at] else None


def _lettered(letter: str, fields: list[str], at: int, what: str) -> Scalar:
    """A number with a letter behind it that says what kind of number it is (T true, M magnetic)."""
    if not fields[at]:
        return None
    if fields[at + 1] not in ("", letter):
        raise undecodable(f"{what} is marked “{fields[at + 1][:20]}” where {letter} stands")
    return number(fields[at], what)


def _signed(signs: dict[str, int], fields: list[str], at: int, what: str) -> Scalar:
    """A number and the side on which it lies."""
    if not fields[at]:
        return None
    sign = signs.get(fields[at + 1])
    if sign is None:
        raise undecodable(f"{what}: “{fields[at + 1][:20]}” is none of {', '.join(signs)}")
    return sign * number(fields[at], what)


def _coordinate(most: int, signs: dict[str, int], fields: list[str], at: int, what: str) -> Scalar:
    """`ddmm.mm` or `dddmm.mm` and the hemisphere, as degrees."""
    text = fields[at]
    if not text:
        return None
    found, sign = _COORDINATE.fullmatch(text), signs.get(fields[at + 1])
    if found is None or sign is None:
        raise undecodable(f"{what}: “{text[:20]},{fields[at + 1][:4]}” is no degrees, minutes and hemisphere")
    degrees = int(found[1]) + float(found[2]) / 60
    if degrees > most:
        raise undecodable(f"{what}: {text} is more than {most} degrees")
    return sign * round(degrees, _DEGREE_DECIMALS)


def _time(fields: list[str], at: int, what: str) -> Scalar:
    """`hhmmss.ss` as `hh:mm:ss.ss`."""
    if not fields[at]:
        return None
    found = _TIME.fullmatch(fields[at])
    if found is None:
        raise undecodable(f"{what}: “{fields[at][:20]}” is no time of day (hhmmss)")
    return f"{found[1]}:{found[2]}:{found[3]}{found[4] or ''}"


def _moment(day: str, month: str, year: str, fields: list[str], what: str) -> Scalar:
    """ISO 8601, of a date and the time of day in the first field."""
    time = _time(fields, 0, what)
    if time is None or not (day and month and year):
        return None
    if not (re.fullmatch("0[1-9]|[12][0-9]|3[01]", day) and re.fullmatch("0[1-9]|1[0-2]", month) and year.isdecimal()):
        raise undecodable(f"{what}: day {day[:4]}, month {month[:4]}, year {year[:8]} is no date")
    return f"{year}-{month}-{day}T{time}Z"


def _dated(fields: list[str], at: int, what: str) -> Scalar:
    """RMC's `ddmmyy`; GPS began in 1980."""
    date = fields[at]
    if date and not re.fullmatch("[0-9]{6}", date):
        raise undecodable(f"{what}: “{date[:20]}” is no date (ddmmyy)")
    return _moment(date[:2], date[2:4], date and f"{19 if date[4:] >= '80' else 20}{date[4:]}", fields, what)


def _calendar(fields: list[str], at: int, what: str) -> Scalar:
    """ZDA's day, month and year of four digits."""
    return _moment(fields[at], fields[at + 1], fields[at + 2], fields, what)


def _status(fields: list[str], at: int, what: str) -> Scalar:
    valid(fields[at])
    return None


def _fix(fields: list[str], at: int, what: str) -> Scalar:
    """GGA's quality: 0 is no fix."""
    if fields[at] == "0":
        raise undecodable("the device says that it has no fix (quality 0)")
    return _whole(fields, at, what)


def _mode(fields: list[str], at: int, what: str) -> Scalar:
    """The mode indicator: N alone is no fix."""
    if fields[at] and not fields[at].strip("N"):
        raise undecodable(f"the device says that its data is not valid (mode {fields[at][:4]})")
    return fields[at] or None


def _rudder(fields: list[str], at: int, what: str) -> Scalar:
    """An angle that counts only when its own status says so: a boat with one rudder has one sensor."""
    return number(fields[at], what) if fields[at] and fields[at + 1] == "A" else None


# --- the table

_Part = tuple[str, Reader, int]  # name ("": it says nothing by itself), reader, how many fields it takes
_speed = partial(_of_unit, METRES_PER_SECOND)
_metres = partial(_of_unit, METRES)
_pressure = partial(_of_unit, HECTOPASCALS)
_celsius = partial(_of_unit, _CELSIUS)
_true, _magnetic = partial(_lettered, "T"), partial(_lettered, "M")
_east = partial(_signed, {"E": 1, "W": -1})
_starboard = partial(_signed, {"R": 1, "L": -1})
_latitude: _Part = ("latitude", partial(_coordinate, 90, {"N": 1, "S": -1}), 2)
_longitude: _Part = ("longitude", partial(_coordinate, 180, {"E": 1, "W": -1}), 2)
_clock: _Part = ("time", _time, 1)
_KNOTS_M_KM: tuple[_Part, ...] = (("speed", _speed, 2), ("speed", _speed, 2), ("speed", _speed, 2))
_DEPTH: tuple[_Part, ...] = (("depth", _metres, 2), ("depth", _metres, 2), ("depth", _metres, 2))


def _sentence(least: int, *parts: _Part, exact: tuple[int, ...] = ()) -> Sentence:
    """A layout; `exact`: which fields, counted from 0, are in the shared unit and win."""
    columns, at = [], 0
    for name, read, width in parts:
        if read is not _skipped:
            columns.append(Column(name, at, read, at in exact))
        at += width
    return Sentence(least, at, tuple(columns))


def _skipped(fields: list[str], at: int, what: str) -> Scalar:
    return None


SENTENCES: dict[str, Sentence] = {
    "DBK": _sentence(6, *_DEPTH, exact=(2,)),
    "DBS": _sentence(6, *_DEPTH, exact=(2,)),
    "DBT": _sentence(6, *_DEPTH, exact=(2,)),
    "DPT": _sentence(1, ("depth", _number, 1), ("offset", _number, 1), ("range", _number, 1)),
    "GGA": _sentence(
        9,
        _clock,
        _latitude,
        _longitude,
        ("quality", _fix, 1),
        ("satellites", _whole, 1),
        ("hdop", _number, 1),
        ("altitude", _metres, 2),
        ("geoid_separation", _metres, 2),
        ("correction_age", _number, 1),
        ("station", _text, 1),
    ),
    "GLL": _sentence(4, _latitude, _longitude, _clock, ("", _status, 1), ("mode", _mode, 1)),
    "GNS": _sentence(
        9,
        _clock,
        _latitude,
        _longitude,
        ("mode", _mode, 1),
        ("satellites", _whole, 1),
        ("hdop", _number, 1),
        ("altitude", _number, 1),
        ("geoid_separation", _number, 1),
        ("correction_age", _number, 1),
        ("station", _text, 1),
    ),
    "GSA": _sentence(
        17,
        ("selection", _text, 1),
        ("fix", _whole, 1),
        ("", _skipped, 12),
        ("pdop", _number, 1),
        ("hdop", _number, 1),
        ("vdop", _number, 1),
    ),
    "HDG": _sentence(1, ("heading", _number, 1), ("deviation", _east, 2), ("variation", _east, 2)),
    "HDM": _sentence(1, ("heading", _magnetic, 2)),
    "HDT": _sentence(1, ("heading", _true, 2)),
    "MDA": _sentence(
        20,
        ("pressure", _pressure, 2),
        ("pressure", _pressure, 2),
        ("air_temperature", _celsius, 2),
        ("water_temperature", _celsius, 2),
        ("humidity", _number, 1),
        ("absolute_humidity", _number, 1),
        ("dew_point", _celsius, 2),
        ("wind_direction", _true, 2),
        ("wind_direction_magnetic", _magnetic, 2),
        ("wind_speed", _speed, 2),
        ("wind_speed", _speed, 2),
        exact=(2, 18),
    ),
    "MTW": _sentence(2, ("temperature", _celsius, 2)),
    "MWD": _sentence(
        8,
        ("direction", _true, 2),
        ("direction_magnetic", _magnetic, 2),
        ("speed", _speed, 2),
        ("speed", _speed, 2),
        exact=(6,),
    ),
    "RMC": _sentence(
        9,
        _clock,
        ("", _status, 1),
        _latitude,
        _longitude,
        (
            "speed",
            lambda fields, at, what: of_unit(METRES_PER_SECOND, fields[at], "N", what) if fields[at] else None,
            1,
        ),
        ("course", _number, 1),
        ("datetime", _dated, 1),
        ("variation", _east, 2),
        ("mode", _mode, 1),
    ),
    "ROT": _sentence(2, ("rate", _number, 1), ("", _status, 1)),
    "RSA": _sentence(2, ("starboard", _rudder, 2), ("port", _rudder, 2)),
    "VHW": _sentence(
        8, ("heading", _true, 2), ("heading_magnetic", _magnetic, 2), ("speed", _speed, 2), ("speed", _speed, 2)
    ),
    "VLW": _sentence(
        4, ("total", _metres, 2), ("trip", _metres, 2), ("ground_total", _metres, 2), ("ground_trip", _metres, 2)
    ),
    "VTG": _sentence(
        8,
        ("course", _true, 2),
        ("course_magnetic", _magnetic, 2),
        ("speed", _speed, 2),
        ("speed", _speed, 2),
        ("mode", _mode, 1),
    ),
    "VWR": _sentence(8, ("angle", _starboard, 2), *_KNOTS_M_KM, exact=(4,)),
    "VWT": _sentence(8, ("angle", _starboard, 2), *_KNOTS_M_KM, exact=(4,)),
    "ZDA": _sentence(4, _clock, ("datetime", _calendar, 3), ("zone_hours", _whole, 1), ("zone_minutes", _whole, 1)),
}
"""By formatter. MWV and XDR, whose names depend on what they hold, are read in `nmea`."""


def value_names(formatter: str) -> list[str]:
    """What a profile may ask of a sentence; nothing for one that is not described, or whose device names its values."""
    if formatter == "MWV":
        return ["angle", "speed", "R.angle", "R.speed", "T.angle", "T.speed"]
    sentence = SENTENCES.get(formatter)
    return list(dict.fromkeys(one.name for one in sentence.columns if one.name)) if sentence is not None else []
