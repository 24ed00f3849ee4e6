"""Sparkplug B payloads (Sparkplug 3.0, chapter 6): the protobuf message as Python values, and a rebirth request."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from devices.protobuf import BYTES, FIXED32, FIXED64, VARINT, ProtobufError, field, fields
from devices.reading import Scalar

BOOLEAN = 11
_SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}  # Int8 … Int64, kept in unsigned fields as two's complement
_UNSIGNED_BITS = {5: 8, 6: 16, 7: 32, 8: 64}
# section 6.4.16, data types that are no single value
NOT_SCALAR = {16: "DataSet", 17: "Bytes", 18: "File", 19: "Template", 20: "PropertySet", 21: "PropertySetList"}
NOT_SCALAR |= dict.fromkeys(range(22, 35), "array")
_WIRE = {1: BYTES, 2: VARINT, 3: VARINT, 4: VARINT, 5: VARINT, 6: VARINT, 7: VARINT, 10: VARINT, 11: VARINT}
_WIRE |= {12: FIXED32, 13: FIXED64, 14: VARINT, 15: BYTES}
_MS_MAX = 2**53


class Metric(NamedTuple):
    """A metric as it came; `name` "" and `alias` None when it has none, `datatype` 0 when it does not say."""

    name: str
    alias: int | None
    timestamp_ms: int | None
    datatype: int
    is_null: bool
    field_number: int
    """Which of the payload's value fields holds the value; 0 when none does."""
    raw: Any


class Payload(NamedTuple):
    """A message; `seq` None when it carries none."""

    timestamp_ms: int | None
    seq: int | None
    metrics: list[Metric]


def parse_payload(data: bytes) -> Payload:
    """A payload's parts. Raises `ProtobufError`."""
    timestamp_ms = seq = None
    metrics: list[Metric] = []
    for number, kind, value in fields(data):
        if number in (1, 3) and (kind != VARINT or not isinstance(value, int)):
            raise ProtobufError(f"field {number} of the payload has wire type {kind}")
        if number == 1:
            timestamp_ms = _time(value)
        elif number == 3:
            seq = int(value)
        elif number == 2:
            if not isinstance(value, bytes):
                raise ProtobufError(f"a metric has wire type {kind}")
            metrics.append(_metric(value))
    return Payload(timestamp_ms, seq, metrics)


def _metric(data: bytes) -> Metric:
    name, alias, timestamp_ms, datatype, is_null = "", None, None, 0, False
    value_field, raw = 0, None
    for number, kind, value in fields(data):
        if _WIRE.get(number, kind) != kind:
            raise ProtobufError(f"field {number} of a metric has wire type {kind}")
        if number == 1 and isinstance(value, bytes):
            name = _text(value)
        elif number == 2:
            alias = int(value)
        elif number == 3:
            timestamp_ms = _time(value)
        elif number == 4:
            datatype = int(value)
        elif number == 7:
            is_null = bool(value)
        elif 10 <= number <= 19:
            value_field, raw = number, value
    return Metric(name, alias, timestamp_ms, datatype, is_null, value_field, raw)


def metric_value(metric: Metric, datatype: int) -> Scalar:
    """The value by its type, from the metric itself or its birth. Raises `ProtobufError` when the two do not agree."""
    if metric.is_null:
        return None
    number, raw = metric.field_number, metric.raw
    if number in (10, 11):
        return _integer(raw, datatype)
    if number == 12:
        return float(struct.unpack("<f", struct.pack("<I", raw))[0])
    if number == 13:
        return float(struct.unpack("<d", struct.pack("<Q", raw))[0])
    if number == 14:
        return bool(raw)
    if number == 15:
        return _text(raw)
    if number == 0:
        raise ProtobufError("a metric has no value and is not marked as null")
    raise ProtobufError(f"a value of type {NOT_SCALAR.get(datatype, number)} is no single value")


def _integer(raw: int, datatype: int) -> int | bool:
    if (bits := _SIGNED_BITS.get(datatype)) is not None:
        raw &= (1 << bits) - 1
        return raw - (1 << bits) if raw >> bits - 1 else raw
    if (bits := _UNSIGNED_BITS.get(datatype)) is not None and raw >> bits:
        raise ProtobufError(f"{raw} does not fit UInt{bits}")
    return bool(raw) if datatype == BOOLEAN else raw


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtobufError("a text that is not UTF-8") from None


def _time(value: int | bytes) -> int:
    if not isinstance(value, int) or value > _MS_MAX:
        raise ProtobufError(f"the timestamp {value!r:.30} is none")
    return value


def rebirth_request(group: str, node: str, now_ms: int) -> tuple[str, bytes]:
    """(topic, payload) of the command that asks an edge node for its births again (section 6.4.5, NCMD)."""
    metric = field(1, b"Node Control/Rebirth") + field(3, now_ms) + field(4, BOOLEAN) + field(14, 1)
    return f"spBv1.0/{group}/NCMD/{node}", field(1, now_ms) + field(2, metric)
