"""Sockets that a test leaves open in a loop that it closes.

The collector finds such a socket at any later time, and its ResourceWarning fails whichever test runs then, on a busy
machine another one each time. Looked for when the loop is closed, they are told of the test that left them.
"""

from __future__ import annotations

from asyncio import selector_events
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def _shut(transport: Any) -> str:
    """Close a transport whose loop runs no more: what it was, for people."""
    what = f"{transport!r} of {type(transport.get_protocol()).__name__}"
    transport._sock.close()
    transport._sock, transport._closing = None, True  # or its own __del__ would warn, too
    return what


@contextmanager
def sockets_left() -> Iterator[list[str]]:
    """The connections that are still open in event loops which are closed meanwhile; they are closed with them."""
    left: list[str] = []
    loops: Any = selector_events.BaseSelectorEventLoop
    close = loops.close

    def close_and_look(loop: Any) -> None:
        if not loop.is_closed() and not loop.is_running():
            left.extend(_shut(each) for each in list(loop._transports.values()) if each._sock is not None)
        close(loop)

    loops.close = close_and_look
    try:
        yield left
    finally:
        loops.close = close
