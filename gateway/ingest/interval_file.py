"""The intervals that were learnt, in a file: a node that restarts does not learn them anew.

`<data_dir>/node/intervals` is JSON: `{"v": 1, "sources": {source id: milliseconds}}`. It is written when something was
learnt, at most every `WRITE_EVERY_MS`, and at the end of a run. It checks itself (`headwater.sealed`); lost or damaged
it costs the learning, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial

import msgspec

from gateway.driving import off_the_loop
from gateway.ingest.marks import MarkMaker
from headwater.disk import Disk
from headwater.sealed import is_there, read_sealed, seal

_log = logging.getLogger("headwater.ingest")

WRITE_EVERY_MS = 600_000
SOURCES_MAX = 10_000


class _File(msgspec.Struct):
    v: int
    sources: dict[str, int]


class IntervalFile:
    """Reads it once, and keeps it up to date."""

    def __init__(self, disk: Disk, data_dir: str, marks: MarkMaker) -> None:
        self._disk = disk
        self._path = os.path.join(data_dir, "node", "intervals")
        self._marks = marks
        self._written: dict[str, int] = {}
        self._read()

    def _read(self) -> None:
        found = read_sealed(self._disk, self._path, lambda fields: msgspec.convert(fields, _File))
        if found is None:
            if is_there(self._disk, self._path):
                _log.warning("%s is damaged, and intervals are learnt anew", self._path)
            return
        self._written = dict(list(found.sources.items())[:SOURCES_MAX]) if found.v == 1 else {}
        for source_id, learnt_ms in self._written.items():
            if learnt_ms > 0:
                self._marks.source(source_id).remember(learnt_ms)

    async def run(self) -> None:
        """Write now and then, for ever; the loop never waits for the disk."""
        while True:
            await asyncio.sleep(WRITE_EVERY_MS / 1000)
            await off_the_loop(partial(self._write, self._marks.intervals()))

    def close(self) -> None:
        self._write(self._marks.intervals())

    def _write(self, known: dict[str, int]) -> None:
        if known == self._written:
            return
        try:
            self._disk.replace_file(self._path, seal({"v": 1, "sources": known}))
        except OSError as error:  # a disk that fails costs only the learning
            _log.warning("%s could not be written: %s", self._path, error)
            return
        self._written = known
