"""What has expired: counted per partition, ranges of what the central never had, events that wait to be written.

Kept in `<data>/node/expired.json` and its copy, so that a restart does not forget that data had to go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from functools import partial
from typing import Any

import msgspec

from gateway.log.segment import Segment, headers
from headwater.disk import Disk
from headwater.errors import HeadwaterError
from headwater.sealed import is_there, read_sealed, seal, write_copies

_log = logging.getLogger(__name__)

RANGES_MAX = 16
WAITING_MAX = 64
Emit = Callable[..., None]
WhenSynced = Callable[[Callable[[], None], Callable[[], None]], None]
"""(done, failed): one of them is called once what was emitted so far is on disk, or is lost."""


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """Records [first, end) of a partition that are gone, and why; times are those of the records, in ms.

    `owed_from` is the first offset of them that the central does not have (or never would have), None when it has all.
    """

    topic: str
    partition: int
    first: int
    end: int
    bytes: int
    from_ms: int
    to_ms: int
    cause: str
    at_ms: int
    owed_from: int | None = None


class Total(msgspec.Struct, kw_only=True):
    """Of one partition, since the data directory was made."""

    records: int = 0
    bytes: int = 0
    owed_records: int = 0


class _File(msgspec.Struct, kw_only=True):
    v: int = 1
    totals: dict[str, Total] = {}
    owed: list[Expired] = []
    deleted: dict[str, int] = {}


class Expiries:
    """The books of expiry of one node."""

    def __init__(self, disk: Disk, path: str, emit: Emit, when_synced: WhenSynced) -> None:
        """`emit(kind, **detail)` writes an event; it may raise, and is tried again later."""
        self._disk = disk
        self._path = path
        self._emit = emit
        self._when_synced = when_synced
        self._waiting: list[Expired] = []
        self.under_way = 0  # events that are written and not yet on disk
        self._file = self._read()

    def note(self, expired: Expired) -> None:
        """Count it; its event is written at once, or when the disk takes it."""
        total = self._file.totals.setdefault(f"{expired.topic}/{expired.partition}", Total())
        total.records += expired.end - expired.first
        total.bytes += expired.bytes
        if expired.owed_from is not None:
            total.owed_records += expired.end - expired.owed_from
            self._file.owed = [*self._file.owed, expired][-RANGES_MAX:]
        self._waiting.append(expired)
        self.tell()

    def deleted_below(self, log_id: str) -> int:
        """Up to where deletions by clients are in the books, of one log."""
        return self._file.deleted.get(log_id, 0)

    def note_deleted(self, log_id: str, expired: Expired) -> None:
        """Count what clients have deleted; its bytes are freed later."""
        self._file.deleted[log_id] = expired.end
        self.note(expired)

    def note_freed(self, topic: str, partition: int, size_bytes: int) -> None:
        """Files went of which every record was counted before."""
        self._file.totals.setdefault(f"{topic}/{partition}", Total()).bytes += size_bytes

    def forget_others(self, log_ids: Container[str]) -> None:
        """Deletions in logs that are gone are of no use any more."""
        self._file.deleted = {each: end for each, end in self._file.deleted.items() if each in log_ids}

    def tell(self) -> None:
        """Write the events that wait. Beyond `WAITING_MAX` the oldest are merged: fewer events, no fewer records."""
        while self._waiting:
            try:
                self._emit("expiry", **msgspec.to_builtins(self._waiting[0]))
            except (HeadwaterError, OSError):
                break
            one = self._waiting.pop(0)
            self.under_way += 1
            self._when_synced(self._is_told, partial(self._is_lost, one))
        if len(self._waiting) > WAITING_MAX:
            self._waiting = _merged(self._waiting)

    def _is_told(self) -> None:
        self.under_way -= 1

    def _is_lost(self, one: Expired) -> None:
        self.under_way -= 1
        self._waiting.append(one)

    def encode(self) -> bytes:
        return seal(msgspec.to_builtins(self._file))

    def save(self, data: bytes) -> None:
        """Blocks. Raises `OSError`."""
        write_copies(self._disk, self._path, data)

    def status(self) -> dict[str, Any]:
        """Totals per partition, and the last ranges that the central does not have."""
        found: dict[str, Any] = msgspec.to_builtins(self._file)
        return {"expired": found["totals"], "owed": found["owed"]}

    def _read(self) -> _File:
        found = read_sealed(self._disk, self._path, lambda fields: msgspec.convert(fields, _File))
        if found is None and is_there(self._disk, self._path):
            _log.error("%s is damaged, and so is its copy: what has expired is counted from 0 again", self._path)
        return found or _File()


def _merged(waiting: list[Expired]) -> list[Expired]:
    merged: dict[tuple[str, int, str], Expired] = {}
    for one in waiting:
        key = one.topic, one.partition, one.cause
        before = merged.get(key)
        merged[key] = (
            one
            if before is None
            else msgspec.structs.replace(
                before,
                end=max(before.end, one.end),
                bytes=before.bytes + one.bytes,
                to_ms=max(before.to_ms, one.to_ms),
                owed_from=one.owed_from if before.owed_from is None else before.owed_from,
            )
        )
    return list(merged.values())


def times_of(disk: Disk, segments: list[Segment], first: int, end: int) -> tuple[int, int]:
    """Blocks: first and greatest time that headers of batches with offsets in [first, end) name, or (-1, -1)."""
    least, greatest = -1, -1
    for segment in segments:
        try:
            handle = disk.open(segment.log_path)
        except OSError:
            continue
        try:
            for _, fields, _ in headers(disk, handle, 0, segment.size):
                if fields[0] < end and fields[0] + fields[6] >= first:
                    least = fields[7] if least < 0 else least
                    greatest = max(greatest, fields[8])
        except (HeadwaterError, OSError):
            continue
        finally:
            disk.close(handle)
    return least, greatest
