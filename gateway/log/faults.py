"""What checking a data directory finds."""

from __future__ import annotations

from typing import NamedTuple

DAMAGED, MISSING, INDEX, CHAIN, FILE, TAIL = (
    "damaged range",
    "range missing",
    "index disagrees",
    "chain disagrees",
    "damaged file",
    "unfinished tail",
)


class Fault(NamedTuple):
    """One thing that is not as it should be; a `TAIL` is what any crash leaves, and the next start mends it.

    Offsets [first, end) are concerned, -1 where that cannot be said; `position` is the byte in the file.
    """

    kind: str
    path: str
    first: int
    end: int
    position: int
    detail: str
