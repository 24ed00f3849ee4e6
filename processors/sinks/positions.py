"""How far a sink is: the next offset of each partition, in a small file that is replaced as a whole.

It also names where the sink writes to: another database begins anew. It checks itself and lies on the disk twice
(`headwater.sealed`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from headwater.disk import Disk
from headwater.sealed import is_there, read_sealed, write_sealed


class Saved(msgspec.Struct):
    """The file. Keys of `offsets` are `<topic>/<partition>`."""

    target: str
    offsets: dict[str, int]


class Positions:
    """Offsets below which everything is settled: written, or in the dead letters."""

    def __init__(self, disk: Disk, folder: str, name: str, target: str) -> None:
        self._disk = disk
        self._folder = folder
        self._path = f"{folder}/{name}.positions"
        self._target = target
        self._changed = False
        self.offsets: dict[tuple[str, int], int] = {}

    def load(self) -> str:
        """Read the file; returns a sentence when what is there cannot be gone on from, else ""."""
        saved = read_sealed(self._disk, self._path, _saved)
        if saved is None:
            there = is_there(self._disk, self._path)
            return f"{self._path} is damaged, and so is its copy" if there else ""
        if saved.target != self._target:
            return f"{self._path} is of {saved.target}"
        self.offsets = {_place(where): offset for where, offset in saved.offsets.items()}
        return ""

    def settle(self, offsets: dict[tuple[str, int], int]) -> None:
        """Go on, in memory."""
        if offsets:
            self.offsets |= offsets
            self._changed = True

    def save(self) -> None:
        """Replace the file when something changed. Raises OSError."""
        if not self._changed:
            return
        offsets = {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(self.offsets.items())}
        self._disk.make_directory(self._folder)
        write_sealed(self._disk, self._path, {"target": self._target, "offsets": offsets})
        self._changed = False


def _saved(fields: dict[str, Any]) -> Saved:
    """Raises `ValueError`."""
    saved = msgspec.convert(fields, Saved)
    for where in saved.offsets:
        _place(where)
    return saved


def _place(where: str) -> tuple[str, int]:
    topic, _, partition = where.rpartition("/")
    return topic, int(partition)
