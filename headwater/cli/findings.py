"""What `headwater doctor` finds: one line each, with the next step."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One thing that was looked at; `then` is the next step, "" where there is none."""

    level: Level
    about: str
    said: str
    then: str = ""
