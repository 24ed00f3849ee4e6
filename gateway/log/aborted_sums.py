"""Checksums of transaction indexes, which Kafka's format has none of: `<data>/node/aborted/<topic>-<partition>`.

Records that were taken back would be served as committed where an index lost an entry. A sum is noted before its index
is written: a crash in between makes the next start derive the index from the batches. Without a note an index is taken
as it is, for an Apache Kafka broker or an older version wrote it.
"""

from __future__ import annotations

import threading

from crc32c import crc32c

from headwater.disk import Disk, read_or_none


class AbortedSums:
    """The sums of one partition's segments, by base offset; for any thread."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._lock = threading.Lock()
        self._sums = _decode(read_or_none(disk, path) or b"")

    def of(self, base_offset: int) -> int | None:
        """The CRC-32C of that segment's index, None where it is not noted."""
        return self._sums.get(base_offset)

    def note(self, base_offset: int, index: bytes) -> int | None:
        """Make durable what that segment's index will be; `b""`: there will be none. Raises `OSError`."""
        with self._lock:
            noted = crc32c(index) if index else None
            if self._sums.get(base_offset) != noted:
                sums = {base: each for base, each in self._sums.items() if base != base_offset}
                if noted is not None:
                    sums[base_offset] = noted
                self._write(sums)
            return noted

    def _write(self, sums: dict[int, int]) -> None:
        lines = [f"{base} {each:08x}\n" for base, each in sorted(sums.items())]
        self._disk.replace_file(self._path, f"0\n{len(lines)}\n{''.join(lines)}".encode())
        self._sums = sums


def _decode(data: bytes) -> dict[int, int]:
    try:
        version, count, *lines = data.decode("ascii").splitlines()
        sums = {int(base): int(each, 16) for base, each in (line.split(" ") for line in lines)}
        return sums if version == "0" and int(count) == len(sums) else {}
    except ValueError:
        return {}
