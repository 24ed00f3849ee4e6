"""A scenario: fleets of simulated devices, what they measure and what goes wrong with them. TOML to frozen structs.

docs/simulators.md describes every key with an example. Shares are of 1: `missing = 0.01` loses one reading in a
hundred. Times are milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headwater import resources
from headwater.errors import UserError
from headwater.toml.check import convert
from headwater.toml.source import Source

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Span = Annotated[int, msgspec.Meta(ge=1, le=7 * 86_400_000)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,40}$")]


class Signal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one field does: a number, a counter that grows, or one of some states.

    A number is `base`, and each device's own constant part (normal, standard deviation `spread`), plus a daily cycle
    (`daily` is its amplitude, highest at `daily_peak` UTC), `drift_per_day`, steps up or down by `step` at intervals
    that are exponential with mean `step_every_ms`, and `noise` (standard deviation). With `stuck_every_ms` it
    sticks at its value for `stuck_for_ms`, now and then (exponential with that mean).
    """

    kind: Literal["number", "counter", "state"] = "number"
    base: float = 0.0
    spread: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    daily: float = 0.0
    daily_peak: Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "14:00"
    drift_per_day: float = 0.0
    step: float = 0.0
    step_every_ms: Span = 3_600_000
    noise: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    stuck_every_ms: Span | None = None
    stuck_for_ms: Span = 60_000
    per_second: float = 1.0
    """Of a counter: its mean growth; a device's own is spread and noisy like a number."""
    states: tuple[str, ...] = ("off", "on")
    state_every_ms: Span = 60_000
    """Of states: the mean time between two changes."""
    min: float | None = None
    max: float | None = None
    digits: Annotated[int, msgspec.Meta(ge=0, le=9)] = 2


class Delivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of readings on their way to the gateway."""

    missing: Share = 0.0
    """Never sent; the sequence number shows the gap."""
    duplicate: Share = 0.0
    """Sent a second time, as a message of its own, up to 5 s later."""
    out_of_order: Share = 0.0
    """Overtaken by one to `out_of_order_by` later readings of the device."""
    out_of_order_by: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    late: Share = 0.0
    """Held back for up to `late_by_ms`."""
    late_by_ms: Span = 60_000
    garbage: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """The share of all messages that no decoder understands, sent between good ones."""


class Clocks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The devices' own clocks."""

    fast: Share = 0.0
    """Devices whose clock is ahead by `fast_by_ms`."""
    fast_by_ms: Span = 3_600_000
    slow: Share = 0.0
    slow_by_ms: Span = 3_600_000
    drift_ppm: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 0.0
    """Every clock runs fast or slow by up to this many millionths."""


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections that go away without a word and come back; exponential with these means."""

    flapping: Share = 0.0
    """Clients whose link does so."""
    up_ms: Span = 30_000
    down_ms: Span = 5_000


class FleetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices of one kind. They are called `<name>-0001`, …"""

    name: Name
    devices: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    transport: Literal["mqtt", "serial"] = "mqtt"
    topic: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "sim/{device}/telemetry"
    """Of MQTT; `{device}` and `{fleet}` are filled in."""
    qos: Literal[0, 1, 2] = 1
    devices_per_client: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    """Devices that share one MQTT connection, or one serial line, as behind a concentrator."""
    link: str = "/tmp/{fleet}-{line}"  # noqa: S108 - a serial line's name, not a file with content
    """Of serial: the symbolic link that names each line (1, 2, …)."""
    interval_ms: Span = 1000
    jitter: Share = 0.1
    """How unevenly a device measures, as a share of its interval."""
    signals: dict[str, Signal]
    delivery: Delivery = Delivery()
    clocks: Clocks = Clocks()
    links: Links = Links()


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file."""

    description: str = ""
    seed: int = 1
    fleets: tuple[FleetSpec, ...]

    @property
    def per_second(self) -> float:
        """Good readings a second, of all fleets."""
        return sum(fleet.devices * 1000.0 / fleet.interval_ms for fleet in self.fleets)

    @property
    def clients_max(self) -> int:
        """Connections or lines of the largest fleet: among more processes than that some would have nothing to say."""
        return max(-(-fleet.devices // fleet.devices_per_client) for fleet in self.fleets)


def shipped_scenarios() -> list[str]:
    """The names that need no path."""
    return resources.config_names("scenarios")


def read_scenario(name: str) -> Scenario:
    """A shipped scenario by name, or the path of a TOML file. Raises `UserError` that names every mistake's line."""
    source = Source(name)
    if "/" in name or name.endswith(".toml"):
        source.add_file(name)
    elif name in (known := shipped_scenarios()):
        source.add_text(f"scenarios/{name}.toml", resources.read_config("scenarios", f"{name}.toml"))
    else:
        raise UserError(f"no shipped scenario is called “{name}”", hint=f"There are {', '.join(known)}; or a path.")
    scenario = convert(source, Scenario)
    if scenario is not None and not source.problems:
        _check(scenario, source)
    if scenario is None or source.problems:
        raise UserError("\n".join(source.problems), hint="docs/simulators.md describes every key.")
    return scenario


def _check(scenario: Scenario, source: Source) -> None:
    """What no type says."""
    if not scenario.fleets:
        source.problem(("fleets",), "there is no [[fleets]] to simulate")
    seen: set[str] = set()
    for index, fleet in enumerate(scenario.fleets):
        if fleet.name in seen:
            source.problem(("fleets", index, "name"), f"two fleets are called “{fleet.name}”")
        seen.add(fleet.name)
        if not fleet.signals:
            source.problem(("fleets", index, "signals"), "a device that measures nothing has nothing to say")
        for wanted in ("+", "#"):
            if wanted in fleet.topic:
                source.problem(("fleets", index, "topic"), f"“{wanted}” is for subscribers; a topic has none")
        lines = -(-fleet.devices // fleet.devices_per_client)
        if fleet.transport == "mqtt" and fleet.devices > 1 and "{device}" not in fleet.topic:
            source.problem(("fleets", index, "topic"), "{device} is missing: all devices would be one")
        if fleet.transport == "serial" and lines > 1 and "{line}" not in fleet.link:
            source.problem(("fleets", index, "link"), "{line} is missing: the lines need different names")
        for name, signal in fleet.signals.items():
            if name in ("ts", "seq", "device"):
                source.problem(("fleets", index, "signals", name), f"“{name}” is what every message says of itself")
            if signal.kind == "state" and len(signal.states) < 2:
                source.problem(("fleets", index, "signals", name, "states"), "a state needs two values at least")
