"""A topic's settings by Kafka's names: which of them a log obeys, and what they mean.

Settings that a node does not know are kept and shown, as clients set them; a value that cannot be is refused when the
topic is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.log.errors import InvalidTopic
from gateway.log.settings import LogSettings

DAY_MS = 24 * 3_600_000
COMPACT_SEGMENT_BYTES = 1 << 20
_SEGMENT_BYTES_MIN, _SEGMENT_BYTES_MAX = 1_024, 1 << 30


class TopicConfig(NamedTuple):
    """What the log obeys of a topic's settings; None where the topic says nothing.

    `retention_ms` and `retention_bytes` (per partition) are -1 where the topic says “without limit”.
    """

    compact: bool = False
    delete: bool = True
    retention_ms: int | None = None
    retention_bytes: int | None = None
    segment_ms: int | None = None
    segment_bytes: int | None = None
    delete_retention_ms: int = DAY_MS
    min_cleanable_ratio: float = 0.5

    def log_settings(self, settings: LogSettings) -> LogSettings:
        """`settings` with this topic's segments. Only closed segments are compacted: those of such topics are small."""
        segment_bytes = self.segment_bytes
        if segment_bytes is None and self.compact:
            segment_bytes = min(settings.segment_bytes, COMPACT_SEGMENT_BYTES)
        return msgspec.structs.replace(
            settings,
            segment_bytes=settings.segment_bytes if segment_bytes is None else segment_bytes,
            segment_ms=settings.segment_ms if self.segment_ms is None else self.segment_ms,
        )


def parse_config(config: Mapping[str, str]) -> TopicConfig:
    """Raises `InvalidTopic` for a value that its setting cannot have."""
    found = TopicConfig()
    for name, text in config.items():
        if (setting := _SETTINGS.get(name)) is not None:
            try:
                found = found._replace(**setting(text))
            except ValueError:
                raise InvalidTopic(f"{name} cannot be “{text}”", hint=_HINTS.get(name, _NUMBER)) from None
    return found


def lenient_config(config: Mapping[str, str]) -> TopicConfig:
    """The same for settings that are stored: a value that cannot be counts as not said."""
    found = TopicConfig()
    for name, text in config.items():
        try:
            found = found._replace(**_SETTINGS[name](text))
        except (KeyError, ValueError):
            continue
    return found


def _policy(text: str) -> dict[str, Any]:
    words = {word.strip() for word in text.split(",")}
    if not words or words - {"compact", "delete"}:
        raise ValueError(text)
    return {"compact": "compact" in words, "delete": "delete" in words}


def _number(field: str, least: int, most: int | None = None) -> Callable[[str], dict[str, Any]]:
    def parse(text: str) -> dict[str, Any]:
        number = int(text)
        if number < least or (most is not None and number > most):
            raise ValueError(text)
        return {field: number}

    return parse


def _ratio(text: str) -> dict[str, Any]:
    ratio = float(text)
    if not 0 <= ratio <= 1:
        raise ValueError(text)
    return {"min_cleanable_ratio": ratio}


_SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "cleanup.policy": _policy,
    "retention.ms": _number("retention_ms", -1),
    "retention.bytes": _number("retention_bytes", -1),
    "segment.ms": _number("segment_ms", 1),
    "segment.bytes": _number("segment_bytes", _SEGMENT_BYTES_MIN, _SEGMENT_BYTES_MAX),
    "delete.retention.ms": _number("delete_retention_ms", 0),
    "min.cleanable.dirty.ratio": _ratio,
}
_NUMBER = "Give a whole number within the setting's range, as Kafka's documentation names it."
_HINTS = {
    "cleanup.policy": "Give “delete”, “compact” or “compact,delete”.",
    "min.cleanable.dirty.ratio": "Give a number from 0 to 1.",
}
