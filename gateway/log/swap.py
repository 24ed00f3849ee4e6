"""Putting a rewritten segment in the place of others, by Kafka's file names, so that a crash at any point recovers.

The new segment is written as `<base>.log.cleaned`. Synced, and with its indexes beside it as `.swap`, it is renamed to
`<base>.log.swap`: from that moment the swap is to be finished, by `swap_in` or by the next start. The old segments
become `.deleted`, the new files take their names, the log last; then the deleted ones are removed.
"""

from __future__ import annotations

import contextlib
import re

from gateway.log.errors import CorruptBatch
from gateway.log.segment import headers
from headwater.disk import Disk, read_or_none

CLEANED, SWAP, DELETED = ".cleaned", ".swap", ".deleted"
INDEXES = (".index", ".timeindex", ".txnindex")
_SWAP_NAME = re.compile(r"\d{20}\.log\.swap")
_LOG_NAME = re.compile(r"\d{20}\.log")


def commit_cleaned(disk: Disk, directory: str, path: str, indexes: dict[str, bytes]) -> None:
    """Blocks: from the rename of the log on, recovery finishes what follows."""
    for suffix, data in indexes.items():
        disk.replace_file(path + suffix + SWAP, data)
    disk.rename(path + ".log" + CLEANED, path + ".log" + SWAP)
    disk.sync_directory(directory)


def swap_in(disk: Disk, path: str, others: list[str]) -> None:
    """Give the new files their names, the log last: until then a crash finds the swap to be finished.

    `others` are the segments that the new one takes in beside the one of its own name. Raises `OSError` with the old
    segments in place.
    """
    moved: list[str] = []
    before: dict[str, bytes | None] = {}
    try:
        for other in others:
            disk.rename(other + ".log", other + ".log" + DELETED)
            moved.append(other)
        for suffix in INDEXES:
            if disk.exists(path + suffix + SWAP):
                old = read_or_none(disk, path + suffix)
                disk.rename(path + suffix + SWAP, path + suffix)
                before[suffix] = old
        disk.rename(path + ".log" + SWAP, path + ".log")
    except OSError:
        for other in moved:
            with contextlib.suppress(OSError):
                disk.rename(other + ".log" + DELETED, other + ".log")
        for suffix, index in before.items():
            with contextlib.suppress(OSError):
                # First the new one away: a crash in between still finds the whole swap to be finished.
                disk.rename(path + suffix, path + suffix + SWAP)
                if index is not None:
                    disk.replace_file(path + suffix, index)
        raise


def clear_swapped(disk: Disk, directory: str, path: str, others: list[str]) -> None:
    """Blocks: make a swap durable, then remove what it replaced."""
    disk.sync_directory(directory)
    for other in others:
        for name in (other + ".log" + DELETED, *(other + suffix for suffix in INDEXES)):
            if disk.exists(name):
                disk.remove(name)
    if read_or_none(disk, path + ".txnindex") == b"":
        disk.remove(path + ".txnindex")
    disk.sync_directory(directory)


def finish_swaps(disk: Disk, directory: str) -> None:
    """At a start: finish what was decided.

    A damaged swap file goes where the old segment is there, or nothing is in it; else recovery deals with it as with
    any damaged segment.
    """
    for name in [name for name in disk.names(directory) if _SWAP_NAME.fullmatch(name)]:
        base, path = int(name[:20]), f"{directory}/{name[:20]}"
        end_offset, whole = _end_offset(disk, base, f"{directory}/{name}")
        if not whole and (end_offset == base or disk.exists(path + ".log")):
            disk.remove(f"{directory}/{name}")
            continue
        bases = [int(each[:20]) for each in disk.names(directory) if _LOG_NAME.fullmatch(each)]
        others = [f"{directory}/{each:020d}" for each in bases if base < each < end_offset]
        swap_in(disk, path, others)
        clear_swapped(disk, directory, path, others)


def _end_offset(disk: Disk, base: int, path: str) -> tuple[int, bool]:
    """The offset after the last batch, and whether the file's framing is whole."""
    handle = disk.open(path)
    end_offset = base
    try:
        for _, fields, _ in headers(disk, handle, 0, disk.size(handle)):
            end_offset = fields[0] + fields[6] + 1
    except (CorruptBatch, OSError):
        return end_offset, False
    finally:
        disk.close(handle)
    return end_offset, True
