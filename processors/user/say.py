"""Values that users' code emits, as bytes and as what a test compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order=None)
TIME_MAX_MS = 1 << 52


def encode_value(value: Any) -> bytes:
    """A JSON object; NaN and infinity become null. Raises `TypeError` for what is none."""
    if not (isinstance(value, Mapping | msgspec.Struct) or (dataclasses.is_dataclass(value) and _is_instance(value))):
        raise TypeError(f"emit takes a dict of fields, not {type(value).__name__}")
    return _ENCODER.encode(value if type(value) is dict else _plain(value))


def _is_instance(value: Any) -> bool:
    return not isinstance(value, type)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def encode_any(value: Any) -> bytes:
    """As `encode_value`, with NumPy's numbers taken as Python's own."""
    try:
        return encode_value(value)
    except TypeError:
        if not isinstance(value, Mapping):
            raise
        return encode_value({name: _python(one) for name, one in value.items()})


def _python(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value


def event_time(time_ms: Any) -> int:
    """Raises `TypeError`, `ValueError` for what is no time in milliseconds."""
    if isinstance(time_ms, bool) or not isinstance(time_ms, int | float):
        raise TypeError(f"time_ms is {time_ms!r:.40}; it should be milliseconds since 1970")
    found = round(time_ms)
    if not 0 <= found <= TIME_MAX_MS:
        raise ValueError(f"time_ms is {found}; it should be milliseconds since 1970")
    return found
