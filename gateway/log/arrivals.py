"""When the last record of each segment arrived, by the wall clock: what ages are counted from.

Seen from outside, a turn of upkeep at a time, so that appends pay nothing. While the clock is not trusted a time is
unknown, and begins when the clock is trusted first: nothing expires too early. Kept in `<data>/node/arrivals` for
closed segments; where a line is missing, or the file is damaged, the segment's age begins anew.

    1 <CRC-32C of what follows, 8 hex digits>
    <number of lines>
    <topic> <partition> <base offset> <wall ms>        for each segment
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence

from crc32c import crc32c

from headwater.disk import Disk, read_or_none

_log = logging.getLogger(__name__)

Key = tuple[str, int]
_VERSION = b"1"
_WITHOUT_SUM = b"0"


class Arrivals:
    """Per partition: segment base offset -> size in bytes when last seen, and wall time of its last change."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._seen: dict[Key, dict[int, tuple[int, int | None]]] = {}
        self._active: dict[Key, int] = {}
        self._changed = False
        self._read()

    def observe(self, key: Key, segments: Sequence[tuple[int, int]], now_ms: int | None) -> None:
        """Look at a partition's segments, (base offset, size), oldest first; the last one is active."""
        seen = self._seen.setdefault(key, {})
        bases = [base for base, _ in segments]
        for base in [base for base in seen if base not in set(bases)]:
            # Merged by compaction into the one before, which is as young as its youngest; or gone.
            _, arrived = seen.pop(base)
            slot = bisect_right(bases, base) - 1
            if slot >= 0 and arrived is not None and (into := seen.get(bases[slot])) is not None:
                seen[bases[slot]] = into[0], max(arrived, into[1] or 0)
            self._changed = True
        for slot, (base, size) in enumerate(segments):
            known = seen.get(base)
            was_active = slot == len(bases) - 1 or base == self._active.get(key)
            grown = known is not None and was_active and known[0] != size
            ahead = known is not None and now_ms is not None and (known[1] or 0) > now_ms  # the clock stepped back
            if known is None or known[1] is None or grown or ahead:
                seen[base] = size, now_ms
        if self._active.get(key) != bases[-1]:
            self._active[key] = bases[-1]
            self._changed = True

    def of(self, key: Key, base_offset: int) -> int | None:
        """Wall ms of a segment's last arrival, None while it is not known."""
        return self._seen.get(key, {}).get(base_offset, (0, None))[1]

    def forget_others(self, keys: set[Key]) -> None:
        """Topics that are gone."""
        for key in set(self._seen) - keys:
            del self._seen[key]
            self._active.pop(key, None)
            self._changed = True

    @property
    def changed(self) -> bool:
        """Whether segments came or went since the last `save`."""
        return self._changed

    def encode(self) -> bytes:
        """The file as it should be; what comes after counts as a change again."""
        self._changed = False
        lines = [
            f"{topic} {partition} {base} {arrived}\n"
            for (topic, partition), seen in sorted(self._seen.items())
            for base, (_, arrived) in sorted(seen.items())
            if arrived is not None and base != self._active.get((topic, partition))
        ]
        body = f"{len(lines)}\n{''.join(lines)}".encode()
        return b"%b %08x\n%b" % (_VERSION, crc32c(body), body)

    def save(self, data: bytes) -> None:
        """Blocks. Raises `OSError`."""
        self._disk.replace_file(self._path, data)

    def _read(self) -> None:
        data = read_or_none(self._disk, self._path)
        try:
            rows = decode_arrivals(data or b"") if data is not None or self._disk.exists(self._path) else []
        except ValueError as error:
            _log.error("%s is damaged (%s): the age of segments begins anew, they are kept longer", self._path, error)
            return
        for topic, partition, base, arrived in rows:
            self._seen.setdefault((topic, partition), {})[base] = -1, arrived


def decode_arrivals(data: bytes) -> list[tuple[str, int, int, int]]:
    """(topic, partition, base offset, arrival). Raises `ValueError` for anything but a whole file."""
    head, _, body = data.partition(b"\n")
    if head not in (_WITHOUT_SUM, b"%b %08x" % (_VERSION, crc32c(body))):
        raise ValueError("the checksum is wrong" if body else "nothing can be read")
    count, *lines = body.decode("ascii").splitlines()
    if int(count) != len(lines):
        raise ValueError(f"{len(lines)} lines of {count}")
    rows = [line.split(" ") for line in lines]
    return [(topic, int(partition), int(base), int(arrived)) for topic, partition, base, arrived in rows]
