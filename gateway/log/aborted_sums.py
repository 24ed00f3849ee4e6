"""Checksums of transaction indexes, which Kafka's format has none of: `<data>/node/aborted/<topic>-<partition>`.

Records that were taken back would be served as committed where an index lost an entry. A sum is noted before its index
is written: a crash in between makes the next start derive the index from the batches. Without a note an index is taken
as it is, for an Apache Kafka broker or an older version wrote it.
"""

from __future__ import annotations

from crc32c import crc32c

from gateway.log.segment_notes import SegmentNotes


class AbortedSums(SegmentNotes):
    """The CRC-32C of each segment's index."""

    def note(self, base_offset: int, index: bytes) -> int | None:
        """Make durable what that segment's index will be; `b""`: there will be none. Raises `OSError`."""
        with self._lock:
            noted = crc32c(index) if index else None
            if self._values.get(base_offset) != noted:
                sums = {base: each for base, each in self._values.items() if base != base_offset}
                if noted is not None:
                    sums[base_offset] = noted
                self._write(sums)
            return noted

    @staticmethod
    def encode(values: dict[int, int]) -> bytes:
        """`0`, the count, then `base sum` a line."""
        lines = [f"{base} {each:08x}\n" for base, each in sorted(values.items())]
        return f"0\n{len(lines)}\n{''.join(lines)}".encode()

    @staticmethod
    def decode(data: bytes) -> dict[int, int]:
        version, count, *lines = data.decode("ascii").splitlines()
        sums = {int(base): int(each, 16) for base, each in (line.split(" ") for line in lines)}
        if version != "0" or int(count) != len(sums):
            raise ValueError(f"{len(sums)} sums of {count}, version {version}")
        return sums
