"""Window and alert rules; docs/windows.md describes every key, `rule_files` reads them.

A rule's `version` is `<name>@<hash of what it computes>`: state and output numbers belong to a version, so a changed
rule starts anew and an unchanged one goes on.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Annotated, Any, Literal, get_args

import msgspec

from headwater.toml.check import NAME
from processors.user.rule import ProcessorRule

FORMAT = 2
"""Counts changes of the code that change what a rule's outputs say; part of every version."""

# fmt: off
Aggregate = Literal[
    "count", "sum", "mean", "min", "max", "range", "first", "last", "variance", "stddev", "slope",
    "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p98", "p99", "p99.9", "distinct",
    "circular_mean", "circular_spread",
    "time_weighted_mean", "integral", "increase", "rate", "availability", "durations",
]
# fmt: on
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
OF_TEXTS = frozenset(("count", "first", "last", "distinct", "durations"))
"""Aggregates that take texts too."""
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
DEVICE_ZONE = "device"
Level = float | None
Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)]


class WindowRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Aggregates per device over windows of event time."""

    name: Name
    topic: str = "readings"
    kind: Literal["tumbling", "hopping", "calendar", "session"] = "tumbling"
    size_s: Seconds | None = None
    """Of tumbling and hopping windows, which are aligned to the Unix epoch."""
    every_s: Seconds | None = None
    """Of hopping windows: one begins every so often."""
    gap_s: Seconds | None = None
    """Of session windows: the silence that ends one."""
    calendar: Literal["day", "week", "month", "year", "shifts"] | None = None
    zone: str = "UTC"
    """Of calendar windows: an IANA time zone; "device" for each device's own."""
    default_zone: str = "UTC"
    """With zone = "device": of devices that say none."""
    shifts: dict[str, str] = {}
    """Of calendar windows in shifts: name to local time HH:MM; each shift lasts until the next begins."""
    devices: tuple[str, ...] = ("*",)
    """Patterns of device names; `*` and `?` match no name that begins with `$` unless the pattern does."""
    nodes: tuple[str, ...] = ("*",)
    group_by: tuple[str, ...] = ()
    """Windows not of each device, but over all that have the same `site`, `zone`, `type`, `labels.NAME` or `node`."""
    where: str = ""
    """Only readings for which this expression holds are counted; docs/windows.md."""
    compute: dict[str, str] = {}
    """Fields computed from others: name to expression, in this order."""
    every_field: tuple[Aggregate, ...] = ("count", "mean", "min", "max")
    """For each numeric field that `fields` does not name; [] leaves those out."""
    fields: dict[str, tuple[Aggregate, ...]] = {}
    allowed_lateness_s: Annotated[float, msgspec.Meta(ge=0)] = 86400.0
    """How far behind the watermark a closed window may still be revised."""
    lateness: Literal["time", "backfill"] = "time"
    """`backfill`: what a node still owes of a time when its link was cut does not let later windows become too late."""
    early_every_s: Seconds | None = None
    """What there is of a window under way is told so often, by its node's watermark."""
    windows_max: Annotated[int, msgspec.Meta(ge=16, le=10_000_000)] = 50_000
    """Windows (of hopping ones also panes) kept in memory per input partition, closed ones included."""
    fields_max: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Different fields that one partition's devices may have together; further ones are left out and counted."""
    samples_max: Annotated[int, msgspec.Meta(ge=1000, le=100_000_000)] = 1_000_000
    """Readings (16 bytes) kept per field and input partition, for the aggregates that need them in order."""
    texts_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    """Different texts (up to 256 characters) known per field and input partition, of fields that may have texts."""

    @property
    def size_ms(self) -> int:
        return round((self.size_s or 0.0) * 1000)

    @property
    def every_ms(self) -> int:
        return round((self.every_s or 0.0) * 1000)

    @property
    def gap_ms(self) -> int:
        return round((self.gap_s or 0.0) * 1000)

    @property
    def early_every_ms(self) -> int:
        """0: never."""
        return round((self.early_every_s or 0.0) * 1000)

    @property
    def allowed_lateness_ms(self) -> int:
        return round(self.allowed_lateness_s * 1000)

    @property
    def version(self) -> str:
        return _version(self.name, _told(self))

    @property
    def relay_version(self) -> str:
        """Of what the first stage of a rule with `group_by` writes: a change of the rest leaves it alone."""
        return _version(self.name, {key: value for key, value in _told(self).items() if key not in _SECOND_STAGE})

    @property
    def facts(self) -> tuple[str, ...]:
        """What of the device its windows need, by the names that expressions have for it."""
        return ("device.zone",) if self.zone == DEVICE_ZONE else ()

    @property
    def needs_facts(self) -> bool:
        """Whether what was said of devices, perhaps long before a window, decides what is in it."""
        said = "".join((*self.facts, self.where, *self.compute.values()))
        return bool(self.group_by) or "device." in said or "label" in said

    @property
    def text_fields(self) -> frozenset[str]:
        """Fields whose texts count too: those that `fields` names with nothing but aggregates that take texts."""
        return frozenset(name for name, asked in self.fields.items() if asked and OF_TEXTS.issuperset(asked))

    def aggregates_of(self, field: str) -> tuple[str, ...]:
        return self.fields.get(field, self.every_field)


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A level that one aggregate of one field crosses, per device; or a silence."""

    name: Name
    window: str
    field: str = ""
    aggregate: Aggregate = "mean"
    fire_above: Level = None
    fire_below: Level = None
    clear_below: Level = None
    clear_above: Level = None
    for_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long the value must stay beyond the fire level before the alert fires."""
    keep_firing_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long it must then stay beyond the clear level before the alert is resolved."""
    flaps_max: Annotated[float, msgspec.Meta(ge=1, le=1000)] | None = None
    """An instance that fired more often lately stays firing until it has been calm; None: nothing is damped."""
    flap_half_life_s: Annotated[float, msgspec.Meta(ge=1, le=366 * 86400)] = 900.0
    """With `flaps_max`: after so long a firing counts half."""
    silent_after_s: Seconds | None = None
    """A dead-man alert, in place of a level: fires when a device that its window takes was silent for so long."""
    missed: Annotated[float, msgspec.Meta(ge=1, le=1000)] | None = None
    """A dead-man alert that goes by each device's interval, said or learnt: fires when it missed so many of them."""
    severity: Literal["info", "warning", "critical"] = "warning"
    summary: str = ""
    runs: Literal["edge", "central"] = "central"
    """The one place where this rule runs, so that nobody is told twice."""

    def version(self, window: WindowRule) -> str:
        return _version(self.name, [_told(self), window.version])

    @property
    def is_dead_man(self) -> bool:
        """Whether it is about silence, in place of a level."""
        return self.silent_after_s is not None or self.missed is not None

    @property
    def learns_intervals(self) -> bool:
        """Whether devices of which nobody says how often they speak are judged by how often they did."""
        return self.missed is not None and self.silent_after_s is None

    @property
    def rising(self) -> bool:
        """Whether it fires above a level (else below)."""
        return self.fire_above is not None

    @property
    def fire_level(self) -> float:
        if self.fire_above is not None:
            return self.fire_above
        return 0.0 if self.fire_below is None else self.fire_below  # one of them is set: checked when it was read

    @property
    def clear_level(self) -> float:
        level = self.clear_below if self.rising else self.clear_above
        return self.fire_level if level is None else level


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """All rules of a node; names are unique among windows, among alerts and among processors."""

    windows: tuple[WindowRule, ...] = ()
    alerts: tuple[AlertRule, ...] = ()
    processors: tuple[ProcessorRule, ...] = ()
    """Users' own; their drivers are apart from that of the others."""

    @property
    def topics(self) -> list[str]:
        """The input topics of windows, sorted."""
        return sorted({rule.topic for rule in self.windows})


_SECOND_STAGE = frozenset(
    ("allowed_lateness_s", "lateness", "early_every_s", "windows_max", "fields_max", "samples_max", "texts_max")
)
_MAPPINGS_ADDED_LATER = ("compute",)
"""A mapping's default is made anew for each rule, so it would count as told even where nobody wrote one."""


def _told(rule: WindowRule | AlertRule) -> dict[str, Any]:
    """What differs from the defaults: a key that is added later, with a default, changes no version."""
    defaults = _defaults(type(rule))
    told = {name: getattr(rule, name) for name in rule.__struct_fields__}
    return {name: value for name, value in told.items() if value != defaults[name]}


@cache
def _defaults(kind: type[WindowRule | AlertRule]) -> dict[str, Any]:
    """Of each key; looking a type's annotations through takes milliseconds."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return defaults | {key: {} for key in _MAPPINGS_ADDED_LATER}


def _version(name: str, what: Any) -> str:
    digest = hashlib.blake2b(msgspec.msgpack.encode([FORMAT, what]), digest_size=4)
    return f"{name}@{digest.hexdigest()}"
