"""What a device is, apart from what it says: its record in topic `devices`, and who says it. Sans-IO.

A `[[device]]` section of a node's file wins over the profile. The record is written when a device first appears and
when something in it has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from devices.profiles import Profile
from headwater.errors import UserError

DEVICES_MAX = 10_000
Label = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
_OF_FIELDS = ("unit", "min", "max", "description")


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device, or several of one kind, `[[device]]`: what pages, joins and calendars should know of it."""

    device: str
    """Its id, as the key of its readings has it after the node; `*` and `?` match several."""
    name: str = ""
    """For people."""
    site: str = ""
    """Where it stands."""
    zone: str = ""
    """The IANA time zone of its place, for example Europe/Berlin."""
    type: str = ""
    """What it is, for example wind turbine."""
    labels: Annotated[dict[Label, str], msgspec.Meta(max_length=16)] = {}
    """Whatever else rules should group by or compare: name to text, for example the line that it belongs to."""


class DevicesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which devices may speak, `[devices]`."""

    devices_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = DEVICES_MAX
    """How many the topic `devices` describes; readings of further ones are stored all the same."""
    unknown: Literal["accept", "deadletter", "refuse"] = "accept"
    """What becomes of a device that no `[[device]]` names: stored, kept as a dead letter, or dropped and counted."""


def check_devices(sections: Sequence[DeviceSettings]) -> None:
    """Raises `UserError` for a zone that does not exist, and for a device that is named twice."""
    seen: set[str] = set()
    for section in sections:
        if section.device in seen:
            raise UserError(f"[[device]] “{section.device}” is there twice", hint="Write one section for it.")
        seen.add(section.device)
        if section.zone:
            try:
                ZoneInfo(section.zone)
            except (KeyError, ValueError, OSError):
                raise UserError(
                    f"[[device]] “{section.device}”: there is no time zone “{section.zone}”",
                    hint="Names are as Europe/Berlin; see tzselect.",
                ) from None


def section_of(device: str, sections: Sequence[DeviceSettings]) -> DeviceSettings | None:
    """The section that names a device: its own, else the first whose pattern takes it in."""
    for section in sections:
        if section.device == device:
            return section
    return next((section for section in sections if fnmatchcase(device, section.device)), None)


def describe(device: str, profile: Profile | None, section: DeviceSettings | None) -> bytes:
    """The value of a device's record."""
    told: dict[str, Any] = {"device": device}
    told["name"] = (section.name if section is not None else "") or None  # a profile's name is not its devices'
    for key in ("site", "zone", "type"):
        told[key] = (getattr(section, key, "") or getattr(profile, key, "")) or None
    told["profile"] = profile.name if profile is not None else None
    told["expected_interval_ms"] = profile.stored_interval_ms if profile is not None else None
    if section is not None and section.labels:
        told["labels"] = section.labels
    fields = profile.fields.items() if profile is not None else ()
    told["fields"] = {
        name: {key: value for key in _OF_FIELDS if (value := getattr(spec, key)) not in ("", None)}
        for name, spec in fields
    }
    return msgspec.json.encode(told)


FACTS = ("site", "zone", "type", "labels", "expected_interval_ms")
"""What rules compare, group by and wait for: these members go with a device's readings."""


def facts(value: bytes) -> bytes:
    """Of a device's record what goes with its readings, as JSON; `{}` when that is nothing."""
    told = msgspec.json.decode(value, type=dict[str, Any])
    return msgspec.json.encode({key: told[key] for key in FACTS if told.get(key)})
