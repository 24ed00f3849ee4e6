"""The formats that profiles may name, and the `[options]` table of each, checked when the profile is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
OneByte = Annotated[str, msgspec.Meta(min_length=1, max_length=1)]


class JsonOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON has none."""


class CborOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CBOR has none."""


class NmeaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`checksum = "optional"` takes in sentences that carry none; one that is wrong is never taken.

    `sentences` are the kinds to read, as `["RMC", "MWV"]`; any other says nothing, and is counted as suppressed.
    """

    checksum: Literal["required", "optional"] = "required"
    sentences: tuple[str, ...] = ()


class CsvOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`columns` names the columns; without it the first line of each message does. `skip_lines` come before that."""

    columns: tuple[str, ...] = ()
    delimiter: OneByte = ","
    quote: OneByte = '"'
    decimal: Literal[".", ","] = "."
    comment: str = ""
    skip_lines: Annotated[int, msgspec.Meta(ge=0)] = 0
    null: tuple[str, ...] = ("", "NaN", "nan", "NAN", "NULL", "null")


class LineProtocolOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`precision` of the timestamps; `device_tag` names the device; tags become text fields unless `tags` is false."""

    precision: Literal["ns", "us", "ms", "s"] = "ns"
    device_tag: str = ""
    tags: bool = True
    prefix_measurement: bool = False


class SenmlOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`device_separator`: what stands before it in a name is the device, what comes after its last one the field."""

    device_separator: Annotated[str, msgspec.Meta(max_length=1)] = ""


class SparkplugOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of what is remembered: edge nodes in all, metrics of one edge node with its devices."""

    nodes_max: Positive = 1_000
    metrics_max: Positive = 10_000


class ModbusOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message's first register, in which `table`; with `layout` "blocks" each message says that itself."""

    address: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    table: Literal["holding", "input", "coil", "discrete"] = "holding"
    layout: Literal["registers", "blocks"] = "registers"


OPTIONS: dict[str, type[msgspec.Struct]] = {
    "json": JsonOptions,
    "csv": CsvOptions,
    "line-protocol": LineProtocolOptions,
    "senml+json": SenmlOptions,
    "senml+cbor": SenmlOptions,
    "cbor": CborOptions,
    "sparkplug-b": SparkplugOptions,
    "modbus": ModbusOptions,
    "nmea0183": NmeaOptions,
}

_O = TypeVar("_O", bound=msgspec.Struct)


def read_options(kind: type[_O], options: dict[str, Any]) -> _O:
    """A profile's options as its decoder wants them. Raises `msgspec.ValidationError`."""
    return msgspec.convert(options, kind)
