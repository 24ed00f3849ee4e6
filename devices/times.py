"""A device's own time, in the forms that devices write it in, as milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from devices.profiles import TimestampSpec
from devices.reading import Undecodable

_PER_MS = {"ns": 1_000_000, "us": 1_000}
_INT64_MAX = 2**63 - 1


def milliseconds(claim: Any, spec: TimestampSpec, *, decoder: str = "json") -> int:
    """The claim by the profile's `[timestamp]`: numbers by `unit`, text by ISO 8601 or `format`.

    A text without a zone is in the profile's `zone`; of an hour that occurs twice it is the first. Raises
    `Undecodable`.
    """
    unit = spec.unit
    try:
        if unit == "iso8601":
            if type(claim) is str:
                return _moment(datetime.fromisoformat(claim), spec)
        elif unit == "text":
            if spec.format and type(claim) in (str, int, float):
                return _moment(datetime.strptime(str(claim), spec.format), spec)  # noqa: DTZ007 - _moment sees to it
        elif type(claim) is int or type(claim) is float:
            number = from_unit(claim, unit)
            if -_INT64_MAX <= number <= _INT64_MAX:
                return number
    except (ValueError, OverflowError):
        pass
    form = f"text like “{spec.format}”" if unit == "text" else unit
    raise Undecodable(f"timestamp “{spec.path}” should be {form} and holds {claim!r:.60}", decoder=decoder)


def from_unit(number: float, unit: str) -> int:
    """Milliseconds of a number of `s`, `ms`, `us` or `ns`. Raises `ValueError` or `OverflowError` for nan and inf."""
    if unit == "s":
        return number * 1000 if type(number) is int else round(number * 1000)
    if unit == "ms":
        return round(number)
    return int(number // _PER_MS[unit])  # `//` keeps an integer one: nanoseconds have 19 digits


def _moment(moment: datetime, spec: TimestampSpec) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(spec.zone) if spec.zone else UTC)
    return round(moment.timestamp() * 1000)
