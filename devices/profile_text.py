"""Profiles from TOML text, checked; `profile_files` finds the text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable

import msgspec

from devices.profile_check import check_profile, explain
from devices.profiles import Profile
from headwater.errors import UserError


def parse_profile(text: str, file: str) -> Profile:
    """One profile from TOML text. Raises `UserError` naming `file`, the line and the key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: {error}", hint="Mend the TOML at that place.") from error
    try:
        profile = msgspec.convert(raw, Profile)
    except msgspec.ValidationError as error:
        raise explain(text, file, error) from error
    check_profile(profile, text, file)
    return profile


def load_profiles(sources: Iterable[tuple[str, str]]) -> list[Profile]:
    """Profiles from (file name, TOML text) pairs; two of the same name are refused."""
    profiles: dict[str, Profile] = {}
    files: dict[str, str] = {}
    for file, text in sources:
        profile = parse_profile(text, file)
        if profile.name in profiles:
            raise UserError(f"{file}: profile “{profile.name}” is defined in {files[profile.name]} already")
        profiles[profile.name] = profile
        files[profile.name] = file
    return list(profiles.values())
