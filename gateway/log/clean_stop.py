"""What a clean stop proves about each log, so that the next start need not read its active segment again.

`<data>/node/clean-stop` is written last of all, when everything that it tells of is on disk, and removed durably before
anything else is done by the next start. It is believed log by log, and only where the files are what it says: the same
segments of the same sizes, the same epoch, recovery point, snapshots and indexes. Anything else is recovered as after
any stop. What is believed is read with its CRCs afterwards, in the background (`gateway.log.proofread`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from crc32c import crc32c

from gateway.log import checkpoints
from gateway.log.errors import CorruptBatch
from gateway.log.files import NOBODY, PartitionFiles
from gateway.log.index import OffsetIndex, TimeIndex
from gateway.log.notes import LEFTOVERS, read_anchors
from gateway.log.recovery import Outcome, Recovered, Recoverer, Recovery
from gateway.log.segment import Segment, read_aborted
from gateway.log.segments import Segments
from gateway.log.state import PartitionState
from headwater.disk import Disk, read_or_none
from headwater.errors import UNREADABLE

FILE = "clean-stop"
_VERSION = 1
_LOG_NAME = re.compile(r"\d{20}\.log")
_INDEXES = (".index", ".timeindex")
Key = tuple[str, int]
"""(topic, partition)"""


class CleanEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One log as it was left. Sizes in bytes; `closed` has base, size, next offset and index sizes of older segments.

    `times` is how many entries the active segment's time index has without the last one, which closing adds; `newest`
    its greatest timestamp and that one's offset; `sum` the CRC-32C of its snapshots and indexes.
    """

    base: int
    size: int
    end: int
    epoch: int
    chain: int | None
    newest: tuple[int, int]
    times: int
    sum: int
    closed: list[tuple[int, int, int, int, int]]


class _Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    logs: dict[str, CleanEnd]


Ends = Mapping[Key, CleanEnd]


# -- at a stop


def close_cleanly(
    files: PartitionFiles,
    segments: Segments,
    state: PartitionState,
    base_snapshot: bytes,
    chain: int | None,
    epoch: int,
) -> CleanEnd | None:
    """Write what Kafka writes at a clean stop; returns what that proves, None when the next start should read the log.

    Everything that was appended must be synced. `base_snapshot` is the state at the active segment's base.
    """
    active, snapshot = segments.active, state.snapshot()
    times = len(active.times.timestamps)
    files.finish_clean(active, base_snapshot, snapshot, segments.chain_anchors())
    if state.producers.in_doubt:
        return None  # a snapshot cannot say so, the batches can
    try:
        closed = [
            (each.base_offset, each.size, each.next_offset, *(_size(files.disk, each.path + end) for end in _INDEXES))
            for each in segments.all()[:-1]
        ]
    except OSError:
        return None
    return CleanEnd(
        base=active.base_offset,
        size=active.size,
        end=active.next_offset,
        epoch=epoch,
        chain=chain,
        newest=(active.newest_timestamp, active.newest_offset),
        times=times,
        sum=_sum(base_snapshot, snapshot, active.index.encode(), active.times.encode()),
        closed=closed,  # type: ignore[arg-type]  # there are two indexes
    )


def leave(disk: Disk, log_dir: str, node_dir: str, ends: Ends) -> None:
    """Kafka's mark of a clean stop, and the last thing of all, ours. Raises `OSError`."""
    disk.replace_file(f"{log_dir}/{checkpoints.CLEAN_SHUTDOWN}", checkpoints.CLEAN_SHUTDOWN_BYTES)
    mark = _Mark(version=_VERSION, logs={f"{topic}-{number}": end for (topic, number), end in sorted(ends.items())})
    data = msgspec.json.encode(mark)
    disk.replace_file(f"{node_dir}/{FILE}", b"%08x\n" % crc32c(data) + data)


# -- at a start


def take(disk: Disk, log_dir: str, node_dir: str) -> tuple[bool, Ends]:
    """Whether the last stop was clean, and what it proved; both marks are gone for good when this returns.

    Raises `OSError`.
    """
    ours, kafkas = f"{node_dir}/{FILE}", f"{log_dir}/{checkpoints.CLEAN_SHUTDOWN}"
    clean = disk.exists(kafkas)
    ends = peek(disk, node_dir) if clean else {}
    for path, directory in ((ours, node_dir), (kafkas, log_dir)):
        if disk.exists(path):
            disk.remove(path)
            disk.sync_directory(directory)
    return clean, ends


def peek(disk: Disk, node_dir: str) -> Ends:
    """What the last stop proved, if no start has come after it. Raises `OSError`."""
    try:
        return decode(read_or_none(disk, f"{node_dir}/{FILE}") or b"")
    except UNREADABLE:
        return {}


def decode(data: bytes) -> Ends:
    """What the file says. Raises one of `UNREADABLE`."""
    noted, _, body = data.partition(b"\n")
    if noted != b"%08x" % crc32c(body):
        raise ValueError("the checksum is wrong")
    mark = msgspec.json.decode(body, type=_Mark)
    if mark.version != _VERSION:
        raise ValueError(f"it is of version {mark.version}")
    return {(name.rpartition("-")[0], int(name.rpartition("-")[2])): end for name, end in mark.logs.items()}


def recover(
    files: PartitionFiles,
    end: CleanEnd | None,
    *,
    recovery_point: int,
    log_start_offset: int,
    quarantine: str,
    compacted: bool,
) -> tuple[Recovered, bool]:
    """A partition after any stop, and whether that was taken on trust. Raises `OSError`.

    `recovery_point` is `UNKNOWN` where the checkpoint is damaged; what a clean stop proves takes its place.
    """
    if recovery_point <= checkpoints.UNKNOWN and end is not None:
        recovery_point = end.end
    trusted = None if end is None else trust(files, end, point=recovery_point, compacted=compacted)
    if trusted is not None:
        return trusted, True
    recoverer = Recoverer(
        files,
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
        quarantine=quarantine,
        compacted=compacted,
    )
    return recoverer.recover(), False


def trust(files: PartitionFiles, end: CleanEnd, *, point: int, compacted: bool) -> Recovered | None:
    """The log as the clean stop left it, None where anything is not as it says. `point` is the recovery point."""
    if point != end.end:
        return None
    disk, directory = files.disk, files.directory
    first = end.closed[0][0] if end.closed else end.base
    try:
        names = _names(disk, directory, end)
        epochs = checkpoints.decode_epochs(disk.read_file(f"{directory}/{checkpoints.LEADER_EPOCHS}"))
        if not epochs or epochs[-1][0] != end.epoch:
            return None
        anchors = {} if compacted else read_anchors(files, first)
        segments = [_closed(files, each, names, anchors) for each in end.closed]
        state, base_snapshot, active = _active(files, end, names, anchors)
    except (OSError, ValueError, CorruptBatch):
        return None
    finding = Recovery(files.topic, files.partition, Outcome.CLEAN, first, end.end, 0, "")
    return Recovered([*segments, active], state, base_snapshot, end.chain, epochs, [finding])


def stands(disk: Disk, directory: str, end: CleanEnd) -> bool:
    """Whether the files of a log are those that the clean stop left, by what `trust` looks at; nothing is changed."""
    try:
        names = _names(disk, directory, end)
        for base, size, _, *index_sizes in end.closed:
            suffixes = (".log", *_INDEXES)
            if [_size(disk, f"{directory}/{base:020d}{suffix}") for suffix in suffixes] != [size, *index_sizes]:
                return False
        _beside(disk, directory, end, names)
        return _size(disk, f"{directory}/{end.base:020d}.log") == end.size
    except (OSError, ValueError):
        return False


def _names(disk: Disk, directory: str, end: CleanEnd) -> set[str]:
    """What lies there. Raises `ValueError` when the segments are others, or a change is unfinished; `OSError`."""
    names = set(disk.names(directory))
    bases = sorted(int(name[:20]) for name in names if _LOG_NAME.fullmatch(name))
    if bases != [*(each[0] for each in end.closed), end.base] or any(name.endswith(LEFTOVERS) for name in names):
        raise ValueError(f"the segments of {directory} have changed")
    return names


def _beside(disk: Disk, directory: str, end: CleanEnd, names: set[str]) -> tuple[bytes, bytes, bytes, bytes]:
    """Snapshots at the active segment's base and at the end, its two indexes. Raises `ValueError` or `OSError`."""
    path = f"{directory}/{end.base:020d}"
    base_snapshot = disk.read_file(f"{path}.snapshot") if f"{end.base:020d}.snapshot" in names else NOBODY
    snapshot = disk.read_file(f"{directory}/{end.end:020d}.snapshot")
    index, times = (disk.read_file(path + suffix) for suffix in _INDEXES)
    if _sum(base_snapshot, snapshot, index, times) != end.sum:
        raise ValueError(f"what lies beside {path} has changed")
    return base_snapshot, snapshot, index, times


def _closed(
    files: PartitionFiles, noted: tuple[int, int, int, int, int], names: set[str], anchors: dict[int, int]
) -> Segment:
    """Raises `ValueError`, `CorruptBatch` or `OSError` when a closed segment's files are others."""
    base, size, next_offset, *index_sizes = noted
    segment = files.segment(base)
    wanted = [size, *index_sizes]
    if [_size(files.disk, segment.path + suffix) for suffix in (".log", *_INDEXES)] != wanted:
        raise ValueError(f"{segment.path} has changed")
    segment.size, segment.next_offset, segment.chain = size, next_offset, anchors.get(base)
    segment.has_aborts = f"{base:020d}.txnindex" in names
    if segment.has_aborts or segment.aborted_sum is not None:
        read_aborted(files.disk, segment)
    return segment


def _active(
    files: PartitionFiles, end: CleanEnd, names: set[str], anchors: dict[int, int]
) -> tuple[PartitionState, bytes, Segment]:
    """State at the end, snapshot at the base, and the segment with its handle. Raises as `_closed` does."""
    disk, directory = files.disk, files.directory
    segment = files.segment(end.base)
    base_snapshot, snapshot, index, times = _beside(disk, directory, end, names)
    state = PartitionState.restore(snapshot)
    segment.index, segment.times = OffsetIndex.decode(index, end.size), TimeIndex.decode(times)
    del segment.times.timestamps[end.times :], segment.times.offsets[end.times :]
    segment.has_aborts = f"{end.base:020d}.txnindex" in names
    if segment.has_aborts or segment.aborted_sum is not None:
        segment.aborted = read_aborted(disk, segment)
    segment.size, segment.next_offset = end.size, end.end
    segment.newest_timestamp, segment.newest_offset = end.newest
    segment.unindexed = end.size - (segment.index.positions[-1] if segment.index.positions else 0)
    segment.chain = anchors.get(end.base)
    if end.chain is not None and segment.chain is not None:
        segment.anchor_positions.append(end.size)
        segment.anchor_chains.append(end.chain)
    handle = disk.open(segment.log_path)
    try:
        if disk.size(handle) != end.size:
            raise ValueError(f"{segment.log_path} has changed")
        files.remove_indexes(segment)
    except (OSError, ValueError):
        disk.close(handle)
        raise
    segment.start(handle)
    return state, base_snapshot, segment


def _size(disk: Disk, path: str) -> int:
    handle = disk.open(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


def _sum(*parts: bytes) -> int:
    value = 0
    for part in parts:
        value = crc32c(len(part).to_bytes(8, "big") + part, value)
    return value
