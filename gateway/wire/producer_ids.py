"""Producer ids that are never given twice, through every restart.

Ids come in blocks. The end of the block in use is on disk (`<data>/node/producer-ids`, one line of text) before
the first id of the block is given, so a restart wastes the rest of a block and repeats nothing.

An Apache Kafka broker counts from 0. Ours begin where it never comes to: a broker that goes on with our log would give
an id that is in it again, and take what its new owner writes for repeats.
"""

from __future__ import annotations

import contextlib
import logging

from headwater.disk import Disk, read_or_none
from headwater.sealed import seal_number, unseal_number

logger = logging.getLogger(__name__)

FIRST = 1 << 40
BLOCK = 1000
_LEAP = 1_000_000
# Batches may bear any id. Only those below this count as given by a coordinator: Kafka's ids have 63 bits.
GIVEN_MAX = 1 << 62


class ProducerIds:
    """Gives ids; `at_least` is above every id that is known from elsewhere, should the file be lost.

    `fresh`: nothing was ever written here, so no id can have been given.
    """

    def __init__(self, disk: Disk, path: str, *, at_least: int = 0, fresh: bool = True) -> None:
        self._disk = disk
        self._path = path
        self._end = max(_read(disk, path, max(at_least, FIRST), fresh=fresh), at_least, FIRST)
        self._next = self._end

    def next(self) -> int:
        """A new id. Raises `OSError` when the next block cannot be made durable."""
        if self._next >= self._end:
            end = self._next + BLOCK
            self._disk.replace_file(self._path, seal_number(end))
            self._end = end
        producer_id = self._next
        self._next += 1
        return producer_id


def _read(disk: Disk, path: str, at_least: int, *, fresh: bool) -> int:
    with contextlib.suppress(ValueError):
        if (end := unseal_number(read_or_none(disk, path) or b"")) < GIVEN_MAX:
            return end
    lost = disk.exists(path)
    if fresh and not lost:
        return 0
    # A node always starts: leap over whatever idempotent producers may have been given and nobody remembers.
    end = at_least + _LEAP
    if at_least > FIRST or lost:
        logger.error("%s holds no number: producer ids go on at %d", path, end)
    return end
