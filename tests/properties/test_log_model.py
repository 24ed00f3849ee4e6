"""A partition log against a list: syncs that fail, power cuts with torn tails, restarts, producers and transactions.

The law of acknowledgement: whatever `when_synced` reported is there after any power cut, and what is there is a prefix
of what was written, byte for byte in the same place.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.log import records
from gateway.log.chain import CHAIN_START, chain_next
from gateway.log.errors import OutOfOrderSequence
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from tests.support.logs import NOW_MS, FlakyDisk, append, batch, marker, open_log, read_all

SETTINGS = LogSettings(fsync_interval_ms=0, segment_bytes=4_096, index_interval_bytes=200, open_segments_max=2)
PRODUCERS = st.sampled_from([7, 8])


class Row(NamedTuple):
    """One offset of the model: a record, or a marker (`value` None)."""

    value: bytes | None
    producer: int | None = None
    transactional: bool = False
    commit: bool = False


class LogModel(RuleBasedStateMachine):
    """The log beside `rows`, a plain list in which an offset is an index."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = FlakyDisk()
        self.store: LogStore
        self.log: PartitionLog
        self.rows: list[Row] = []
        self.synced = 0
        self.acknowledged = 0
        self.failed_syncs = 0
        # Per producer the batches that the log must recognise: base sequence, base offset, count.
        self.sent: dict[int, list[tuple[int, int, int]]] = {7: [], 8: []}

    @initialize()
    def begin(self) -> None:
        self.store, self.log = open_log(self.disk, settings=SETTINGS, alarm=lambda text: None)

    # -- writing

    @rule(sizes=st.lists(st.integers(0, 400), min_size=1, max_size=3))
    def append_plain(self, sizes: list[int]) -> None:
        values = [b"%d" % (len(self.rows) + number) + bytes(size) for number, size in enumerate(sizes)]
        assert append(self.log, *values) == len(self.rows)
        self.rows += [Row(value) for value in values]
        self._await()

    @rule(count=st.integers(5, 25), flushed=st.booleans())
    def fill(self, count: int, flushed: bool) -> None:
        """Enough for a segment or more."""
        for _ in range(count):
            self.append_plain([500])
        if flushed:
            self.flush()

    @rule(producer=PRODUCERS, count=st.integers(1, 3), transactional=st.booleans())
    def append_sequenced(self, producer: int, count: int, transactional: bool) -> None:
        transactional = transactional or self._open_first(producer) is not None
        sequence = self._next_sequence(producer)
        values = [b"%d:%d" % (producer, sequence + number) for number in range(count)]
        at = append(
            self.log,
            *values,
            producer_id=producer,
            producer_epoch=0,
            base_sequence=sequence,
            transactional=transactional,
        )
        assert at == len(self.rows)
        self.sent[producer].append((sequence, at, count))
        self.rows += [Row(value, producer, transactional) for value in values]
        self._await()

    @rule(producer=PRODUCERS, back=st.integers(1, 5))
    def repeat(self, producer: int, back: int) -> None:
        if len(self.sent[producer]) < back:
            return
        sequence, at, count = self.sent[producer][-back]
        again = batch(*[b"again"] * count, producer_id=producer, producer_epoch=0, base_sequence=sequence)
        assert tuple(self.log.append(again, now_ms=NOW_MS)) == (at, at + count, True)

    @rule(producer=PRODUCERS)
    def leave_a_gap(self, producer: int) -> None:
        if self.sent[producer]:
            skipped = self._next_sequence(producer) + 1
            with pytest.raises(OutOfOrderSequence):
                append(self.log, b"gap", producer_id=producer, producer_epoch=0, base_sequence=skipped)

    @rule(producer=PRODUCERS, commit=st.booleans())
    def end_transaction(self, producer: int, commit: bool) -> None:
        if self._open_first(producer) is None:
            return
        assert marker(self.log, producer, commit=commit) == len(self.rows)
        self.rows.append(Row(None, producer, True, commit))
        self._await()

    # -- disk and life

    @rule()
    def flush(self) -> None:
        self.store.flush_now()
        self.synced = len(self.rows)

    @precondition(lambda self: self.failed_syncs < 3)
    @rule(good=st.integers(0, 4))
    def flush_on_a_failing_disk(self, good: int) -> None:
        """Some segments may be finished before the sync that fails; nothing of the group is acknowledged then."""
        if self.synced == len(self.rows):
            return
        self.failed_syncs += 1
        self.disk.syncs_until_failure = good
        epoch = self.log.leader_epoch
        self.store.flush_now()
        if self.log.leader_epoch > epoch:
            self._cut(self.synced)
        else:
            self.disk.syncs_until_failure = None
            self.synced = len(self.rows)

    @rule(keep=st.integers(0, 900))
    def power_cut(self, keep: int) -> None:
        self.disk.power_cut(keep_tail_bytes=keep)
        self.store, self.log = open_log(self.disk, settings=SETTINGS, alarm=lambda text: None)
        assert self.acknowledged <= self.synced <= self.log.log_end_offset <= len(self.rows)
        assert {finding.outcome for finding in self.store.recovered} <= {
            Outcome.CLEAN,
            Outcome.TORN_TAIL,
            Outcome.UNSYNCED_CUT,
            Outcome.INDEX_REBUILT,
        }
        self._cut(self.log.log_end_offset)
        self._forget_but_one()
        self.synced = self.log.log_end_offset

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store, self.log = open_log(self.disk, settings=SETTINGS, alarm=lambda text: None)
        assert self.store.stopped_cleanly
        # After a failed sync the file that was left is cut at its successor's base by the next start.
        assert {finding.outcome for finding in self.store.recovered} <= {Outcome.CLEAN, Outcome.UNSYNCED_CUT}
        self.synced = len(self.rows)
        self._forget_but_one()

    # -- what always holds

    @invariant()
    def ends_agree(self) -> None:
        if hasattr(self, "log"):
            assert (self.log.log_end_offset, self.log.synced_offset) == (len(self.rows), self.synced)

    @invariant()
    def reading_gives_the_list(self) -> None:
        if not hasattr(self, "log"):
            return
        found = dict(read_all(self.log))
        expected = {at: row.value for at, row in enumerate(self.rows[: self.synced]) if row.value is not None}
        markers = {at for at, row in enumerate(self.rows[: self.synced]) if row.value is None}
        assert {at: value for at, value in found.items() if at not in markers} == expected
        assert set(found) == set(range(self.synced))

    @invariant()
    def read_committed_gives_what_is_committed(self) -> None:
        if hasattr(self, "log"):
            stable = self._stable()
            assert self.log.last_stable_offset == stable
            assert self._read_committed() == self._committed(stable)

    @invariant()
    def the_chain_is_that_of_the_headers(self) -> None:
        if not hasattr(self, "log") or self.synced < len(self.rows):
            return
        value, at = CHAIN_START, 0
        while data := self.log.read(at, 4_096).data:
            for view in records.split_batches(data):
                value = chain_next(value, view[:61])
                at = records.read_header(view).next_offset
        assert self.log.chain_at(at) == value

    # -- the naive model

    def _await(self) -> None:
        end = len(self.rows)

        def note() -> None:
            self.acknowledged = max(self.acknowledged, end)

        self.log.when_synced(end, note)

    def _next_sequence(self, producer: int) -> int:
        if not self.sent[producer]:
            return 0
        sequence, _, count = self.sent[producer][-1]
        return sequence + count

    def _cut(self, end: int) -> None:
        del self.rows[end:]
        for producer, batches in self.sent.items():
            self.sent[producer] = [each for each in batches if each[1] + each[2] <= end]

    def _forget_but_one(self) -> None:
        # A snapshot holds each producer's last batch alone; those after it are read from the log again.
        for producer, batches in self.sent.items():
            self.sent[producer] = batches[-1:]

    def _open_first(self, producer: int) -> int | None:
        first = None
        for at, row in enumerate(self.rows):
            if row.producer == producer and row.transactional:
                first = None if row.value is None else at if first is None else first
        return first

    def _stable(self) -> int:
        unstable = [self.synced]
        open_first: dict[int, int] = {}
        for at, row in enumerate(self.rows):
            if row.producer is None or not row.transactional:
                continue
            if row.value is not None:
                open_first.setdefault(row.producer, at)
            elif (first := open_first.pop(row.producer, None)) is not None and at >= self.synced:
                unstable.append(first)
        return min([*unstable, *open_first.values()])

    def _committed(self, stable: int) -> list[tuple[int, bytes]]:
        found = []
        for at, row in enumerate(self.rows[:stable]):
            if row.value is None:
                continue
            if row.transactional:
                end = next(r for r in self.rows[at:] if r.producer == row.producer and r.value is None)
                if not end.commit:
                    continue
            found.append((at, row.value))
        return found

    def _read_committed(self) -> list[tuple[int, bytes | None]]:
        """As a consumer does it: batches of an aborted transaction are skipped until its abort marker."""
        at, found = 0, []
        while (result := self.log.read(at, 500, committed=True)).data:
            pending = sorted(result.aborted, key=lambda each: each[1])
            aborting: set[int] = set()
            for view in records.split_batches(result.data):
                header = records.read_header(view)
                while pending and pending[0][1] <= header.last_offset:
                    aborting.add(pending.pop(0)[0])
                at = header.next_offset
                if header.is_control:
                    if not records.control_type(view):
                        aborting.discard(header.producer_id)
                elif not (header.is_transactional and header.producer_id in aborting):
                    columns = records.decode_batch(view)
                    found += list(zip(columns.offsets, columns.values, strict=True))
        return found


LogModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking such runs takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_log_model = LogModel.TestCase
