"""When the last record of each segment arrived, by the wall clock: what ages are counted from.

Seen from outside, a turn of upkeep at a time, so that appends pay nothing. While the clock is not trusted a time is
unknown, and begins when the clock is trusted first: nothing expires too early. Kept in `<data>/node/arrivals` for
closed segments; where a line is missing, the segment's age begins anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from headwater.disk import Disk, read_or_none

Key = tuple[str, int]
_VERSION = "0"


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
        return f"{_VERSION}\n{len(lines)}\n{''.join(lines)}".encode()

    def save(self, data: bytes) -> None:
        """Blocks. Raises `OSError`."""
        self._disk.replace_file(self._path, data)

    def _read(self) -> None:
        try:
            version, count, *lines = (read_or_none(self._disk, self._path) or b"").decode("ascii").splitlines()
            rows = [line.split(" ") for line in lines]
            if version != _VERSION or int(count) != len(rows):
                return
            for topic, partition, base, arrived in rows:
                self._seen.setdefault((topic, int(partition)), {})[int(base)] = -1, int(arrived)
        except ValueError:
            return
