"""`[[processor]]` of a rule file: which file, over which readings, with which settings."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from headwater.toml.check import NAME

Name = Annotated[str, msgspec.Meta(pattern=NAME)]


class ProcessorRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's own processor: a class in a Python file."""

    name: Name
    file: str
    """The Python file; a relative path stands against the rule file."""
    class_: str = msgspec.field(default="", name="class")
    """Which class of the file; needed only where it has several."""
    topic: str = ""
    """What it reads; as the class says (`readings`) when left out."""
    devices: tuple[str, ...] = ("*",)
    """Patterns of device names; `*` and `?` match no name that begins with `$` unless the pattern does."""
    nodes: tuple[str, ...] = ("*",)
    out: tuple[str, ...] = ()
    """Topics that it writes to, the first by default; as the class says when left out."""
    settings: dict[str, Any] = {}
    """Values of the class's own settings."""
