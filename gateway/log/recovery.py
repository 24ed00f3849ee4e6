"""Opening a partition's directory after any kind of stop: it always ends with a log that takes data, and with findings.

What is trusted: everything below the recovery point was on disk before anything after it was acknowledged. Segments
from the newest good producer snapshot on are read whole, with their CRCs; older ones are checked at their ends.

- A bad tail at or above the recovery point was never acknowledged: it is cut. Not so where the disk cannot read it: no
  crash leaves that, so it is damage, and of what may have been acknowledged there no offset is given again.
- A bad range with good batches after it, or below the recovery point, is damage: its bytes are copied to quarantine,
  the good part before it stays, the good part after it becomes a segment of its own, and lost offsets are not reused.
- A segment is cut at its successor's base (what a failed sync left behind).
- Where the checkpoint of recovery points is damaged too, a hole before a good segment counts as damage.
"""

from __future__ import annotations

import errno
import re
from enum import StrEnum
from typing import NamedTuple

from gateway.log.chain import chain_next
from gateway.log.checkpoints import UNKNOWN
from gateway.log.errors import CorruptBatch
from gateway.log.files import PartitionFiles
from gateway.log.layout import RECORD_BYTES_MIN
from gateway.log.notes import newest_state, read_anchors, read_epochs, remove_leftovers
from gateway.log.replay import Replay
from gateway.log.scan import Stop, find_next_batch, read_patiently, scan_run, unreadable_bytes
from gateway.log.segment import Segment, headers, load_indexes, read_aborted, rebuild_indexes
from gateway.log.state import PartitionState
from gateway.log.swap import finish_swaps
from gateway.log.transactions import AbortedTransaction

_LOG_NAME = re.compile(r"\d{20}\.log")
_COPY_BYTES = 1 << 20


class Outcome(StrEnum):
    """What opening a partition found; the text is for people."""

    CLEAN = "clean"
    TORN_TAIL = "torn tail cut"
    UNSYNCED_CUT = "unsynced end cut"
    INDEX_REBUILT = "missing index rebuilt"
    QUARANTINED = "damaged range quarantined"
    UNREADABLE = "unreadable range quarantined"
    RANGE_MISSING = "range missing"


class Recovery(NamedTuple):
    """One finding: offsets [first_offset, end_offset) are concerned, `size_bytes` of the file; `detail` for people."""

    topic: str
    partition: int
    outcome: Outcome
    first_offset: int
    end_offset: int
    size_bytes: int
    detail: str


class Recovered(NamedTuple):
    """All that a `PartitionLog` needs to go on."""

    segments: list[Segment]
    state: PartitionState
    base_snapshot: bytes
    chain: int | None
    epochs: list[tuple[int, int]]
    findings: list[Recovery]


class Recoverer:
    """One use: recovers one partition. Everything kept is synced, the directory too, when `recover` returns."""

    def __init__(
        self,
        files: PartitionFiles,
        *,
        recovery_point: int,
        log_start_offset: int,
        quarantine: str,
        compacted: bool = False,
    ) -> None:
        self._files = files
        self._disk = files.disk
        self._directory = files.directory
        self._point_lost = recovery_point <= UNKNOWN  # above the point nobody can tell what was on disk for certain
        self._point = UNKNOWN - recovery_point if self._point_lost else recovery_point
        self._log_start = log_start_offset
        self._quarantine = quarantine
        self._compacted = compacted  # gaps between batches are as they should be, and there is no hash chain
        self._findings: list[Recovery] = []
        self._segments: list[Segment] = []
        self._epochs: list[tuple[int, int]] = []
        self._anchors: dict[int, int] = {}
        self._damaged = False
        self._begin_epoch = False
        self._base_snapshot = PartitionState().snapshot()

    def recover(self) -> Recovered:
        """Raises `OSError` when the disk cannot be read or written at all."""
        finish_swaps(self._disk, self._directory, self._files.rewritten)
        remove_leftovers(self._disk, self._directory)
        bases = sorted(int(name[:20]) for name in self._disk.names(self._directory) if _LOG_NAME.fullmatch(name))
        if not bases:
            bases = [max(self._log_start, self._point)]
            self._disk.close(self._disk.open(self._files.segment(bases[0]).log_path, create=True))
        self._epochs, known = read_epochs(self._files, bases)
        self._begin_epoch = not known  # which ones there were nobody can tell for sure: go on in one that is above all
        replay_from, state = newest_state(self._files, bases, self._point)
        self._anchors = {} if self._compacted else read_anchors(self._files, bases[0])
        replay = Replay(state, None)
        for slot, base in enumerate(bases):
            if base < replay_from:
                self._trust_or_scan(base, bases[slot + 1])
        replay.chain = self._chain_at(replay_from)
        self._replay_segments([base for base in bases if base >= replay_from], replay)
        end_offset = self._finish_active(replay)
        replay.state.transactions.synced(end_offset)
        replay.state.producers.met_all()
        if not self._findings:
            self._find(Outcome.CLEAN, self._segments[0].base_offset, end_offset, 0, "")
        return Recovered(self._segments, replay.state, self._base_snapshot, replay.chain, self._epochs, self._findings)

    def _find(self, outcome: Outcome, first: int, end: int, size_bytes: int, detail: str) -> None:
        self._findings.append(
            Recovery(self._files.topic, self._files.partition, outcome, first, end, size_bytes, detail)
        )

    # -- older segments

    def _chain_at(self, base: int) -> int | None:
        """The chain's value at a segment's base: as noted, or walked from the nearest earlier note."""
        if base in self._anchors:
            return self._anchors[base]
        value = None
        for segment in self._segments:
            value = self._anchors.get(segment.base_offset, value)
            segment.chain = value
            if value is None:
                continue
            handle = self._disk.open(segment.log_path)
            try:
                for _, _, header in headers(self._disk, handle, 0, segment.size):
                    value = chain_next(value, header)
            except (CorruptBatch, OSError):
                value = None
            finally:
                self._disk.close(handle)
        return value

    def _trust_or_scan(self, base: int, next_base: int) -> None:
        """A segment wholly below the recovery point: check its end; read it whole only when that looks wrong."""
        segment = self._files.segment(base)
        segment.handle = self._disk.open(segment.log_path)
        segment.size = self._disk.size(segment.handle)
        segment.has_aborts = self._disk.exists(segment.path + ".txnindex")
        try:
            segment.next_offset = self._walk_end(segment)
            if segment.next_offset > next_base:
                raise CorruptBatch("a segment that goes on beyond its successor's base")
        except (CorruptBatch, OSError):
            known = self._aborted_in(segment)
            self._files.cache.release(segment)
            self._release(self._read_whole(base, next_base, Replay(PartitionState(), None), known), aborted=known)
            return
        segment.chain = self._anchors.get(base)
        self._segments.append(segment)
        self._note_gap(segment, next_base)
        self._release(segment, write=False)

    def _aborted_in(self, segment: Segment) -> list[AbortedTransaction] | None:
        """Its transaction index, which was right when the snapshot was chosen. Raises `OSError` if it went bad since.

        The next start then begins before it: batches alone would show as committed what was taken back.
        """
        if not segment.has_aborts:
            return None
        try:
            return read_aborted(self._disk, segment)
        except CorruptBatch as error:
            raise OSError(errno.EIO, str(error), segment.path + ".txnindex") from error

    def _walk_end(self, segment: Segment) -> int:
        """The offset after the segment's last batch, found from its last index entry. Raises `CorruptBatch`."""
        rebuilt = load_indexes(self._disk, segment)
        start = segment.index.positions[-1] if segment.index.positions else 0
        end_offset = segment.base_offset
        for _, fields, _ in headers(self._disk, segment.handle, start, segment.size):
            if fields[0] < end_offset:
                raise CorruptBatch("offsets that go back")
            end_offset = fields[0] + fields[6] + 1
        last = max([*segment.index.offsets[-1:], *segment.times.offsets[-1:]], default=0)
        if not rebuilt and segment.base_offset + last >= max(end_offset, segment.base_offset + 1):
            rebuild_indexes(self._disk, segment)
            rebuilt = True
        if rebuilt:
            self._files.try_write_indexes(segment)
            self._find(Outcome.INDEX_REBUILT, segment.base_offset, end_offset, 0, segment.path)
        return end_offset

    def _note_gap(self, segment: Segment, next_base: int) -> None:
        known = self._disk.exists(self._bad_path(segment.next_offset, next_base))
        if not known and self._is_gap(segment, next_base):
            self._find(Outcome.RANGE_MISSING, segment.next_offset, next_base, 0, f"after {segment.path}")

    def _is_gap(self, segment: Segment, next_base: int) -> bool:
        """Whether batches are lost before the next segment; compaction leaves gaps where none are."""
        if segment.next_offset >= next_base or next_base <= self._log_start:
            return False  # what had expired may go in any order
        return not self._compacted or self._disk.exists(self._bad_path(segment.next_offset, next_base))

    def _release(
        self, segment: Segment, *, write: bool = True, aborted: list[AbortedTransaction] | None = None
    ) -> None:
        """The segment is closed: write its indexes, give back its handle.

        `aborted` is what its transaction index said, where replaying it alone could miss transactions begun before it.
        """
        if aborted is not None:
            segment.aborted = [e for e in aborted if segment.base_offset <= e.last_offset < segment.next_offset]
            segment.has_aborts = bool(segment.aborted)
        if write:
            self._files.try_write_indexes(segment)
        self._files.cache.adopt(segment)
        self._files.cache.release(segment)

    # -- segments that are read whole

    def _replay_segments(self, bases: list[int], replay: Replay) -> None:
        for slot, base in enumerate(bases):
            following = bases[slot + 1 :]
            segment = self._read_whole(base, following[0] if following else None, replay)
            if not following:
                return
            if segment.next_offset < following[0] and self._point < following[0] and not self._point_lost:
                # Nothing after this segment was ever acknowledged: it goes, and the offsets are used again.
                self._drop(following)
                return
            if self._is_gap(segment, following[0]):
                replay.state.producers.forget_sequences()  # as when the damage was found: the snapshot may be older
                self._note_gap(segment, following[0])
            if segment.next_offset > self._point:
                # Closed, and perhaps never synced: who made it may have died before. From here on it is served.
                self._disk.sync(segment.handle)
            self._release(segment)

    def _drop(self, bases: list[int]) -> None:
        for base in bases:
            segment = self._files.segment(base)
            self._find(Outcome.UNSYNCED_CUT, base, base, 0, segment.log_path)
            self._begin_epoch = True
            self._files.remove_segment(segment)

    def _read_whole(
        self,
        base: int,
        limit_offset: int | None,
        replay: Replay,
        aborted: list[AbortedTransaction] | None = None,
    ) -> Segment:
        """Read a segment with its CRCs and mend it; returns it, or the last part that it was split into, open."""
        segment, following = self._scan(base, limit_offset, replay)
        while following is not None:
            self._release(segment, aborted=aborted)
            segment, following = self._scan(following, limit_offset, replay)
        return segment

    def _scan(self, base: int, limit_offset: int | None, replay: Replay) -> tuple[Segment, int | None]:
        self._base_snapshot = replay.state.snapshot()
        segment = self._files.segment(base)
        handle = self._disk.open(segment.log_path)
        self._disk.drop_cache(handle)  # the last process may have stopped because a sync failed
        size = self._disk.size(handle)
        segment.start(handle)
        replay.chain = self._anchors.get(base, replay.chain)
        segment.chain = replay.chain
        replay.into(segment)
        self._segments.append(segment)
        # Compaction leaves the active segment alone.
        gapless = limit_offset is None or not self._compacted
        end = scan_run(self._disk, handle, 0, size, base, limit_offset, replay.visit, gapless=gapless)
        if end.stop is Stop.BAD:
            return segment, self._mend(segment, size, limit_offset, replay)
        if end.stop is Stop.SUCCESSOR:
            self._find(Outcome.UNSYNCED_CUT, end.next_offset, end.next_offset, size - end.position, segment.log_path)
            self._files.rewritten.forget([base])
            self._disk.truncate(handle, end.position)
            self._disk.sync(handle)
        return segment, None

    def _mend(self, segment: Segment, size: int, limit_offset: int | None, replay: Replay) -> int | None:
        """Bytes from `segment.size` on are bad; returns the base of the segment split off behind them."""
        first, start = segment.next_offset, segment.size
        epochs = {epoch for epoch, _ in self._epochs}
        found = find_next_batch(self._disk, segment.handle, start + 1, size, first, epochs)
        if found is not None and (limit_offset is None or found[1] < limit_offset):
            self._quarantine_range(segment, found[0], found[1], replay)
            # First the proof that what is split off was acknowledged: a crash in between must not drop it.
            self._note_point(max(self._point, found[1]))
            self._split(segment, found[0], size, found[1])
        elif (lost_end := self._lost_end(segment, size, limit_offset)) > first:
            self._quarantine_range(segment, size, lost_end, replay)
            if lost_end > self._point:
                self._note_point(lost_end)  # a crash from here on must not give these offsets again
            found = None
        else:
            self._find(Outcome.TORN_TAIL, first, first, size - start, segment.log_path)
            # Nobody has read it, if the disk kept what it had synced; if it lied, somebody may stand beyond the cut.
            self._begin_epoch = True
            found = None
        self._files.rewritten.forget([segment.base_offset])
        self._disk.truncate(segment.handle, start)
        self._disk.sync(segment.handle)
        return None if found is None else found[1]

    def _note_point(self, point: int) -> None:
        self._point = point
        self._files.set_recovery_point(UNKNOWN - point if self._point_lost else point)

    def _lost_end(self, segment: Segment, size: int, limit_offset: int | None) -> int:
        """Up to where the bad end of a segment may have held acknowledged records, with nothing good behind it.

        Below the recovery point it did. Above, what was torn never was; of what the disk cannot read nobody can tell,
        so each offset that it had room for counts. Where the point is lost, so does what the next segment lies behind.
        """
        if self._point_lost and limit_offset is not None:
            return limit_offset
        known = self._point if limit_offset is None else min(self._point, limit_offset)
        if not unreadable_bytes(self._disk, segment.handle, segment.size, size):
            return known
        if limit_offset is not None:
            return limit_offset
        return max(known, segment.next_offset + -(-(size - segment.size) // RECORD_BYTES_MIN))

    def _bad_path(self, first: int, end: int) -> str:
        return f"{self._quarantine}/{self._files.topic}-{self._files.partition}-{first}-{end}.bin"

    def _quarantine_range(self, segment: Segment, end: int, next_good: int, replay: Replay) -> None:
        """Keep the bytes from the segment's good end to `end` for people; forget the sequences they may have held."""
        self._disk.make_directory(self._quarantine)
        path = self._bad_path(segment.next_offset, next_good)
        self._copy(segment.handle, segment.size, end, path)
        self._disk.sync_directory(self._quarantine)
        unreadable = unreadable_bytes(self._disk, segment.handle, segment.size, end)
        outcome = Outcome.UNREADABLE if unreadable else Outcome.QUARANTINED
        self._find(outcome, segment.next_offset, next_good, end - segment.size, path)
        replay.state.producers.forget_sequences()
        replay.chain = None  # what was there cannot be told: the history is known again from the next noted value on
        self._damaged = True

    def _split(self, segment: Segment, start: int, end: int, base: int) -> None:
        """Give the good bytes behind damage a segment of their own; complete before the damaged one is cut."""
        path = self._files.segment(base).log_path
        self._copy(segment.handle, start, end, path + ".tmp")
        self._disk.rename(path + ".tmp", path)
        self._disk.sync_directory(self._directory)

    def _copy(self, handle: int, start: int, end: int, path: str) -> None:
        target = self._disk.open(path, create=True)
        try:
            self._disk.truncate(target, 0)
            while start < end:
                chunk = read_patiently(self._disk, handle, min(_COPY_BYTES, end - start), start)
                if not chunk:
                    break
                self._disk.append(target, chunk)
                start += len(chunk)
            self._disk.sync(target)
        finally:
            self._disk.close(target)

    # -- the end

    def _finish_active(self, replay: Replay) -> int:
        """The last segment goes on; after damage a new one does, past every offset that was ever acknowledged."""
        active = self._segments[-1]
        if active.next_offset < self._point:
            if not self._damaged:
                self._find(Outcome.RANGE_MISSING, active.next_offset, self._point, 0, active.log_path)
                self._damaged = True
                replay.state.producers.forget_sequences()
            self._release(active)
            self._base_snapshot = replay.state.snapshot()
            active = self._files.create_segment(self._point)
            active.chain = replay.chain
            self._segments.append(active)
        self._files.remove_indexes(active)
        self._files.rewritten.forget([active.base_offset])  # a closed segment may be the last one now, and goes on
        self._files.remove_snapshots_beyond(active.next_offset)
        self._disk.sync(active.handle)
        if self._damaged or self._begin_epoch:
            # The same offset may come a second time with other content: a new epoch tells them apart.
            self._epochs = [*self._epochs, (self._epochs[-1][0] + 1, active.next_offset)]
        self._files.write_epochs(self._epochs)  # syncs the directory too, with all that was made and removed in it
        return active.next_offset
