from __future__ import annotations

import errno
from typing import Any

import pytest

from gateway.log.errors import CorruptBatch
from gateway.log.records import Compression, decode_batch, decode_headers, read_header, split_batches
from gateway.replicate.gather import Load, Position, Producer
from tests.support.edge import Answer, NaiveLog, reading

KEY = "readings/0"


def filled(batches: int, *, size: int = 10) -> NaiveLog:
    log = NaiveLog()
    for number in range(batches):
        log.add([reading(number * size + n) for n in range(size)])
    log.sync()
    return log


def load(sources: dict[str, NaiveLog], positions: dict[str, Position], **options: Any) -> Load:
    producer = Producer(9, 1, Compression.ZSTD)
    settings: dict[str, Any] = {"node": "n", "raised": {}, "until": {}, "condemned": {}, "bytes_max": 1 << 20}
    return Load(sources, positions, producer, **(settings | options))


def at(log: NaiveLog, done: int) -> Position:
    return Position.resume(done, log, None)


def finish(subject: Load) -> Load:
    for _ in range(10_000):
        if subject.step():
            return subject
    raise AssertionError("never complete")


def sent(subject: Load) -> list[int]:
    """Source offsets, out of the identities that were sent."""
    sections = [section for batch in subject.batches for section in decode_batch(batch.data).headers]
    return [int((dict(decode_headers(section))["hw"] or b"").rpartition(b"/")[2]) for section in sections]


def test_everything_that_is_synced_and_nothing_else() -> None:
    log = filled(5)
    log.add([reading(99)])
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}))
    assert sent(subject) == list(range(50))
    assert subject.positions[KEY].done == 50
    assert subject.positions[KEY].chain[0] == (50, f"{log.chain_at(50):016x}")
    (batch,) = subject.batches
    header = read_header(batch.data)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 1, 0)
    assert header.is_transactional
    assert header.compression == Compression.ZSTD
    assert batch.last_identity == "n/0/0/49"


def test_it_begins_in_the_middle_of_a_batch_and_the_chain_follows() -> None:
    log = filled(3)
    subject = finish(load({KEY: log}, {KEY: at(log, 7)}))
    assert sent(subject) == list(range(7, 30))
    assert subject.positions[KEY].chain[0] == (30, f"{log.chain_at(30):016x}")


def test_it_stops_in_the_middle_of_a_batch_and_the_chain_waits() -> None:
    log = filled(3)
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}, until={KEY: 14}))
    assert sent(subject) == list(range(14))
    assert subject.positions[KEY].done == 14
    assert subject.positions[KEY].chain == []
    rest = finish(load({KEY: log}, subject.positions))
    assert sent(rest) == list(range(14, 30))
    assert rest.positions[KEY].chain[0] == (30, f"{log.chain_at(30):016x}")


def test_the_positions_that_it_began_with_stay_untouched() -> None:
    log = filled(3)
    before = at(log, 0)
    finish(load({KEY: log}, {KEY: before}))
    assert before == at(log, 0)


def test_its_size_is_bounded_and_shared() -> None:
    many, few = filled(2_000), NaiveLog("events")
    few.add([reading(1)])
    few.sync()
    subject = finish(load({KEY: many, "events/0": few}, {KEY: at(many, 0), "events/0": at(few, 0)}, bytes_max=100_000))
    assert 90_000 <= subject.source_bytes <= 100_000 + 70_000
    assert {batch.source for batch in subject.batches} == {KEY, "events/0"}
    assert 0 < subject.positions[KEY].done < 20_000


def test_batches_stay_below_a_brokers_limit_and_sequences_go_on() -> None:
    log = filled(3_000)
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}, bytes_max=8 << 20))
    assert len(subject.batches) > 3
    assert all(len(batch.data) < 1_000_000 for batch in subject.batches)
    sequences = [read_header(batch.data).base_sequence for batch in subject.batches]
    counts = [batch.records for batch in subject.batches]
    assert sequences == [sum(counts[:number]) for number in range(len(counts))]
    assert [batch.start for batch in subject.batches[1:]] == [batch.end for batch in subject.batches[:-1]]
    assert sent(subject) == list(range(30_000))


def test_expired_records_are_gone_and_named() -> None:
    log = filled(5)
    log.expire(20)
    subject = finish(load({KEY: log}, {KEY: Position(5)}))
    assert sent(subject) == list(range(20, 50))
    assert subject.positions[KEY].gone == [(5, 20, "expired")]
    assert subject.gone == 15


def test_a_damaged_batch_is_gone_and_its_neighbours_pass() -> None:
    log = filled(3)
    log.batches[1] = log.batches[1][:-1] + b"\x07"
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}))
    assert sent(subject) == [*range(10), *range(20, 30)]
    assert subject.positions[KEY].gone == [(10, 20, "damaged")]


class Unreadable(NaiveLog):
    """Reading across one of the offsets in `bad` raises `error`, as a bad sector or a damaged length does."""

    bad = range(0)
    error: Exception = OSError(errno.EIO, "Input/output error")

    def read(self, offset: int, max_bytes: int, *, committed: bool = False) -> Answer:
        answer = super().read(offset, max_bytes, committed=committed)
        for batch in split_batches(answer.data):
            header = read_header(batch)
            if set(self.bad) & set(range(header.base_offset, header.next_offset)):
                raise self.error
        return answer

    def chain_at(self, offset: int) -> int | None:
        if self.bad and offset > self.bad[0]:
            raise self.error
        return super().chain_at(offset)


@pytest.mark.parametrize("error", [Unreadable.error, CorruptBatch("Batch of 2147483647 bytes")])
@pytest.mark.parametrize(("bad", "lost"), [(range(20, 21), 30), (range(25, 50), 50), (range(20, 890), 890)])
def test_what_cannot_be_read_is_gone_and_named_and_the_rest_passes(bad: range, lost: int, error: Exception) -> None:
    log = Unreadable()
    log.bad, log.error = bad, error
    for number in range(100):
        log.add([reading(number * 10 + n) for n in range(10)])
    log.sync()
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}))
    assert sent(subject) == [*range(20), *range(lost, 1_000)]
    assert subject.positions[KEY].gone == [(20, lost, "damaged")]
    assert finish(load({KEY: log}, {KEY: at(log, 900)})).positions[KEY].done == 1_000


def test_a_disk_that_is_away_loses_nothing_and_holds_up_nobody_else() -> None:
    away, other = Unreadable(), NaiveLog("events")
    away.bad = range(100)
    for log in (away, other):
        log.add([reading(1)])
        log.sync()
    subject = finish(load({KEY: away, "events/0": other}, {KEY: at(away, 0), "events/0": at(other, 0)}))
    assert (subject.positions[KEY].done, subject.positions[KEY].gone) == (0, [])
    assert subject.positions["events/0"].done == 1


def test_a_record_with_a_header_section_cut_short_is_damaged() -> None:
    log = NaiveLog()
    log.add([reading(0, b"\x02\x08hw-m")])
    log.add([reading(1)])
    log.sync()
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}))
    assert (sent(subject), subject.positions[KEY].gone) == ([1], [(0, 1, "damaged")])


def test_aborted_transactions_and_markers_are_settled_and_not_sent() -> None:
    log = filled(1)
    log.add_aborted([reading(1), reading(2)], producer_id=5)
    log.add([reading(3)])
    log.sync()
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}))
    assert sent(subject) == [*range(10), 13]
    assert subject.positions[KEY].done == 14
    assert subject.positions[KEY].gone == []


def test_ranges_that_are_settled_already_are_passed_over() -> None:
    log = filled(4)
    position = at(log, 5)
    position.ranges = [(8, 12), (20, 31)]
    subject = finish(load({KEY: log}, {KEY: position}))
    assert sent(subject) == [5, 6, 7, *range(12, 20), *range(31, 40)]
    assert subject.positions[KEY].ranges == []


def test_a_condemned_record_is_left_out_and_named() -> None:
    log = filled(2)
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}, condemned={KEY: {0: "refused: A", 13: "refused: B"}}))
    assert sent(subject) == [*range(1, 13), *range(14, 20)]
    assert subject.positions[KEY].gone == [(0, 1, "refused: A"), (13, 14, "refused: B")]
    assert subject.positions[KEY].chain[0] == (20, f"{log.chain_at(20):016x}")


def test_a_raised_epoch_shows_from_its_offset_on() -> None:
    log = filled(2)
    subject = finish(load({KEY: log}, {KEY: at(log, 0)}, raised={KEY: [(10, 6)]}))
    sections = [section for batch in subject.batches for section in decode_batch(batch.data).headers]
    epochs = [(dict(decode_headers(section))["hw"] or b"").split(b"/")[1] for section in sections]
    assert epochs == [b"0"] * 10 + [b"6"] * 10
