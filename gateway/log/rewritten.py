"""What compaction wrote, for where no CRC looks: `<data>/node/rewritten/<topic>-<partition>`.

A compacted log has gaps, and no hash chain of its history, so a flipped base offset, length or epoch can look right.
For each segment that compaction wrote the chain over its own batch headers is noted here (`gateway.log.chain`): once
the segment lies there whole as `.log.cleaned`, right before it becomes `.log.swap`. Where a start finds `.log.cleaned`
it never did, and the note goes. Without a note a segment is taken as it is: another program or version wrote it.
"""

from __future__ import annotations

from collections.abc import Collection

from crc32c import crc32c

from gateway.log.segment_notes import SegmentNotes


class Rewritten(SegmentNotes):
    """The chain over each segment's headers, from `CHAIN_START` on."""

    def note(self, base_offset: int, value: int, replaced: Collection[int]) -> None:
        """Make durable what the segment holds that takes the place of those at `replaced`. Raises `OSError`."""
        with self._lock:
            kept = {base: each for base, each in self._values.items() if base not in replaced}
            self._write(kept | {base_offset: value})

    def forget(self, bases: Collection[int]) -> None:
        """Before these segments become others. Raises `OSError`."""
        with self._lock:
            if self._values.keys() & set(bases):
                self._write({base: each for base, each in self._values.items() if base not in bases})

    @staticmethod
    def encode(values: dict[int, int]) -> bytes:
        """A CRC-32C of what follows, then `base value` a line."""
        body = "".join(f"{base} {value:016x}\n" for base, value in sorted(values.items())).encode()
        return b"%08x\n" % crc32c(body) + body

    @staticmethod
    def decode(data: bytes) -> dict[int, int]:
        noted, _, body = data.partition(b"\n")
        if noted != b"%08x" % crc32c(body):
            raise ValueError("the checksum is wrong")
        rows = (line.split(" ") for line in body.decode("ascii").splitlines())
        return {int(base): int(value, 16) for base, value in rows}
