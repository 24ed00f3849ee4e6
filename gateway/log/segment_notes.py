"""One number for each segment of a partition, in a small file of `<data>/node/` that is replaced whole."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from headwater.disk import Disk, read_or_none


class SegmentNotes(ABC):
    """The numbers of one partition's segments, by base offset; for any thread. A file that is damaged holds none."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._lock = threading.Lock()
        try:
            self._values = self.decode(read_or_none(disk, path) or b"")
        except ValueError:
            self._values = {}

    def of(self, base_offset: int) -> int | None:
        """That segment's number, None where none is noted."""
        return self._values.get(base_offset)

    def _write(self, values: dict[int, int]) -> None:
        self._disk.replace_file(self._path, self.encode(values))
        self._values = values

    @staticmethod
    @abstractmethod
    def encode(values: dict[int, int]) -> bytes:
        """The bytes of the file."""

    @staticmethod
    @abstractmethod
    def decode(data: bytes) -> dict[int, int]:
        """The inverse. Raises `ValueError` for anything but a whole file."""
