"""Profiles: how one kind of device's bytes become Readings.

name = "wind-turbine"
format = "json"                         # which decoder: one of devices/options.py
topics = ["farm/{device}/telemetry"]    # MQTT topics; {device} captures, + and # as in MQTT
natural_key = "seq"                     # path of a number or text that no two readings share
expected_interval_ms = 4000             # silent for three times this: idle

[timestamp]
path = "ts"
unit = "ms"                             # s, ms, us, ns, iso8601, text

[fields.power]                          # without any [fields.*], every member is a field
path = "electrical.power"               # default: the field's own name
unit = "kW"
scale = 0.001                           # stored = sent × scale + offset

Every key is explained in docs/profiles.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

EVENT_TIME_PAST_MAX_MS = 30 * 24 * 3_600_000
HEARTBEAT_MS = 60_000
"""What a field with a deadband is stored every, when its profile does not say."""

Encoding = Literal["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "text", "bool"]
WORDS = {"16": 1, "32": 2, "64": 4}


class RegisterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a field stands in a Modbus device (format "modbus").

    `order` names the bytes of a value as they come, for 32 bits `ABCD`, `CDAB` (words swapped), `BADC` (bytes
    swapped) or `DCBA`; longer values by the same rule. `bit` and `bits` cut a bit field out of an unsigned value,
    counted from the least significant. `length` is a text's, in registers. `every`: a poller reads it at each so many
    polls; 1 is at all of them.
    """

    address: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    table: Literal["", "holding", "input", "coil", "discrete"] = ""
    encoding: Encoding = "uint16"
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = "ABCD"
    bit: Annotated[int, msgspec.Meta(ge=0, le=63)] | None = None
    bits: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    length: Annotated[int, msgspec.Meta(ge=1, le=125)] = 1
    every: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1

    @property
    def words(self) -> int:
        """How many registers it takes up."""
        return self.length if self.encoding == "text" else WORDS.get(self.encoding[-2:], 1)


def scaled(number: float, scale: float, offset: float) -> float:
    """`number × scale + offset`; a scale like 0.1 or 0.001 divides, which invents no digits (8148 × 0.1 would)."""
    divisor = 1.0 / scale
    if divisor.is_integer() and 1.0 / divisor == scale:
        return number / divisor + offset
    return number * scale + offset


class FieldSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field: where it stands in the message, its unit, and stored = sent × scale + offset.

    A stored number below `min` or above `max` is kept, its record marked with `hw-q`. `deadband` is by how much it
    must have moved to be worth storing again before the profile's heartbeat. `type` turns text into what it means.
    """

    path: str = ""
    unit: str = ""
    type: Literal["", "number", "integer", "boolean", "text"] = ""
    scale: float = 1.0
    offset: float = 0.0
    min: float | None = None
    max: float | None = None
    deadband: float | None = None
    register: RegisterSpec | None = None
    description: str = ""

    @property
    def is_scaled(self) -> bool:
        return self.scale != 1.0 or self.offset != 0.0


class TimestampSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the device's own time stands, and how it is written.

    Text (`iso8601`, or `text` by strptime's `format`) that names no zone is in `zone` (IANA), else UTC. `time_path`
    names the time of day where date and time stand apart: the two are read as one text with a space between.
    """

    path: str
    unit: Literal["s", "ms", "us", "ns", "iso8601", "text"] = "ms"
    format: str = ""
    zone: str = ""
    time_path: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one kind of device speaks.

    `decoder` is a user's own code instead of a `format`: `FILE.py:FUNCTION` or `entry:NAME` (devices/user_code.py).
    `type`, `site` and `zone` describe its devices where no `[[device]]` of the node's file does.
    `device` names the device where no topic does (serial). `natural_key` is a path; the value is kept as a
    field under the path's last part, because a restarted node learns the latest ones from its own log.
    `device_path` names the device inside the message, `each` an array in it that holds one reading an element.
    `heartbeat_ms` bounds how long a deadband may keep a reading back, `interval_min_ms` how often one is stored.
    `event_time_past_max_ms` is how old a claimed time may be. `recorded` exempts a replayed recording from
    the rule that a source far behind is left out of the marks. `options` belongs to the decoder.
    """

    name: str
    description: str = ""
    format: str = "json"
    decoder: str = ""
    topics: tuple[str, ...] = ()
    type: str = ""
    site: str = ""
    zone: str = ""
    device: str | None = None
    device_path: str | None = None
    each: str | None = None
    fields: dict[str, FieldSpec] = {}
    timestamp: TimestampSpec | None = None
    natural_key: str | None = None
    expected_interval_ms: int | None = None
    event_time_past_max_ms: int = EVENT_TIME_PAST_MAX_MS
    recorded: bool = False
    heartbeat_ms: int | None = None
    interval_min_ms: int | None = None
    options: dict[str, Any] = {}

    @property
    def natural_field(self) -> str | None:
        """The field that carries the natural key in a stored record; None when the record's time does, or nothing."""
        if self.natural_key is None or (self.timestamp is not None and self.timestamp.path == self.natural_key):
            return None
        for name, spec in self.fields.items():
            if (spec.path or name) == self.natural_key:
                return name
        return self.natural_key.rpartition(".")[2]

    @property
    def stored_interval_ms(self) -> int | None:
        """How long a device that is well may leave the log without a reading; None: nothing says.

        With deadbands that is its heartbeat, however often it speaks: who goes by stored readings must wait so long.
        """
        held = [self.heartbeat_ms] if self.heartbeat_ms is not None else []
        if not held and any(spec.deadband is not None for spec in self.fields.values()):
            held = [HEARTBEAT_MS]
        if self.expected_interval_ms is not None:
            held += [self.expected_interval_ms, self.interval_min_ms or 0]
        return max(held, default=None)

    @property
    def idle_ms(self) -> int | None:
        """After this much silence a source of this profile holds nothing up (design §9: three expected intervals)."""
        return None if self.expected_interval_ms is None else self.expected_interval_ms * 3
