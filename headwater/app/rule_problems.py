"""What people are told of rules that have met a bound of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 10


def rule_problems(status: Mapping[str, Any], state_bytes_max: int) -> list[str]:
    """From the status of the processors (docs/windows.md, Bounds); `state_bytes_max` is the setting."""
    found = [
        f"{rule} of {where} holds its windows_max: readings that would begin another window are left out"
        for where, rules in status.get("crowded", {}).items()
        for rule in rules
    ][:SHOWN]
    found += [
        f"{one['rule']} of {where} leaves fields out: it has its fields_max = {one['fields_max']}"
        + (f", {one['fields']} of them first from {one['device']}" if one["device"] else "")
        + ". Name those that you want in the rule: every_field = [] and fields = { power = ['mean'] }"
        for where, rules in status.get("fields_missed", {}).items()
        for one in rules
    ][:SHOWN]
    memory = status.get("memory") or {}
    if memory.get("full"):
        found.append(
            f"the rules' memory is full ({memory['bytes'] >> 20} MiB held, state_bytes_max under [processors] is"
            f" {state_bytes_max >> 20} MiB): no new windows and devices are taken in"
        )
    return found
