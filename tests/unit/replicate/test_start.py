"""Every start rule of design section 8."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.replicate.journal import Remembered, RunEntry
from gateway.replicate.progress import Destination, Part, Progress
from gateway.replicate.requests import Topic
from gateway.replicate.start import (
    CENTRAL_CHANGED,
    LOG_DIFFERS,
    LOG_SHORTER,
    NO_COMMON_RUN,
    PROGRESS_LOST,
    TWIN,
    Choice,
    Found,
    GoOn,
    Halt,
    Local,
    decide,
)
from tests.support.edge import NaiveLog, reading

KEY = "readings/0"


def log(records: int = 100, *, fork: int | None = None) -> NaiveLog:
    """Batches of ten; from `fork` on with other content."""
    made = NaiveLog()
    for start in range(0, records, 10):
        shift = 0 if fork is None or start < fork else 1_000
        made.add([reading(start + n + shift) for n in range(10)])
    made.sync()
    return made


def chain(source: NaiveLog, *offsets: int) -> list[tuple[int, str]]:
    return [(offset, f"{source.chain_at(offset):016x}") for offset in offsets]


def record(done: int, *, runs: list[tuple[str, dict[str, int]]], chain: Any = (), **changes: Any) -> Progress:
    made = Progress(
        node="n",
        version="0",
        log="l",
        epoch=1,
        txn=9,
        runs=runs,
        parts={KEY: Part(done=done, end=done, chain=list(chain))},
        to=Destination(cluster="C", topics={"readings": ("T1", 0)}, at={"readings": (done - 1, "hw")}),
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def judge(
    found: Progress | None,
    source: NaiveLog,
    runs: list[tuple[str, int]],
    *,
    choice: Choice | None = None,
    cluster: str = "C",
    topic_id: str = "T1",
    at_problem: str = "",
    remembered: Remembered | None = None,
    was_up: bool = False,
    txn_known: int = 0,
) -> GoOn | Halt:
    entries = [RunEntry(run=run, first={KEY: first}, boot="", wall_ms=0, monotonic_ms=0.0) for run, first in runs]
    there = Found(found, cluster, {"readings": Topic(topic_id, {0: 1})}, at_problem)
    local = Local(
        node="n", runs=entries, remembered=remembered, sources={KEY: source}, was_up=was_up, txn_known=txn_known
    )
    return decide(there, local, choice)


REMEMBERED = Remembered(cluster="C", topic_id="P", partition=0, offset=5, txn=9, done={KEY: 40})


def test_no_record_and_none_remembered_begins_at_0_so_that_what_expired_is_named() -> None:
    source = log()
    source.expire(20)
    outcome = judge(None, source, [("a", 0)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 0}
    assert not outcome.raise_from


@pytest.mark.parametrize("known", [{"remembered": REMEMBERED}, {"txn_known": 3}])
def test_no_record_but_one_remembered_stops(known: dict[str, Any]) -> None:
    outcome = judge(None, log(), [("a", 0)], **known)
    assert isinstance(outcome, Halt)
    assert outcome.reason == PROGRESS_LOST
    assert "resend" in outcome.hint


def test_a_lost_record_and_the_operators_choice() -> None:
    resend = judge(None, log(), [("a", 0)], remembered=REMEMBERED, choice="resend")
    accept = judge(None, log(), [("a", 0)], remembered=REMEMBERED, choice="accept")
    assert isinstance(resend, GoOn)
    assert isinstance(accept, GoOn)
    assert (resend.positions, accept.positions) == ({KEY: 0}, {KEY: 40})


def test_my_newest_run_and_an_equal_chain_go_on() -> None:
    source = log()
    outcome = judge(record(60, runs=[("a", {KEY: 0})], chain=chain(source, 60, 30)), source, [("a", 0)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 60}
    assert outcome.epoch == 1
    assert not outcome.raise_from


def test_a_later_run_of_mine_goes_on_where_the_earlier_one_was() -> None:
    source = log()
    found = record(60, runs=[("a", {KEY: 0})], chain=chain(source, 60))
    outcome = judge(found, source, [("a", 0), ("b", 80), ("c", 90)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 60}
    assert not outcome.raise_from


def test_a_partition_that_the_record_does_not_know_begins_at_its_start() -> None:
    source = log()
    outcome = judge(record(60, runs=[("a", {KEY: 0})], parts={}), source, [("a", 0)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 0}


def test_a_chain_that_differs_stops() -> None:
    found = record(60, runs=[("a", {KEY: 0})], chain=chain(log(fork=20), 60, 10))
    outcome = judge(found, log(), [("a", 0)])
    assert isinstance(outcome, Halt)
    assert outcome.reason == LOG_DIFFERS
    assert "60" in outcome.detail


def test_a_log_that_ends_below_done_in_the_same_run_stops() -> None:
    outcome = judge(record(150, runs=[("a", {KEY: 0})]), log(100), [("a", 0)])
    assert isinstance(outcome, Halt)
    assert outcome.reason == LOG_SHORTER


def test_a_restored_card_resumes_where_the_histories_part_under_a_new_epoch() -> None:
    # The card was copied in run a at 50; the original went on to 90 in run b. The copy then wrote its own 50..100.
    original, mine = log(90), log(100, fork=50)
    found = record(80, runs=[("b", {KEY: 50}), ("a", {KEY: 0})], chain=chain(original, 80, 40))
    outcome = judge(found, mine, [("a", 0), ("x", 50)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 50}
    assert outcome.raise_from == {KEY: 50}
    assert outcome.epoch == 2


def test_a_restored_card_whose_prefix_was_not_all_sent_resumes_at_done() -> None:
    original, mine = log(90), log(100, fork=50)
    found = record(30, runs=[("b", {KEY: 50}), ("a", {KEY: 0})], chain=chain(original, 30))
    outcome = judge(found, mine, [("a", 0), ("x", 50)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 30}
    assert outcome.raise_from == {KEY: 50}


def test_a_restored_card_goes_no_further_than_the_other_history_shared() -> None:
    # A power cut took the original's tail before its run b: what the copy has above 40 it never had.
    found = record(80, runs=[("b", {KEY: 40}), ("a", {KEY: 0})])
    outcome = judge(found, log(100), [("a", 0), ("x", 50)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 40}


def test_a_restored_card_with_another_prefix_stops() -> None:
    original, mine = log(90), log(100, fork=20)
    found = record(80, runs=[("b", {KEY: 50}), ("a", {KEY: 0})], chain=chain(original, 80, 40))
    outcome = judge(found, mine, [("a", 0), ("x", 50)])
    assert isinstance(outcome, Halt)
    assert outcome.reason == LOG_DIFFERS


def test_a_disk_that_forgot_synced_records_is_like_a_restored_card() -> None:
    # Run a had sent 60; after a power cut the log ended at 50, and run b wrote others there.
    outcome = judge(record(60, runs=[("a", {KEY: 0})]), log(100, fork=50), [("a", 0), ("b", 50)])
    assert isinstance(outcome, GoOn)
    assert outcome.positions == {KEY: 50}
    assert outcome.raise_from == {KEY: 50}
    assert outcome.epoch == 2


@pytest.mark.parametrize("choice", [None, "accept"])
def test_no_common_run_stops(choice: Choice | None) -> None:
    outcome = judge(record(60, runs=[("z", {KEY: 0})]), log(), [("a", 0)], choice=choice)
    assert isinstance(outcome, Halt)
    assert outcome.reason == NO_COMMON_RUN
    assert "another name" in outcome.hint


def test_resending_over_another_history_shares_no_identity_with_it() -> None:
    outcome = judge(record(60, runs=[("z", {KEY: 0})]), log(), [("a", 0)], choice="resend")
    assert isinstance(outcome, GoOn)
    assert outcome.positions == outcome.raise_from == {KEY: 0}
    assert outcome.epoch == 2


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": "D"},
        {"topic_id": "T2"},
        {"at_problem": "readings has nothing of mine at 59"},
        {"remembered": Remembered(cluster="C", topic_id="P", partition=0, offset=5, txn=10)},
        {"txn_known": 10},
    ],
)
def test_another_or_a_truncated_central_stops_until_the_operator_chose(change: dict[str, Any]) -> None:
    source = log()
    found = record(60, runs=[("a", {KEY: 0})], chain=chain(source, 60))
    outcome = judge(found, source, [("a", 0)], **change)
    assert isinstance(outcome, Halt)
    assert outcome.reason == CENTRAL_CHANGED
    accept = judge(found, source, [("a", 0)], choice="accept", **change)
    assert isinstance(accept, GoOn)
    assert accept.positions == {KEY: 60}
    resend = judge(found, source, [("a", 0)], choice="resend", **change)
    assert isinstance(resend, GoOn)
    assert resend.positions == {KEY: 0}
    assert not resend.raise_from


def test_a_partition_that_is_not_there_any_more_stops() -> None:
    found = record(60, runs=[("a", {KEY: 0})], to=Destination(cluster="C", topics={"readings": ("T1", 7)}))
    outcome = judge(found, log(), [("a", 0)])
    assert isinstance(outcome, Halt)
    assert outcome.reason == CENTRAL_CHANGED


def test_what_was_remembered_of_another_central_says_nothing() -> None:
    elsewhere = Remembered(cluster="B", topic_id="P", partition=0, offset=5, txn=500)
    outcome = judge(record(60, runs=[("a", {KEY: 0})]), log(), [("a", 0)], remembered=elsewhere)
    assert isinstance(outcome, GoOn)


@pytest.mark.parametrize("choice", [None, "resend", "accept"])
def test_a_foreign_newest_run_while_i_am_up_is_a_twin(choice: Choice | None) -> None:
    found = record(60, runs=[("b", {KEY: 50}), ("a", {KEY: 0})])
    outcome = judge(found, log(), [("a", 0), ("x", 50)], was_up=True, choice=choice)
    assert isinstance(outcome, Halt)
    assert outcome.reason == TWIN


def test_fenced_with_my_own_newest_run_goes_on() -> None:
    outcome = judge(record(60, runs=[("x", {KEY: 50}), ("a", {KEY: 0})]), log(), [("a", 0), ("x", 50)], was_up=True)
    assert isinstance(outcome, GoOn)
