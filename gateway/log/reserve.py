"""Files that are there to be removed: at zero bytes free they make room for a start, recovery, checkpoints, the alarm.

`<data>/node/reserve` holds bytes that do not compress. It is released when less than `RELEASE_BELOW_BYTES` is free,
also at a start before recovery, and made again when there is room.
`<data>/node/reserve.start` is for starts alone, each of which needs room for a few small files: what a node that runs
does with the last of the disk must not keep its next start from coming up. Given up by a start on a full disk, it is
made again before that start is through.
"""

from __future__ import annotations

import contextlib
from random import Random

from headwater.disk import Disk

RELEASE_BELOW_BYTES = 2 << 20
START_BYTES = 256 << 10
_LEFT_BYTES = 48 << 10  # for what follows the log in a start: journals, sockets
_CHUNK_BYTES = 1 << 20


def reserve_path(node_dir: str) -> str:
    """Where the reserve is."""
    return f"{node_dir}/reserve"


def start_reserve_path(node_dir: str) -> str:
    """Where the reserve for starts is."""
    return f"{node_dir}/reserve.start"


def release_when_full(disk: Disk, node_dir: str) -> bool:
    """Remove the reserve if the disk is full; whether it was. Raises `OSError`."""
    return _release(disk, node_dir, reserve_path(node_dir), RELEASE_BELOW_BYTES)


def release_for_start(disk: Disk, node_dir: str) -> None:
    """The same, and then the reserve for starts where that was not enough. Raises `OSError`."""
    release_when_full(disk, node_dir)
    _release(disk, node_dir, start_reserve_path(node_dir), START_BYTES)


def _release(disk: Disk, node_dir: str, path: str, below_bytes: int) -> bool:
    if disk.free_bytes(node_dir) >= below_bytes or not disk.exists(path):
        return False
    disk.remove(path)
    disk.sync_directory(node_dir)
    return True


def make_reserve(disk: Disk, node_dir: str, size_bytes: int) -> None:
    """Blocks: write the reserve, unless it is there in its size. Raises `OSError` with none left behind."""
    _make(disk, node_dir, reserve_path(node_dir), size_bytes)


def make_start_reserve(disk: Disk, node_dir: str) -> None:
    """Blocks: write the reserve for starts, smaller where there is no room for all of it."""
    with contextlib.suppress(OSError):
        path = start_reserve_path(node_dir)
        size_bytes = min(START_BYTES, disk.free_bytes(node_dir) - _LEFT_BYTES)
        if size_bytes == START_BYTES or (size_bytes > 0 and not disk.exists(path)):
            _make(disk, node_dir, path, size_bytes)


def _make(disk: Disk, node_dir: str, path: str, size_bytes: int) -> None:
    handle = disk.open(path, create=True)
    try:
        if disk.size(handle) != size_bytes:
            disk.truncate(handle, 0)
            chunk = Random(0).randbytes(min(_CHUNK_BYTES, size_bytes))  # noqa: S311 - noise, not a secret
            for start in range(0, size_bytes, _CHUNK_BYTES):
                disk.append(handle, memoryview(chunk)[: size_bytes - start])
            disk.sync(handle)
    except OSError:
        disk.remove(path)
        raise
    finally:
        disk.close(handle)
    disk.sync_directory(node_dir)
