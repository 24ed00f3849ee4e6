"""Topic patterns: MQTT's + and #, and placeholders that capture a device, a field or labels from a topic's levels.

`site/{site}/{device}/{field}` takes in `site/north/pump1/temperature`: device `pump1`, field `temperature` and the
label `site` = `north`. `{device}` and `{field}` have a meaning of their own, any other name is a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from devices.profiles import Profile
from headwater.errors import UserError

_PLACEHOLDER = re.compile(r"\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Captured(NamedTuple):
    """What a topic says by itself. `field` is "" when the pattern captures none."""

    device: str
    field: str
    labels: dict[str, str]


class TopicMatcher:
    """Topic → (profile, device): the first profile with a matching pattern; else none, and the topic is the device."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._patterns = [
            (compile_topic(topic, profile.name), profile) for profile in profiles for topic in profile.topics
        ]

    def match(self, topic: str) -> tuple[Profile | None, str]:
        for pattern, profile in self._patterns:
            if (found := pattern.fullmatch(topic)) is not None:
                return profile, found.groupdict().get("device") or profile.device or topic
        return None, topic

    def captured(self, topic: str) -> Captured | None:
        """Device, field and labels of a topic that some profile's pattern takes in; None when none does."""
        for pattern, profile in self._patterns:
            if (found := pattern.fullmatch(topic)) is not None:
                names = found.groupdict()
                device = names.pop("device", "") or profile.device or topic
                return Captured(device, names.pop("field", ""), names)
        return None


def placeholders(topic: str) -> list[str]:
    """The names in braces, in order."""
    return _PLACEHOLDER.findall(topic)


def compile_topic(topic: str, where: str) -> re.Pattern[str]:
    """A pattern with a named group per placeholder. Raises `UserError`; `where` names the profile."""

    def refuse(what: str, hint: str = "") -> UserError:
        return UserError(f"profile {where}: topic “{topic}” {what}", hint=hint)

    names = placeholders(topic)
    for name in names:
        if not _NAME.fullmatch(name):
            raise refuse(f"has the placeholder {{{name}}}, which is no name", "Letters, digits and _, as {device}.")
        if names.count(name) > 1:
            raise refuse(f"has the placeholder {{{name}}} twice", "Write + for a level that does not matter.")
    levels = []
    parts = topic.split("/")
    for index, level in enumerate(parts):
        if level == "#" and index == len(parts) - 1:
            levels.append(".*")
        elif level == "+":
            levels.append("[^/]*")
        elif "+" in level or "#" in level:
            raise refuse(": + and # stand alone in a level, # only in the last")
        elif len(placeholders(level)) > 1:
            # one of them only: where one ends and the next begins, no one could say, and a hostile topic would search
            raise refuse(f"has two placeholders in the level {level}", "Write one per level.")
        else:
            before, name, after = _split(level)
            levels.append(re.escape(before) + (f"(?P<{name}>[^/]+)" if name else "") + re.escape(after))
    if len(levels) > 1 and parts[-1] == "#":  # it takes in the level above as well (MQTT 5.0, 4.7.1.2)
        return re.compile(f"{'/'.join(levels[:-1])}(?:/.*)?", re.DOTALL)
    return re.compile("/".join(levels), re.DOTALL)


def _split(level: str) -> tuple[str, str, str]:
    found = _PLACEHOLDER.search(level)
    return (level, "", "") if found is None else (level[: found.start()], found.group(1), level[found.end() :])
