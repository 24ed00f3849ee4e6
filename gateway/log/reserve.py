"""A file that is there to be removed: at zero bytes free it makes room for recovery, checkpoints and the alarm.

`<data>/node/reserve` holds bytes that do not compress. It is released when less than `RELEASE_BELOW_BYTES` is free,
also at a start before recovery, and made again when there is room.
"""

from __future__ import annotations

from random import Random

from headwater.disk import Disk

RELEASE_BELOW_BYTES = 2 << 20
_CHUNK_BYTES = 1 << 20


def reserve_path(node_dir: str) -> str:
    """Where the reserve is."""
    return f"{node_dir}/reserve"


def release_when_full(disk: Disk, node_dir: str) -> bool:
    """Remove the reserve if the disk is full; whether it was. Raises `OSError`."""
    path = reserve_path(node_dir)
    if disk.free_bytes(node_dir) >= RELEASE_BELOW_BYTES or not disk.exists(path):
        return False
    disk.remove(path)
    disk.sync_directory(node_dir)
    return True


def make_reserve(disk: Disk, node_dir: str, size_bytes: int) -> None:
    """Blocks: write the reserve, unless it is there in its size. Raises `OSError` with none left behind."""
    path = reserve_path(node_dir)
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
