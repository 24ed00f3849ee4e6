"""Where tables are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FILE_COLUMNS = 1_000


@contextmanager
def console() -> Iterator[Console]:
    """A terminal as wide as it is; a file or a pipe as wide as the content, since grep finds nothing in `shed/pum…`.

    Texts are taken as they are: `[red]` or `:ok:` in a client's id is no markup, and `[/x]` would be a mistake in it.
    What is drawn is printed at the end, each line without the spaces that fill a table's last column.
    """
    from rich.console import Console

    screen = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else FILE_COLUMNS)
    with screen.capture() as drawn:
        yield screen
    sys.stdout.write("\n".join(line.rstrip() for line in drawn.get().split("\n")))
