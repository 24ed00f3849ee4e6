"""What the files that a configuration names say: profiles and rules, read before anything is opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gateway.ingest.modbus.settings import ModbusSettings
from headwater.errors import UserError
from headwater.net import is_loopback
from headwater.settings.model import Settings


def check_parts(settings: Settings) -> list[str]:
    """Read profiles and rules as the node will; one line for each.

    Raises one UserError for all files, naming file, line and key of each one's first mistake.
    """
    checks: list[Callable[[], list[str]]] = [partial(_access, settings)]
    checks += [partial(_profile, name) for name in settings.profiles]
    checks += [partial(_bus, bus) for bus in settings.modbus]
    checks += [partial(_devices, settings), partial(_together, settings), partial(_rules, settings)]
    lines: list[str] = []
    errors: dict[str, str] = {}  # what is wrong to its hint; a mistake that is found twice is told once
    for check in checks:
        try:
            lines += check()
        except UserError as error:
            errors.setdefault(re.sub(r", line (\d+): ", r":\1: ", error.what), error.hint)
    if errors:
        if len(errors) == 1:
            [(what, hint)] = errors.items()
            raise UserError(what, hint=hint)
        told = [f"{what}{f' ({hint})' if hint else ''}" for what, hint in errors.items()]
        raise UserError("\n".join(told), hint="Mend the above, then try `headwater config check`.")
    return lines


def warnings(settings: Settings) -> list[str]:
    """What is allowed and is hardly meant."""
    found = []
    if settings.role == "edge" and settings.mqtt is None and not settings.reads_elsewhere:
        inlets = "no [mqtt], [[mqtt_client]], [[serial]] or [[modbus]]"
        found.append(f"{inlets}: this edge takes nothing in; add one of them for its devices")
    found += [
        f"the password for the broker {broker.source_name} travels in the clear; write tls = true"
        for broker in settings.mqtt_client
        if broker.password is not None and not broker.tls and not is_loopback(broker.where()[0])
    ]
    if not settings.rules:
        return found
    return [*found, *rule_warnings(settings.rules), *_hasty_alerts(settings), *_fields_as_labels(settings)]


def _fields_as_labels(settings: Settings) -> list[str]:
    """Windows over groups by what a profile captures from topics: those are fields, and devices have no such label."""
    from devices.profile_files import read_profiles
    from devices.topics import placeholders
    from processors.rules.files import load_rules

    told = {f"labels.{label}" for section in settings.device for label in section.labels}
    captured: dict[str, str] = {}
    for profile in read_profiles(settings.profiles):
        for topic in profile.topics:
            captured |= dict.fromkeys((f"labels.{name}" for name in placeholders(topic)), profile.name)
    return [
        f"window {rule.name} groups by {label}, which no [[device]] here has: what profile {captured[label]} captures"
        f" from topics is a field of its readings ({label.removeprefix('labels.')}), no label of their device; give"
        " the devices that label in [[device]], or choose readings by the field (where)"
        for rule in load_rules(settings.rules).windows
        for label in rule.group_by
        if label in captured and label not in told
    ]


def _hasty_alerts(settings: Settings) -> list[str]:
    """Dead-man alerts that call a device silent which keeps to its profile."""
    from devices.profile_files import read_profiles
    from processors.rules.files import load_rules

    profiles = read_profiles(settings.profiles)
    found = []
    for rule in load_rules(settings.rules).alerts:
        if rule.missed is not None and profiles and all(one.stored_interval_ms is None for one in profiles):
            found.append(
                f"alert {rule.name} goes by devices' expected intervals, and no profile of this node has an"
                " expected_interval_ms; its devices are judged by silent_after_s, or without it by how often they spoke"
            )
        if rule.silent_after_s is None or rule.missed is not None:
            continue
        after_ms = rule.silent_after_s * 1000
        slow = [one for one in profiles if (one.stored_interval_ms or 0) >= after_ms]
        found += [
            f"alert {rule.name} calls a device silent after {rule.silent_after_s:g} s, while of one of profile"
            f" {one.name} a reading is stored every {(one.stored_interval_ms or 0) / 1000:g} s (its heartbeat_ms or"
            " expected_interval_ms); choose silent_after_s well above that"
            for one in slow
        ]
    return found


def rule_warnings(names: Iterable[str]) -> list[str]:
    """What is hardly meant in rules that are right, and processors that will not run.

    Who is given what is no Python starts, and pauses that processor; its code is not run to find out more.
    """
    from processors.rules.checks import doubts
    from processors.rules.files import load_rules

    rules = load_rules(names)
    found = doubts(rules.windows)
    for rule in rules.processors:
        try:
            compile(Path(rule.file).read_bytes(), rule.file, "exec", dont_inherit=True)
        except SyntaxError as error:
            found.append(f"processor {rule.name} will not run: {rule.file}:{error.lineno}: {error.msg}")
        except (OSError, ValueError) as error:
            found.append(f"processor {rule.name} will not run: {rule.file}: {error}")
    return found


def _access(settings: Settings) -> list[str]:
    from gateway.doors import check_doors
    from gateway.ingest.mqtt.access import AccessList

    if settings.mqtt is not None:
        AccessList(settings.mqtt.acl)
    check_doors(settings.kafka)
    if settings.central is not None:
        settings.central.check_security("[central]")
    return []


def _devices(settings: Settings) -> list[str]:
    from devices.description import check_devices

    check_devices(settings.device)
    if settings.devices.unknown == "accept":
        return []
    fate = "keeps as dead letters" if settings.devices.unknown == "deadletter" else "refuses"
    return [f"{fate} what devices say that no [[device]] names"]


def _together(settings: Settings) -> list[str]:
    """What only all profiles together can tell, such as two of one name."""
    from devices.profile_files import read_profiles

    read_profiles(settings.profiles)
    return []


def _profile(name: str) -> list[str]:
    from devices.profile_files import check_decoder, read_profiles

    profiles = read_profiles([name])
    return [f"decodes {one.name} ({check_decoder(one) if one.decoder else one.format})" for one in profiles]


def _bus(settings: ModbusSettings) -> list[str]:
    from gateway.ingest.modbus.plan import bus_plan

    plan = bus_plan(settings)
    units = f"{len(plan.devices)} unit{'s' * (len(plan.devices) != 1)}"
    requests = sum(len(unit.requests) for unit in plan.poller().units)
    return [f"polls Modbus {settings.where}: {units}, {requests} request{'s' * (requests != 1)} for a poll of each"]


def _rules(settings: Settings) -> list[str]:
    if not settings.rules:  # a node without rules need not have what they need installed
        return []
    from processors.rules.files import load_rules

    rules = load_rules(settings.rules)
    lines = [f"computes window {rule.name} over {rule.topic}" for rule in rules.windows]
    lines += [f"runs processor {rule.name} ({rule.file})" for rule in rules.processors]
    place = settings.processors.place
    return lines + [
        f"watches alert {rule.name}"
        if rule.runs == place
        else f"leaves alert {rule.name} to nodes in the place “{rule.runs}” (its key runs; here it is “{place}”)"
        for rule in rules.alerts
    ]
