"""The state of a window rule by its kind."""

from __future__ import annotations

from processors.closing import WindowState
from processors.columns import KeyTable
from processors.hopping import HoppingWindows
from processors.rules import DEVICE_ZONE, WindowRule
from processors.sessions import SessionWindows
from processors.windows import GridWindows, ZonedWindows

_KINDS: dict[str, type[WindowState]] = {"hopping": HoppingWindows, "session": SessionWindows}


def window_state(rule: WindowRule, keys: KeyTable) -> WindowState:
    """An empty state for a rule over the keys of one partition."""
    if rule.zone == DEVICE_ZONE:
        return ZonedWindows(rule, keys)
    return _KINDS.get(rule.kind, GridWindows)(rule, keys)
