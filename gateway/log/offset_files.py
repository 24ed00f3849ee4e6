"""The offset checkpoints at the root of the log directory, in Kafka's files; each change is durable when it returns.

Recovery points are set by the flusher's thread, the others by upkeep's or in the loop: one at a time, for a change is
made of what the last one left, and written over the same temporary file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from gateway.log import checkpoints
from gateway.log.adoption import partition_of
from gateway.log.checkpoints import Offsets
from headwater.disk import Disk, read_checked, read_or_none

Key = tuple[str, int]
"""(topic, partition)"""


class OffsetFiles:
    """Recovery points, log starts, and how far each compacted log has been cleaned."""

    def __init__(self, disk: Disk, log_dir: str) -> None:
        self._disk = disk
        self._log_dir = log_dir
        self._lock = threading.Lock()
        self.recovery_points: Offsets = {}
        self.starts: Offsets = {}
        self.cleaned: Offsets = {}

    def read(self) -> None:
        """Whatever of them is there; what is missing or damaged is empty, but for the recovery points.

        Each log's is `UNKNOWN` then until it is open, on the disk too: a start that ends halfway has noted some. They
        are there before the first log is, so where there are logs they were lost.
        """
        try:
            self.recovery_points = checkpoints.decode_offsets(
                read_checked(self._disk, f"{self._log_dir}/{checkpoints.RECOVERY_POINTS}")
            )
        except (FileNotFoundError, ValueError):
            found = map(partition_of, self._disk.names(self._log_dir))
            self.recovery_points = {key: checkpoints.UNKNOWN for key in found if key is not None}
        self.starts = self._read(checkpoints.LOG_STARTS)
        self.cleaned = self._read(checkpoints.CLEANED)

    def set_recovery_point(self, key: Key, offset: int) -> None:
        # By the flusher's thread between rounds of its own, or in the loop while no round runs.
        with self._lock:
            points = {**self.recovery_points, key: offset}
            self._write(checkpoints.RECOVERY_POINTS, points)
            self.recovery_points = points

    def set_starts(self, starts: Mapping[Key, int], is_there: Callable[[Key], bool] = lambda _: True) -> None:
        """Note new log starts, before anything below them is removed; only of logs that are still there."""
        with self._lock:
            later = {key: max(at, self.starts.get(key, 0)) for key, at in starts.items() if is_there(key)}
            changed = {**self.starts, **later}
            self._write(checkpoints.LOG_STARTS, changed)
            self.starts = changed

    def set_cleaned(self, key: Key, offset: int) -> None:
        """Note how far a log is compacted; from its first entry on, gaps in it are as they should be."""
        with self._lock:
            changed = {**self.cleaned, key: offset}
            self._write(checkpoints.CLEANED, changed)
            self.cleaned = changed

    def forget(self, keys: Iterable[Key]) -> None:
        """Those logs are gone. Raises `OSError`, and may be called again then."""
        gone = set(keys)
        with self._lock:
            if self.recovery_points.keys() & gone:
                points = {key: at for key, at in self.recovery_points.items() if key not in gone}
                self._write(checkpoints.RECOVERY_POINTS, points)
                self.recovery_points = points
            if self.starts.keys() & gone:
                starts = {key: at for key, at in self.starts.items() if key not in gone}
                self._write(checkpoints.LOG_STARTS, starts)
                self.starts = starts
            if self.cleaned.keys() & gone:
                cleaned = {key: at for key, at in self.cleaned.items() if key not in gone}
                self._write(checkpoints.CLEANED, cleaned)
                self.cleaned = cleaned

    def write_all(self, synced: Offsets, starts: Offsets) -> None:
        """Every file, from what the logs say."""
        with self._lock:
            self._write(checkpoints.HIGH_WATERMARKS, synced)
            self.starts = starts
            self._write(checkpoints.LOG_STARTS, starts)
            self.recovery_points = synced
            self._write(checkpoints.RECOVERY_POINTS, synced)
            self.cleaned = {key: offset for key, offset in self.cleaned.items() if key in synced}
            if self.cleaned or self._disk.exists(f"{self._log_dir}/{checkpoints.CLEANED}"):
                self._write(checkpoints.CLEANED, self.cleaned)

    def _read(self, name: str) -> Offsets:
        try:
            return checkpoints.decode_offsets(read_or_none(self._disk, f"{self._log_dir}/{name}") or b"")
        except ValueError:
            return {}

    def _write(self, name: str, offsets: Offsets) -> None:
        self._disk.replace_file(f"{self._log_dir}/{name}", checkpoints.encode_offsets(offsets))


def log_start(noted: int, bases: list[int]) -> int:
    """Where a log begins whose segments have these bases, ascending, and whose start was noted there.

    Only whole segments ever expire. A note that points into one is damaged, or a broker's that deleted records: all of
    the segment is served. (What was deleted here stands in the list of topics, which checks itself.)
    """
    return max([bases[0], *(base for base in bases if base <= noted)])
