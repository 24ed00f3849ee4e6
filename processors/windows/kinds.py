"""The state of a window rule by its kind."""

from __future__ import annotations

from processors.columns import KeyTable
from processors.rules.model import DEVICE_ZONE, WindowRule
from processors.windows.closing import WindowState
from processors.windows.gridded import GridWindows, ZonedWindows
from processors.windows.hopping import HoppingWindows
from processors.windows.sessions import SessionWindows

_KINDS: dict[str, type[WindowState]] = {"hopping": HoppingWindows, "session": SessionWindows}


def window_state(rule: WindowRule, keys: KeyTable) -> WindowState:
    """An empty state for a rule over the keys of one partition."""
    if rule.zone == DEVICE_ZONE:
        return ZonedWindows(rule, keys)
    return _KINDS.get(rule.kind, GridWindows)(rule, keys)
