"""What happens when: the demo's plot as a table. Sans-IO."""

from __future__ import annotations

from typing import Literal, NamedTuple

Action = Literal["overheat on", "overheat off", "cut", "kill"]

OUTAGE_S = 15.0
STORY_S = 60.0
DRAIN_BEGINS_S_MAX = 5.0


class Beat(NamedTuple):
    """One thing that happens, so many seconds after the farm's first reading."""

    at_s: float
    action: Action


# The gearbox stays hot over at least two whole ten-second windows, wherever they begin, and cools before the end.
STORY = (Beat(3.0, "overheat on"), Beat(20.0, "cut"), Beat(40.0, "overheat off"), Beat(45.0, "kill"))


class Plot:
    """Hands out each beat once, when its time has come; those past `ends_s` never."""

    def __init__(self, ends_s: float | None = None) -> None:
        self._left = [beat for beat in STORY if ends_s is None or beat.at_s < ends_s]

    def due(self, now_s: float) -> list[Action]:
        """What is to be done now, in order."""
        due = [beat.action for beat in self._left if beat.at_s <= now_s]
        self._left = [beat for beat in self._left if beat.at_s > now_s]
        return due

    @property
    def over(self) -> bool:
        """Whether everything has happened."""
        return not self._left
