"""Putting a rewritten segment in the place of others, by Kafka's file names, so that a crash at any point recovers.

The new segment is written as `<base>.log.cleaned`. Synced, and with its indexes beside it as `.swap`, it is renamed to
`<base>.log.swap`: from that moment the swap is to be finished, by `swap_in` or by the next start. The old segments
become `.deleted`, the new files take their names, the log last; then the deleted ones are removed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from gateway.log.chain import CHAIN_START, chain_next
from gateway.log.index import OffsetIndex, TimeIndex
from gateway.log.layout import HEADER_BYTES
from gateway.log.rewritten import Rewritten
from gateway.log.scan import Stop, scan_run
from headwater.disk import Disk, read_checked, read_or_none

CLEANED, SWAP, DELETED = ".cleaned", ".swap", ".deleted"
INDEXES = (".index", ".timeindex", ".txnindex")
_SWAP_NAME = re.compile(r"\d{20}\.log\.swap")


def commit_cleaned(disk: Disk, directory: str, path: str, indexes: dict[str, bytes], note: Callable[[], None]) -> None:
    """Blocks: from the rename of the log on, recovery finishes what follows.

    `note` makes durable what proves the new segment; by then its `.cleaned` is there for certain, for a start to see.
    """
    for suffix, data in indexes.items():
        disk.replace_file(path + suffix + SWAP, data)
    note()
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
        if disk.exists(path + ".log" + SWAP):  # else a power cut kept this rename, and lost one before it
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
    # Not synced: what a power cut brings back is `.deleted`, or an index without its segment, and the next start's.


def finish_swaps(disk: Disk, directory: str, rewritten: Rewritten) -> None:
    """At a start: finish what was decided.

    A damaged swap file is no swap where the old segment is there, or nothing is in it; else recovery deals with it as
    with any damaged segment.
    """
    for name in [name for name in disk.names(directory) if _SWAP_NAME.fullmatch(name)]:
        base, path = int(name[:20]), f"{directory}/{name[:20]}"
        end_offset, chain = _read(disk, base, f"{directory}/{name}")
        noted = rewritten.of(base)
        proven = chain is not None and noted in (None, chain) and _agrees(disk, path, base, end_offset)
        if not proven and (end_offset == base or disk.exists(path + ".log")):
            _bring_back(disk, directory, base)
            disk.rename(f"{directory}/{name}", path + ".log" + CLEANED)
            disk.sync_directory(directory)  # before its note goes: without one it would look whole to the next start
            continue
        others = _others(disk, directory, base, end_offset)
        swap_in(disk, path, others)
        clear_swapped(disk, directory, path, others)
    _finish_reordered(disk, directory, rewritten)
    rewritten.forget(_bases(disk, directory, ".log" + CLEANED))


def _finish_reordered(disk: Disk, directory: str, rewritten: Rewritten) -> None:
    """A power cut may keep a swap's last rename and lose others: the segment's note says that it is the new one."""
    names = disk.names(directory)
    if not any(name.endswith((SWAP, DELETED)) for name in names):
        return
    for base in _bases(disk, directory, ".log"):
        path, noted = f"{directory}/{base:020d}", rewritten.of(base)
        if noted is None or disk.exists(path + ".log" + SWAP):
            continue
        end_offset, chain = _read(disk, base, path + ".log")
        if chain != noted:
            continue
        if others := _others(disk, directory, base, end_offset):
            swap_in(disk, path, others)
            clear_swapped(disk, directory, path, others)
        elif any(disk.exists(path + suffix + SWAP) for suffix in INDEXES):
            # Of this swap, or of another one that had only begun: these can be made again from the batches.
            for name in (path + ".index", path + ".timeindex"):
                if disk.exists(name):
                    disk.remove(name)


def _others(disk: Disk, directory: str, base: int, end_offset: int) -> list[str]:
    """The segments beside the one at `base` that a new one up to `end_offset` takes the place of."""
    return [f"{directory}/{each:020d}" for each in _bases(disk, directory, ".log") if base < each < end_offset]


def _agrees(disk: Disk, path: str, base: int, end_offset: int) -> bool:
    """Whether the indexes of a swap tell of nothing behind its end, as they do when it was cut between two batches."""

    def read(suffix: str) -> bytes:
        name = path + suffix
        return read_checked(disk, name + SWAP if disk.exists(name + SWAP) else name)

    handle = disk.open(path + ".log" + SWAP)
    try:
        OffsetIndex.decode(read(".index"), disk.size(handle))
        newest = max(TimeIndex.decode(read(".timeindex")).offsets, default=0)
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    finally:
        disk.close(handle)
    return base + newest < max(end_offset, base + 1)


def _bring_back(disk: Disk, directory: str, base: int) -> None:
    """Give back their names to the segments that a swap had begun to replace.

    What an earlier swap replaced may lie there too: that is below the end of what it was replaced by.
    """
    old = f"{directory}/{base:020d}.log"
    end_offset = _read(disk, base, old)[0] if disk.exists(old) else base
    following = min((each for each in _bases(disk, directory, ".log") if each > base), default=1 << 63)
    replaced = [each for each in _bases(disk, directory, ".log" + DELETED) if end_offset <= each < following]
    for each in replaced:
        disk.rename(f"{directory}/{each:020d}.log{DELETED}", f"{directory}/{each:020d}.log")
    if replaced:
        disk.sync_directory(directory)  # before the swap goes: without it nothing would say that they are to stay


def _bases(disk: Disk, directory: str, suffix: str) -> list[int]:
    names = disk.names(directory)
    return [int(name[:20]) for name in names if name[20:] == suffix and name[:20].isdigit()]


def _read(disk: Disk, base: int, path: str) -> tuple[int, int | None]:
    """The offset after the last batch that can be reached, and the chain over all headers; None: not all is good."""
    chain = CHAIN_START

    def visit(_position: int, _fields: tuple[int, ...], batch: memoryview) -> None:
        nonlocal chain
        chain = chain_next(chain, batch[:HEADER_BYTES])

    handle = disk.open(path)
    try:
        end = scan_run(disk, handle, 0, disk.size(handle), base, None, visit)
    finally:
        disk.close(handle)
    return end.next_offset, chain if end.stop is Stop.END else None
