"""A user's processor must not fork: its process holds connections, locks and the watch over its calls.

A copy of it would hold them too, answer in its name, and outlive whoever stops it. An audit hook (PEP 578) sees each
fork before it happens and raises in the user's own line; `subprocess` starts other programs and is no such fork.
"""

from __future__ import annotations

import sys
from typing import Any

_FORKS = frozenset(("os.fork", "os.forkpty"))


def refuse_forks() -> None:
    """From here on, and for good: a hook cannot be taken out."""
    sys.addaudithook(_look)


def _look(event: str, _: tuple[Any, ...]) -> None:
    if event in _FORKS:
        raise RuntimeError("a processor cannot fork (nor start multiprocessing by fork); subprocess can start programs")
