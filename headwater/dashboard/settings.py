"""Settings of a node's page (they live in `headwater.settings`, which lies below this package)."""

from __future__ import annotations

from headwater.settings.page import PageSettings

__all__ = ["PageSettings"]
