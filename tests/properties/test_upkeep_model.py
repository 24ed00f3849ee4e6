"""Compaction against a dict and retention against a list, with power cuts in the middle of either.

The law of compaction: a reader of committed records ends with the same value for each key as without it, and sees each
record where it was written. The law of expiry: a prefix goes, never too early, never before the central has it, and
every offset of it is told.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.log.recovery import Outcome
from gateway.log.retention import AGE
from gateway.log.topic_config import DAY_MS
from tests.support.logs import NOW_MS, marker, read_all
from tests.support.upkeep import FatefulDisk, PowerCutError, Tended, compact, open_compacted, put, rows_of

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"a key that is longer than its digest"])
ROWS = st.lists(st.tuples(KEYS, st.booleans()), min_size=1, max_size=4)  # whether it has a value, or deletes
HOUR_MS = 3_600_000
Row = tuple[bytes, bytes | None, int]  # key, value, number of its transaction (0: none)


class CompactionModel(RuleBasedStateMachine):
    """`rows` has every record by its offset; `fates` says which transactions are committed."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = FatefulDisk()
        self.store, self.log = open_compacted(self.disk, alarm=lambda text: None)
        self.rows: dict[int, Row] = {}
        self.fates: dict[int, bool] = {}
        self.markers: dict[int, int] = {}
        self.sequence = 0
        self.number = 0
        self.now_ms = NOW_MS

    @rule(rows=ROWS, times=st.integers(1, 12))
    def write(self, rows: list[tuple[bytes, bool]], times: int) -> None:
        for _ in range(times):
            self._put(rows, 0)
        self.store.flush_now()

    @rule(
        rows=st.lists(st.tuples(KEYS, st.booleans()), min_size=1, max_size=3),
        commit=st.booleans(),
        synced=st.booleans(),
    )
    def transact(self, rows: list[tuple[bytes, bool]], commit: bool, synced: bool) -> None:
        self.number += 1
        for _ in range(2):
            self._put(rows, self.number)
        if synced:
            self.store.flush_now()
        self._end(commit=commit)

    @rule(days=st.integers(0, 2), trusted=st.booleans(), keys_max=st.sampled_from([2, 1_000]))
    def compact(self, days: int, trusted: bool, keys_max: int) -> None:
        self.now_ms += days * DAY_MS
        compact(self.store, self.log, now_ms=self.now_ms if trusted else None, keys_max=keys_max)

    @rule(after=st.integers(1, 60), keep=st.integers(0, 300))
    def power_cut_while_compacting(self, after: int, keep: int) -> None:
        self.store.flush_now()
        self.disk.cut_at = self.disk.changes + after
        with contextlib.suppress(PowerCutError):
            compact(self.store, self.log, now_ms=self.now_ms)
        self._cut_power(keep)

    @rule(keep=st.integers(0, 300))
    def power_cut(self, keep: int) -> None:
        self._cut_power(keep)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store, self.log = open_compacted(self.disk, alarm=lambda text: None)
        assert {each.outcome for each in self.store.recovered} == {Outcome.CLEAN}

    @invariant()
    def a_reader_ends_with_the_latest_values(self) -> None:
        self.store.flush_now()
        found = rows_of(self.log, committed=True)
        assert all(self.rows[offset][:2] == (key, value) for offset, key, value in found)
        latest = {key: value for _, key, value in found}
        expected: dict[bytes, bytes | None] = {}
        for _, (key, value, transaction) in sorted(self.rows.items()):
            if not transaction or self.fates[transaction]:
                expected[key] = value
        assert {k: v for k, v in latest.items() if v is not None} == {
            k: v for k, v in expected.items() if v is not None
        }

    def _put(self, rows: list[tuple[bytes, bool]], transaction: int) -> None:
        base = self.log.log_end_offset
        filled = [(key, b"%d" % (base + at) + bytes(50) if full else None) for at, (key, full) in enumerate(rows)]
        if transaction:
            put(self.log, filled, producer_id=7, producer_epoch=0, base_sequence=self.sequence, transactional=True)
            self.sequence += len(rows)
        else:
            put(self.log, filled)
        self.rows |= {base + at: (key, value, transaction) for at, (key, value) in enumerate(filled)}

    def _end(self, *, commit: bool) -> None:
        self.fates[self.number] = commit
        self.markers[self.number] = marker(self.log, 7, commit=commit)

    def _cut_power(self, keep: int) -> None:
        self.disk.cut_at = None
        self.disk.power_cut(keep_tail_bytes=keep)
        self.store, self.log = open_compacted(self.disk, alarm=lambda text: None)
        outcomes = {each.outcome for each in self.store.recovered}
        assert not outcomes & {Outcome.QUARANTINED, Outcome.RANGE_MISSING}
        end = self.log.log_end_offset
        self.sequence -= sum(row[2] > 0 for offset, row in self.rows.items() if offset >= end)
        self.rows = {offset: row for offset, row in self.rows.items() if offset < end}
        if self.log.open_transactions():
            self._end(commit=False)  # as a node's coordinator does when it starts


def _present(values: dict[bytes, bytes | None]) -> dict[bytes, bytes]:
    return {key: value for key, value in values.items() if value is not None}


class RetentionModel(RuleBasedStateMachine):
    """`arrived` has the time of each record's arrival, by its offset; a record is about 1 kB, a segment three."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Tended()
        self.node.settled["readings"] = 0
        self.log = self.node.log(retention_ms=str(HOUR_MS))
        self.arrived: list[int] = []
        self.start = 0
        self.told: set[int] = set()
        self.was_settled = 0

    @rule(count=st.integers(1, 8))
    def write(self, count: int) -> None:
        self.node.fill(self.log, count)
        self.arrived += [self.node.clock.wall_ms()] * count

    @rule(share=st.floats(0, 1))
    def replicate(self, share: float) -> None:
        settled = int(len(self.arrived) * share)
        self.node.settled["readings"] = self.was_settled = max(settled, self.was_settled)

    @rule(minutes=st.integers(1, 90), trusted=st.booleans(), turns=st.integers(1, 3))
    def wait(self, minutes: int, trusted: bool, turns: int) -> None:
        self.node.trusted = trusted
        self.node.clock.advance(minutes * 60_000)
        for _ in range(turns):
            self.node.turn()
        self._moved(trusted=trusted)

    @rule(after=st.integers(1, 15), minutes=st.integers(1, 90))
    def power_cut_in_a_turn(self, after: int, minutes: int) -> None:
        self.node.trusted = True
        self.node.disk.cut_at = self.node.disk.changes + after
        with pytest.raises(PowerCutError):
            self._live(minutes)
        self.node.disk.cut_at = None
        self.node.disk.power_cut()
        self.node.open()
        self.log = self.node.log()
        del self.arrived[self.log.log_end_offset :]
        now = self.node.clock.wall_ms()
        self.arrived += [now] * (self.log.log_end_offset - len(self.arrived))
        self.node.turn()
        self._moved(trusted=True)

    def _live(self, minutes: int) -> None:
        for _ in range(40):
            self.node.turn(minutes * 60_000)
            self.node.fill(self.log, 1)
            self.arrived.append(self.node.clock.wall_ms())

    @invariant()
    def a_suffix_is_there(self) -> None:
        assert [row[0] for row in read_all(self.log)] == list(range(self.log.log_start_offset, len(self.arrived)))

    def _moved(self, *, trusted: bool) -> None:
        start, now = self.log.log_start_offset, self.node.clock.wall_ms()
        assert start >= self.start
        assert start <= self.was_settled
        assert trusted or start == self.start
        assert all(now - at > HOUR_MS for at in self.arrived[self.start : start])
        self.told |= {at for _, first, end, _, _ in self.node.expiries() for at in range(first, end)}
        assert self.told == set(range(start))
        assert {each[3] for each in self.node.expiries()} <= {AGE, "left by a stop"}
        self.start = start


_SETTINGS = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking such runs takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
CompactionModel.TestCase.settings = RetentionModel.TestCase.settings = _SETTINGS
test_compaction_model = CompactionModel.TestCase
test_retention_model = RetentionModel.TestCase
