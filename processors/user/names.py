"""The base of users' processors: what a class says of itself, its settings, and what it is called with.

Settings are the class's own annotated attributes with a default (`hold_s: float = 30.0`): the rule file and tests may
set them, and they are checked against their annotation.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform, get_args, get_origin, get_type_hints

import msgspec

from headwater.errors import UserError

Value = Mapping[str, Any] | msgspec.Struct
"""What may be emitted: a mapping or a Struct (dataclasses too); it is stored as a JSON object."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Output:
    """A record that a processor emitted: `value` is the JSON object, `time_ms` the event time."""

    value: dict[str, Any]
    key: str
    time_ms: int
    topic: str


@dataclass_transform(kw_only_default=True)
class Base:
    """What both forms of processors have in common; write a subclass of `Processor` or `ColumnProcessor`."""

    topic: ClassVar[str] = "readings"
    """What it reads, where its rule does not say."""
    out: ClassVar[str | tuple[str, ...]] = ""
    """Where `emit` writes: one topic or several, the first is the default; the processor's name when empty."""
    version: ClassVar[int] = 1
    """Raise it to begin with empty state; anything else in the file may change and the state goes on."""
    deterministic: ClassVar[bool] = False
    """True promises: same readings, same output; no clock, no chance, no network. Needed to run inside a node."""

    def __init__(self, **settings: Any) -> None:
        known = settings_of(type(self))
        for name, value in settings.items():
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise UserError(
                    f"{type(self).__name__} has no setting “{name}”; {has}",
                    hint=f"A setting is an attribute with a type and a default: {name}: float = 1.0",
                )
            try:
                setattr(self, name, msgspec.convert(value, known[name]))
            except (msgspec.ValidationError, TypeError) as error:
                raise UserError(f"{type(self).__name__}: setting “{name}”: {error}") from None

    @classmethod
    def outs(cls, name: str) -> tuple[str, ...]:
        """The topics that it may write to, the default first."""
        out = cls.out or name
        return (out,) if isinstance(out, str) else tuple(out)


def settings_of(cls: type) -> dict[str, Any]:
    """The settings of a processor class and their types. Raises `UserError` for a type nobody knows."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise UserError(f"{cls.__name__}: its annotations cannot be read: {error}") from None
    return {
        name: kind
        for name, kind in hints.items()
        if not name.startswith("_") and get_origin(kind) is not ClassVar and kind is not ClassVar and hasattr(cls, name)
    }


def name_of(cls: type) -> str:
    """BlockedPump → blocked-pump: the name of a processor that no rule names."""
    return _WORDS.sub("-", cls.__name__).lower()


def argument_of(cls: type, generic: type) -> Any:
    """`S` of `class Mine(generic[S])`; None where it is not said."""
    for base in cls.__mro__:
        for one in getattr(base, "__orig_bases__", ()):
            origin = get_origin(one)
            if isinstance(origin, type) and issubclass(origin, generic):
                [kind] = get_args(one)
                if not isinstance(kind, typing.TypeVar):
                    return kind
    return None
