"""The event loop as ingest sees it, so that tests can turn it by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Loop(Protocol):
    """What the pipeline needs of an event loop; asyncio's is one."""

    def call_soon(self, callback: Callable[[], None], /) -> Any: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> Any: ...
