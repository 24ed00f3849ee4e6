from __future__ import annotations

from random import Random

from gateway.replicate.pacing import TRANSACTION_BYTES_MIN, TRANSACTION_BYTES_START, Backoff, Pacer

FAST_MS = 50.0


def pacer(**options: int) -> Pacer:
    return Pacer(**({"bytes_max": 4 << 20, "linger_ms": 250} | options))


def run(subject: Pacer, now: float, size_bytes: int, took_ms: float) -> float:
    subject.opened(now, size_bytes)
    subject.committed(now + took_ms, size_bytes)
    return now + took_ms


def test_full_transactions_grow_on_a_fast_link_up_to_the_bound() -> None:
    subject, now = pacer(), 0.0
    assert subject.size_bytes == TRANSACTION_BYTES_START
    for _ in range(10):
        now = run(subject, now, subject.size_bytes, FAST_MS)
    assert subject.size_bytes == 4 << 20


def test_a_slow_link_gets_what_it_carries_in_two_seconds() -> None:
    subject = pacer()
    run(subject, 0.0, subject.size_bytes, 8_000.0)
    assert subject.size_bytes == TRANSACTION_BYTES_START // 4


def test_a_time_out_halves_down_to_the_bound() -> None:
    subject = pacer()
    for _ in range(20):
        subject.timed_out()
    assert subject.size_bytes == TRANSACTION_BYTES_MIN


def test_a_small_transaction_on_a_far_link_does_not_shrink_it() -> None:
    subject = pacer()
    run(subject, 0.0, 1_000, 900.0)
    assert subject.size_bytes == TRANSACTION_BYTES_START


def test_a_trickle_lingers_and_a_backlog_does_not() -> None:
    subject = pacer()
    assert subject.ready_at(100) == 0.0
    run(subject, 1_000.0, 100, FAST_MS)
    assert subject.ready_at(100) == 1_250.0
    assert subject.ready_at(TRANSACTION_BYTES_START) <= 1_000.0


def test_a_capped_rate_spaces_transactions() -> None:
    subject = pacer(rate_bytes_per_s=100_000)
    subject.opened(1_000.0, 200_000)
    assert subject.ready_at(1 << 30) == 3_000.0


def test_pauses_double_with_jitter_up_to_the_bound_and_count_the_attempt() -> None:
    backoff = Backoff(Random(1), 1_000.0)
    pauses = [backoff.until(0.0, 0.0) for _ in range(12)]
    assert all(25.0 <= pause <= 1_000.0 for pause in pauses)
    assert max(pauses[:2]) <= 100.0
    assert all(pause >= 500.0 for pause in pauses[6:])
    assert backoff.until(5_000.0, 2_000.0) == 5_000.0  # the attempt itself took longer than the pause
    backoff.reset()
    assert backoff.until(0.0, 0.0) <= 50.0
