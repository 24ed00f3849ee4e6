"""Where tables are printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_COLUMNS = 1_000


def console() -> Console:
    """A terminal as wide as it is; a file or a pipe as wide as the table, since grep finds nothing in `shed/pum…`."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_COLUMNS)
