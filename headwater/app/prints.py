"""What users' code prints goes to the node's log, as far as it is bearable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PRINTS_MAX = 20
"""Lines of one process that are passed on; the others are read and dropped, so that it never waits for a full pipe."""
PRINTS_S = 0.5
"""How long its last lines are waited for."""
_LINE_CHARS_MAX = 300


async def pass_prints(process: asyncio.subprocess.Process, say: Callable[[str], None]) -> None:
    """Until the process closes its stderr, which must be a pipe."""
    assert process.stderr is not None  # noqa: S101 - it was asked for
    told = 0
    while data := await process.stderr.read(4096):
        for line in data.decode("utf-8", "replace").splitlines():
            told += 1
            if told <= PRINTS_MAX and line.strip():
                say(line[:_LINE_CHARS_MAX])
