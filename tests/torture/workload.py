"""The reference workload on a real directory, in a process that is to be killed.

`python -m tests.torture.workload DIRECTORY LEDGER`: before each call that changes files the ledger as it is then goes
into the file LEDGER through shared memory, without a system call, so that it is there whenever the kill comes.
"""

from __future__ import annotations

import mmap
import pickle
import sys
from pathlib import Path
from typing import Any

from headwater.disk import RealDisk
from tests.torture.ledger import Ledger
from tests.torture.world import NOW_MS, World, script

SLOT_BYTES = 1 << 20
_CHANGING = frozenset(
    {"open", "append", "truncate", "sync", "make_directory", "rename", "remove", "remove_directory"}
    | {"sync_directory", "replace_file"}
)


def make_ledger(path: Path) -> None:
    """An empty file for `read_ledger`."""
    path.write_bytes(bytes(1 + 2 * SLOT_BYTES))


def read_ledger(path: Path) -> tuple[Ledger, int]:
    """What the workload had sent and knew to be acknowledged, and its wall clock, when it was killed."""
    data = path.read_bytes()
    if not data[0]:
        return Ledger(), NOW_MS
    start = 1 + (data[0] - 1) * SLOT_BYTES
    told: tuple[Ledger, int] = pickle.loads(memoryview(data)[start:])
    return told


class Telling:
    """A disk that tells the ledger before each call that changes something."""

    def __init__(self, ledger_path: str) -> None:
        self._inner = RealDisk()
        with open(ledger_path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.world: World | None = None
        self.failing: dict[str, OSError] = {}

    def tell(self) -> None:
        if self.world is None:
            return
        data = pickle.dumps((self.world.ledger, self.world.clock.wall_ms()))
        assert len(data) < SLOT_BYTES
        slot = 1 if self._memory[0] == 2 else 2
        start = 1 + (slot - 1) * SLOT_BYTES
        self._memory[start : start + len(data)] = data
        self._memory[0] = slot  # a kill before this leaves the other one

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in _CHANGING:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            self.tell()
            if name == "sync" and (error := self.failing.pop("fdatasync", None)) is not None:
                raise error
            return method(*arguments, **options)

        return call


def main(directory: str, ledger_path: str) -> None:
    telling = Telling(ledger_path)
    disk: Any = telling

    def reopen(old: World) -> World:
        return World(disk, old.ledger, wall_ms=old.clock.wall_ms(), data=directory)

    telling.world = first = World(disk, data=directory)
    for world in script(first, telling.failing.__setitem__, reopen):
        telling.world = world
    telling.tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
