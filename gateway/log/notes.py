"""What lies beside the batches at a start: epochs, chain, snapshots, transaction indexes; each may be damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gateway.log import checkpoints
from gateway.log.chain import CHAIN_START, decode_anchors
from gateway.log.errors import CorruptBatch
from gateway.log.files import PartitionFiles
from gateway.log.segment import headers, read_aborted
from gateway.log.state import PartitionState
from gateway.log.swap import INDEXES
from headwater.disk import Disk, read_or_none

LEFTOVERS = (".tmp", ".deleted", ".cleaned", ".swap")


def remove_leftovers(disk: Disk, directory: str) -> None:
    """Files of a change that was not finished, and indexes without their segment."""
    names = set(disk.names(directory))
    for name in sorted(names):
        orphan = name.endswith(INDEXES) and name[:20] + ".log" not in names
        if name.endswith(LEFTOVERS) or orphan:
            disk.remove(f"{directory}/{name}")


def read_epochs(files: PartitionFiles, bases: list[int]) -> tuple[list[tuple[int, int]], bool]:
    """The leader epochs, and whether their file told them; else the batches do, as far as they can be read."""
    data = read_or_none(files.disk, f"{files.directory}/{checkpoints.LEADER_EPOCHS}")
    with contextlib.suppress(ValueError):
        if epochs := checkpoints.decode_epochs(data or b""):
            return epochs, True
    found: list[tuple[int, int]] = []
    for base in bases:
        for epoch, offset in _epochs_in(files, base):
            if not found or epoch > found[-1][0]:
                found.append((epoch, offset))
    return found or [(0, 0)], not found


def _epochs_in(files: PartitionFiles, base: int) -> Iterator[tuple[int, int]]:
    handle = files.disk.open(files.segment(base).log_path)
    try:
        for _, fields, _ in headers(files.disk, handle, 0, files.disk.size(handle)):
            yield fields[2], fields[0]
    except (CorruptBatch, OSError):
        return
    finally:
        files.disk.close(handle)


def read_anchors(files: PartitionFiles, first_base: int) -> dict[int, int]:
    """The hash chain's values at segments' bases."""
    anchors: dict[int, int] = {}
    with contextlib.suppress(CorruptBatch):
        anchors = decode_anchors(read_or_none(files.disk, files.chain_path) or b"")
    if first_base == 0:
        anchors[0] = CHAIN_START
    return anchors


def newest_state(files: PartitionFiles, bases: list[int], point: int) -> tuple[int, PartitionState]:
    """The newest good snapshot at a segment's base, no newer than the first segment that may not be whole."""
    latest = max([base for base in bases if base <= point], default=bases[0])
    latest = min([latest, *_without_aborts(files, bases)])
    for name in reversed(files.snapshot_names()):
        offset = int(name[:20]) if name[:20].isdigit() else -1
        if offset not in bases or offset > latest:
            continue
        try:
            return offset, PartitionState.restore(files.disk.read_file(f"{files.directory}/{name}"))
        except (OSError, ValueError):
            continue
    return bases[0], PartitionState()


def _without_aborts(files: PartitionFiles, bases: list[int]) -> Iterator[int]:
    """Segments with a damaged transaction index: it is made again from the batches, and those before them."""
    for base in bases:
        segment = files.segment(base)
        if files.disk.exists(segment.path + ".txnindex") or segment.aborted_sum is not None:
            try:
                read_aborted(files.disk, segment)
            except CorruptBatch:
                yield base
