"""Which topics may be written to by users' processors, and read by windows, as far as rules alone say it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from processors.user.rule import ProcessorRule

_RESULTS = frozenset(("aggregates", "alerts", "late"))
_OURS = frozenset(("readings", "raw", "devices", "deadletter", "events", *_RESULTS))
_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,200}")


def why_not(topic: str, reads: str) -> str:
    """Why a processor that reads `reads` cannot write to a topic; "" when it can."""
    if topic == reads:
        return "it is what it reads"
    if topic in _OURS or topic.startswith(("headwater.", "__")) or topic.endswith("-changelog"):
        return "Headwater's own"
    return "" if _TOPIC.fullmatch(topic) else "no name of a topic"


def why_not_windowed(topic: str) -> str:
    """Why there can be no windows over a topic; "" when there can."""
    if topic in _RESULTS or topic.endswith("-repartition"):
        return "results of windows are written there, and each would be followed by others for ever"
    if topic != "readings" and why_not(topic, "") == "Headwater's own":
        return "it is Headwater's own, and has no readings whose marks would close windows"
    return "" if _TOPIC.fullmatch(topic) else "that is no name of a topic"


def circle(rules: Sequence[ProcessorRule], first: int) -> list[str]:
    """The topics from what processor `first` reads back to it, through others that read what it writes; [] if none.

    Every record on such a way would be followed by another for ever. `rules` with what their classes declare, where
    that can be read (`declared`): one that says nothing of its topics is on no way.
    """
    start = rules[first].topic
    ways = [[start, topic] for topic in rules[first].out] if start else []
    seen = set[str]()
    while ways:
        way = ways.pop(0)
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, topic] for rule in rules if rule.topic == way[-1] for topic in rule.out]
    return []
