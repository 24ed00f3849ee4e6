"""Profiles by name or path: the shipped ones (in a wheel `headwater/config/profiles`) and a user's."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from devices.profile_text import load_profiles
from devices.profiles import Profile
from devices.user_code import find_entry
from headwater import resources
from headwater.errors import UserError


def shipped_names() -> list[str]:
    """The names that `profiles = [...]` accepts without a path."""
    return resources.config_names("profiles")


def read_profiles(names: Iterable[str], *, base: str = ".") -> list[Profile]:
    """Each name is a shipped profile's, or the path of a TOML file (relative to `base`). Raises `UserError`."""
    sources = [profile_text(name, base) for name in names]
    profiles = load_profiles(sources)
    return [_located(profile, file) for profile, (file, _) in zip(profiles, sources, strict=True)]


def _located(profile: Profile, file: str) -> Profile:
    """A decoder's file stands against the profile's own."""
    path, _, function = profile.decoder.rpartition(":")
    if not path.endswith(".py"):
        return profile
    place = (Path(file).parent / Path(path).expanduser()).resolve()
    return msgspec.structs.replace(profile, decoder=f"{place}:{function}")


def check_decoder(profile: Profile) -> str:
    """The name of a profile's own decoder, for people; its file is read, its package looked for, and neither run.

    Raises `UserError`.
    """
    path, _, function = profile.decoder.rpartition(":")
    if not path.endswith(".py"):
        find_entry(function)
        return profile.decoder
    try:
        tree = ast.parse(Path(path).read_bytes(), path)
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}", hint="Mend the decoder's file.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"profile {profile.name}: its decoder {path} cannot be read: {error}",
            hint="A relative path stands against the profile's file.",
        ) from None
    defined = [name for statement in tree.body for name in _defined(statement)]
    if function not in defined:
        near = difflib.get_close_matches(function, defined, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Write def {function}(message): … in it."
        raise UserError(f"profile {profile.name}: {path} defines no {function}", hint=hint)
    return f"{Path(path).name}:{function}"


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at a module's top gives something to."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom | ast.Import):
        yield from (alias.asname or alias.name for alias in statement.names)
    else:
        yield from (
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )


def profile_text(name: str, base: str = ".") -> tuple[str, str]:
    """(file, TOML text) of a shipped profile or of a path. Raises `UserError`."""
    if "/" not in name and not name.endswith(".toml"):
        if name not in (known := shipped_names()):
            raise UserError(f"no shipped profile is called “{name}”", hint=f"There are {', '.join(known)}; or a path.")
        return f"profiles/{name}.toml", resources.read_config("profiles", f"{name}.toml")
    path = Path(base) / name
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"profile {path} cannot be read: {error}", hint="Check the path and its permissions."
        ) from error
