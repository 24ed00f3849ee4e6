"""How far a sink is: the next offset of each partition, in a small file that is replaced as a whole.

It also names where the sink writes to: another database begins anew. It checks itself (`headwater.sealed`).
"""

from __future__ import annotations

import msgspec

from headwater.disk import Disk, read_or_none
from headwater.errors import UNREADABLE
from headwater.sealed import seal, unseal


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
        data = read_or_none(self._disk, self._path)
        if data is None:
            return f"{self._path} lies on a bad sector" if self._disk.exists(self._path) else ""
        try:
            saved = msgspec.convert(unseal(data), Saved)
            found = {}
            for where, offset in saved.offsets.items():
                topic, _, partition = where.rpartition("/")
                found[topic, int(partition)] = offset
        except UNREADABLE as error:
            return f"{self._path} cannot be used: {error}"
        if saved.target != self._target:
            return f"{self._path} is of {saved.target}"
        self.offsets = found
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
        self._disk.replace_file(self._path, seal({"target": self._target, "offsets": offsets}))
        self._changed = False
