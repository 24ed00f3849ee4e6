"""One partition's log: append, group commit, read.

Appends patch offset and leader epoch into the batch, write it once and index it; nobody reads past the fsynced end.
What comes while the file is being synced is gathered and written after that: the kernel holds up a write to a file that
is being synced (seen on ext4), and the loop would stand still with it.
After a failed sync the file is never synced again: the log goes back to its synced end and on from there in a new
segment with the next epoch. All methods are for the loop's thread, but `sync_round`, which is the flusher's.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gateway.log.chain import CHAIN_START
from gateway.log.clean_stop import CleanEnd, close_cleanly
from gateway.log.errors import CorruptBatch, LogFailed
from gateway.log.files import Closing, PartitionFiles
from gateway.log.flusher import Flusher, SyncResult
from gateway.log.layout import ATTRIBUTE_CONTROL, HEADER_BYTES, HEADER_STRUCT, LENGTH_OFFSET
from gateway.log.plan import SEQUENCED, Plan, plan_append
from gateway.log.readable import Readable
from gateway.log.records import Buffer
from gateway.log.replay import read_marker
from gateway.log.rollback import go_on_after_failure
from gateway.log.segment import Segment
from gateway.log.segments import Segments
from gateway.log.settings import LogSettings
from gateway.log.state import NO_PRODUCER, PartitionState
from gateway.log.unnoted import Unnoted
from gateway.log.upkept import Upkept
from gateway.log.waiters import Callback, Waiters
from headwater.clock import Clock

_RELATIVE_OFFSET_MAX = (1 << 31) - 1
_GATHERED_BYTES_MAX = 2 << 20
_JOINED_BYTES_MAX = 1 << 17
_RETRY_MS = 1_000
_LOOK = "Look at the system's log for the disk."


class Appended(NamedTuple):
    """Where the records are; `duplicate` when an idempotent producer's repeat found them there already."""

    base_offset: int
    next_offset: int
    duplicate: bool


class PartitionLog(Readable, Upkept):
    """Made by recovery or `LogStore`; see the module's description for threads."""

    def __init__(
        self,
        files: PartitionFiles,
        segments: Segments,
        state: PartitionState,
        *,
        topic_id: bytes,
        epochs: list[tuple[int, int]],
        base_snapshot: bytes,
        chain: int | None,
        log_start_offset: int,
        settings: LogSettings,
        clock: Clock,
        flusher: Flusher,
        alarm: Callable[[str], None],
        compacted: bool = False,
    ) -> None:
        active = segments.active
        self.topic = files.topic
        self.index = files.partition
        self.topic_id = topic_id
        self.log_start_offset = log_start_offset
        self.log_end_offset = self.synced_offset = active.next_offset
        self.leader_epoch = epochs[-1][0]
        self.epochs = epochs
        self.dirty = self.closed = False
        self._unready = False  # closed or failed: one look on the append path
        self._files = files
        self._disk = files.disk
        self._segments = segments
        self._active = active
        self._state = state
        # Compaction rewrites headers: a log that is compacted has no hash chain at all.
        self._chained = not compacted
        self._chain = None if compacted else chain
        self._settings = settings
        self._clock = clock
        self._flusher = flusher
        self._alarm = alarm
        self._waiters = Waiters()
        # What the flusher's thread reads: the end as one object, segments that close, the state at each unsynced base.
        self._tail = (active, active.size, self.log_end_offset)
        self._synced = (active, active.size)
        self._syncing = False
        self._gathered: list[bytes | bytearray] = []
        self._gathered_bytes = 0
        self._unnoted = Unnoted()
        self._closing: deque[Closing] = deque()
        self._snapshots = {active.base_offset: base_snapshot}
        self._generation = 0
        self._sync_failed = False
        self._failure: OSError | None = None
        self._retry_ms = 0.0

    def append(self, batches: Buffer, *, now_ms: int, verify: bool = True, control: bool = False) -> Appended:
        """Write whole batches; `verify` checks their CRCs. What can be written to is patched in place.

        A `bytearray` is then the log's; the memory of a `memoryview` is the caller's again.

        At most one batch when it has a producer id. `control` lets in what coordinators alone write: transaction
        markers, and data of a producer without a sequence.
        Raises the classes of `gateway.log.errors`; nothing is appended then.
        """
        if self._unready:
            self._get_ready()
        data = batches
        if type(data) is bytes or (type(data) is memoryview and data.readonly):
            data = bytearray(data)
        total = len(data)
        if total < HEADER_BYTES:
            raise CorruptBatch(f"Record batch of {total} bytes, which is less than its header")
        active = self._active
        if active.size and self._is_full(active, total, now_ms):
            self._roll()
            self._active.first_ms = now_ms
        elif active.first_ms is None:
            active.first_ms = now_ms
        first = HEADER_STRUCT.unpack_from(data)
        if first[9] != NO_PRODUCER or first[5] & SEQUENCED:
            return self._append_sequenced(data, first, now_ms, verify=verify, control=control)
        return self._write(data, plan_append(data, self.log_end_offset, self.leader_epoch, verify=verify))

    def _get_ready(self) -> None:
        if self.closed:
            raise LogFailed(f"{self.topic}-{self.index} is closed")
        if self._failure is not None:
            self._go_on(self._failure)

    def _append_sequenced(
        self, data: Buffer, fields: tuple[int, ...], now_ms: int, *, verify: bool, control: bool
    ) -> Appended:
        if fields[1] + LENGTH_OFFSET != len(data):
            raise CorruptBatch("A batch of an idempotent producer must come alone and whole")
        plan = plan_append(data, self.log_end_offset, self.leader_epoch, verify=verify, sequenced=True)
        marker = read_marker(data) if fields[5] & ATTRIBUTE_CONTROL else None
        repeated = self._state.check(fields, marker[1] if marker is not None and control else None, coordinator=control)
        if repeated is not None:
            return Appended(repeated.first_offset, repeated.last_offset + 1, True)  # noqa: FBT003  (as below)
        try:
            appended = self._write(data, plan)
        except LogFailed:
            self._state.producers.refused(fields[9], fields[10], fields[11])
            raise
        aborted = self._state.apply(fields, appended.base_offset, now_ms, marker)
        if aborted is not None:
            self._active.aborted.append(aborted)
            self._segments.note_abort(self._active)
        return appended

    def _write(self, data: Buffer, plan: Plan) -> Appended:
        batches, next_offset = plan
        gather = self._syncing
        if gather and self._gathered_bytes + len(data) > _GATHERED_BYTES_MAX:
            self._write_gathered()
            gather = False
        active = self._active
        if gather:
            self._gathered.append(data if type(data) is bytearray else bytes(data))
            self._gathered_bytes += len(data)
        else:
            try:
                self._disk.append(active.handle, data)
            except OSError as error:
                self._undo_write(active, error)
        base_offset = self.log_end_offset
        self._unnoted.add(active.size, data, batches)
        active.grow(len(data), next_offset)
        self.log_end_offset = next_offset
        if not gather:
            self._tail = (active, active.size, next_offset)
            self._flusher.written(self, len(data))
        if type(data) is bytearray:
            self._flusher.later(self._note_written)
        else:
            self._note_written()  # its memory is the caller's again
        return Appended(base_offset, next_offset, False)  # noqa: FBT003  (keywords cost on this path)

    def _note_written(self) -> None:
        self._chain = self._unnoted.note(self._active, self._chain)

    def _write_gathered(self) -> None:
        """Write what came during a sync. Raises `LogFailed`, and the log has then gone back to its synced end."""
        if not self._gathered:
            return
        parts, size = self._take_gathered()
        active = self._active
        try:
            for part in parts if size > _JOINED_BYTES_MAX else [b"".join(parts)]:
                self._disk.append(active.handle, part)
        except OSError as error:
            self._fail(error)
            raise LogFailed(f"Cannot write to {active.log_path}: {error.strerror}", hint=_hint(error)) from error
        self._tail = (active, active.size, self.log_end_offset)
        self._flusher.written(self, size)

    def _take_gathered(self) -> tuple[list[bytes | bytearray], int]:
        taken = self._gathered, self._gathered_bytes
        self._gathered, self._gathered_bytes = [], 0
        return taken

    def _is_full(self, active: Segment, size: int, now_ms: int) -> bool:
        if active.first_ms is None or now_ms < active.first_ms:
            active.first_ms = now_ms  # a clock that stepped back begins the segment's age again
        return (
            active.size + size > self._settings.segment_bytes
            or now_ms - active.first_ms > self._settings.segment_ms
            or self.log_end_offset + size - active.base_offset > _RELATIVE_OFFSET_MAX
        )

    def _undo_write(self, active: Segment, error: OSError) -> None:
        """Part of a batch may be in the file: cut it off, or leave the file."""
        try:
            self._disk.truncate(active.handle, active.size)
        except OSError:
            self._fail(error)
        raise LogFailed(f"Cannot write to {active.log_path}: {error.strerror}", hint=_hint(error)) from error

    def _roll(self) -> None:
        """Close the active segment and go on in a new one; its files are finished by the flusher."""
        self._note_written()
        self._write_gathered()
        try:
            segment = self._files.create_segment(self.log_end_offset)
        except OSError as error:
            raise LogFailed(f"Cannot start a segment in {self._files.directory}: {error.strerror}") from error
        # A log whose history before is unknown begins a new chain here.
        if self._chained and self._chain is None:
            self._chain = CHAIN_START
        segment.chain = self._chain
        snapshot = self._state.snapshot()
        self._snapshots[segment.base_offset] = snapshot
        self._segments.add(segment)
        self._closing.append(Closing(self._active, segment.base_offset, snapshot, self._segments.chain_anchors()))
        self._active = segment
        self._tail = (segment, 0, self.log_end_offset)  # after the closing: a round takes up both, or neither
        # The batch that asked for room may still be refused: the closed segment is finished even so.
        self._flusher.written(self, 0)

    def begin_epoch(self) -> int:
        """Stamp what comes with the next leader epoch, made durable first; returns it. Raises `LogFailed`."""
        epochs = [*self.epochs, (self.leader_epoch + 1, self.log_end_offset)]
        try:
            self._files.write_epochs(epochs)
        except OSError as error:
            raise LogFailed(f"Cannot write {self._files.directory}: {error.strerror}") from error
        self.epochs = epochs
        self.leader_epoch = epochs[-1][0]
        return self.leader_epoch

    # -- group commit

    def sync_round(self) -> SyncResult | None:
        """By the flusher's thread: make what is written so far durable, closed segments before the active one."""
        generation = self._generation  # first of all: what fails after this makes the round one of the past
        if self._sync_failed or self.closed:
            return None
        self._syncing = True
        # The end first: a segment that closes after this is finished early, which does no harm.
        segment, position, end_offset = self._tail
        closed = []
        try:
            while self._closing:
                self._files.finish(self._closing[0])
                closed.append(self._closing.popleft().segment)
            self._disk.sync(segment.handle)
        except OSError as error:
            self._sync_failed = True
            return SyncResult(generation, end_offset, segment, position, closed, error)
        return SyncResult(generation, end_offset, segment, position, closed, None)

    def complete(self, result: SyncResult) -> None:
        """In the loop: release what a round made durable, or go back to the synced end after a failure."""
        if result.generation != self._generation or self.closed:
            return
        if result.error is not None:
            self._fail(result.error)
            return
        for segment in result.closed:
            self._files.cache.adopt(segment)
        advanced = result.end_offset > self.synced_offset or result.segment.base_offset > self._synced[0].base_offset
        if advanced:
            self.synced_offset = result.end_offset
            self._synced = (result.segment, result.position)
            result.segment.hint(result.end_offset, result.position)
            if len(self._snapshots) > 1:
                oldest = result.segment.base_offset
                self._snapshots = {base: each for base, each in self._snapshots.items() if base >= oldest}
            self._state.transactions.synced(result.end_offset)
        self._syncing = False
        if self._gathered:
            with contextlib.suppress(LogFailed):  # the alarm has said so, and the waiters of what is lost have heard
                self._write_gathered()  # first of all: the disk is busy with it while the others are told
        if advanced:
            self._waiters.advance(self.synced_offset)

    def _fail(self, error: OSError) -> None:
        self._sync_failed = True  # before the generation, which a round reads before this
        self._generation += 1
        self._failure = error
        self._unready = True
        # At once, however long it takes to go on: the rest is gone.
        self._take_gathered()
        self._note_written()
        self.log_end_offset, self._chain = self.synced_offset, None
        self._retry_ms = self._clock.monotonic_ms()
        self._alarm(
            f"{self.topic}-{self.index}: the disk failed ({error.strerror or error}); going on at offset"
            f" {self.synced_offset} in a new segment"
        )
        try:
            self._go_on(error)
        except LogFailed as failed:
            self._alarm(failed.what)
        self._waiters.fail(self.synced_offset)

    def _go_on(self, error: OSError) -> None:
        """Try to leave the failed file; at most once in `_RETRY_MS`. Raises `LogFailed` while that does not work."""
        now = self._clock.monotonic_ms()
        what = f"{self.topic}-{self.index} takes nothing: the disk failed ({error.strerror or error})"
        if now < self._retry_ms:
            raise LogFailed(what, hint=_LOOK)
        self._retry_ms = now + _RETRY_MS
        try:
            # The flusher's thread may be in the middle of a round with the very handles that are given back here.
            with self._flusher.between_rounds():
                self._closing.clear()
                self._syncing = False
                going = go_on_after_failure(
                    self._files, self._segments, self.epochs, self.synced_offset, self._synced, self._snapshots
                )
        except (OSError, CorruptBatch) as again:
            raise LogFailed(what, hint=_LOOK) from again
        self.epochs, self.leader_epoch = going.epochs, going.epochs[-1][0]
        if not self._chained:
            going.segment.chain = None
        going.state.producers.took_back(self._state.producers)
        self._state, self._chain, self._active = going.state, going.segment.chain, going.segment
        self.log_end_offset = self.synced_offset
        self._snapshots = {going.segment.base_offset: going.state.snapshot()}
        self._tail = (going.segment, 0, self.log_end_offset)
        self._synced = (going.segment, 0)
        self._failure = None
        self._sync_failed = self._unready = False

    def when_synced(self, end_offset: int, callback: Callback, failed: Callback | None = None) -> None:
        """Call `callback` in the loop once everything below `end_offset` is on disk, at once if it is.

        After a failed sync those records are gone: `failed` is called instead, where one is given.
        """
        if end_offset <= self.synced_offset:
            callback()
        else:
            self._waiters.add(end_offset, callback, failed)

    def subscribe(self, callback: Callback) -> Callback:
        """Call `callback` in the loop after each advance of the synced end; returns what ends that."""
        return self._waiters.subscribe(callback)

    def close(self) -> CleanEnd | None:
        """Write what Kafka writes at a clean stop and give back every handle; the caller has flushed before."""
        if self.closed:
            return None
        end = None
        self._note_written()
        if self._failure is not None:
            self._retry_ms = self._clock.monotonic_ms()
            with contextlib.suppress(LogFailed):  # the next start finds then what was never acknowledged
                self._go_on(self._failure)
        if self._failure is None and self.synced_offset == self.log_end_offset:
            base_snapshot = self._snapshots[self._active.base_offset]
            end = close_cleanly(self._files, self._segments, self._state, base_snapshot, self._chain, self.leader_epoch)
        self.closed = self._unready = True
        self._segments.close()
        return end if self.trusted_at_stop else None

    def abandon(self) -> None:
        """The topic goes away: nothing more is synced or read; the caller removes the files."""
        self.closed = self._unready = True
        self._waiters.fail(self.synced_offset)
        self._segments.close()


def _hint(error: OSError) -> str:
    return "Free some space on the disk." if error.errno == errno.ENOSPC else _LOOK
