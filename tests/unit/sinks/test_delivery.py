"""A batch against a server in memory: what it takes is written, what it refuses is named, in few requests."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from processors.sinks.answers import Answer
from processors.sinks.delivery import DOUBTS_MAX, Backoff, Delivery
from processors.sinks.points import Line

Server = Callable[[list[str]], Answer]


def lines(count: int, bad: frozenset[int] = frozenset(), *, measurement: str = "m") -> list[Line]:
    """Bad ones send field `a` as text."""
    return [Line(measurement, [("a", '"x"' if i in bad else "1"), ("b", "2")], i) for i in range(count)]


def delivery(of: list[Line], *, proven: bool = True) -> Delivery:
    return Delivery(of, backoff=Backoff(100, 1000, Random(1)), proven=proven)


def run(one: Delivery, server: Server, *, requests_max: int = 1000) -> int:
    """To the end; the number of requests."""
    requests = 0
    while sent := one.next():
        one.answered(server(sent), now_ms=0)
        requests += 1
        assert requests <= requests_max
    return requests


class Database:
    """Refuses field a as text (of the times in `shard`), and lines that contain `poison`; counts as InfluxDB does."""

    def __init__(self, *, shard: frozenset[int] | None = None, poison: str = "", counts: bool = True) -> None:
        self.taken: set[str] = set()
        self.shard = shard
        self.poison = poison
        self.counts = counts

    def __call__(self, sent: list[str]) -> Answer:
        if self.poison and any(self.poison in line for line in sent):
            return Answer(400, "what is this?")
        refused = [line for line in sent if 'a="x"' in line and self._mine(line)]
        self.taken |= set(sent) - set(refused)
        if not refused:
            return Answer(204)
        message = 'partial write: field type conflict: input field "a" on measurement "m" is type string, already '
        return Answer(422, message + "exists as type float" + (f" dropped={len(refused)}" if self.counts else ""))

    def _mine(self, line: str) -> bool:
        return self.shard is None or int(line.split()[-1]) in self.shard


def test_a_good_batch_is_one_request() -> None:
    database = Database()
    one = delivery(lines(100))
    assert run(one, database) == 1
    assert len(database.taken) == 100
    assert one.refused == []


def test_lines_of_the_wrong_type_are_named_and_their_other_fields_written() -> None:
    database = Database()
    bad = frozenset({3, 50, 99})
    one = delivery(lines(100, bad))
    assert run(one, database) == 4
    assert {f"m b=2 {i}" for i in bad} <= database.taken
    assert len(database.taken) == 100
    assert sorted(refusal.line for refusal in one.refused) == sorted(bad)
    assert {refusal.reason for refusal in one.refused} == {
        "field “a” of measurement “m” is string here, but float in the database"
    }


@pytest.mark.parametrize("counts", [True, False])
def test_only_the_lines_of_the_shard_that_has_another_type_are_refused(counts: bool) -> None:
    database = Database(shard=frozenset({7, 8}), counts=counts)
    one = delivery(lines(64, frozenset(range(64))))
    assert run(one, database, requests_max=40) > 4
    assert {refusal.line for refusal in one.refused} == {7, 8}
    assert 'm a="x",b=2 9' in database.taken
    assert "m b=2 7" in database.taken


def test_a_line_without_another_field_is_refused_whole() -> None:
    database = Database()
    one = delivery([Line("m", [("a", '"x"')], 1)])
    assert run(one, database) == 1
    assert [refusal.line for refusal in one.refused] == [0]
    assert database.taken == set()


def test_a_line_that_no_message_names_is_found_by_halving() -> None:
    database = Database(poison=" 77")
    one = delivery(lines(128))
    assert run(one, database, requests_max=20) > 2
    assert [(refusal.line, refusal.reason) for refusal in one.refused] == [(77, "400: what is this?")]
    assert len(database.taken) == 127


def test_what_is_too_large_is_halved() -> None:
    taken: list[str] = []

    def server(sent: list[str]) -> Answer:
        if len(sent) > 10:
            return Answer(413)
        taken.extend(sent)
        return Answer(204)

    one = delivery(lines(64))
    run(one, server)
    assert taken == [line.text() for line in lines(64)]  # and in its order: a later revision comes last
    alone = delivery(lines(1))
    run(alone, lambda sent: Answer(413))
    assert [refusal.line for refusal in alone.refused] == [0]


def test_a_failure_sends_the_same_lines_again_after_a_growing_pause() -> None:
    one = delivery(lines(3))
    waits = []
    for _ in range(8):
        sent = one.next()
        assert len(sent) == 3
        waits.append(one.answered(Answer(503, "busy"), now_ms=0))
        assert one.problem == "503: busy"
    assert waits[:4] == sorted(waits[:4])
    assert all(500 <= wait <= 1000 for wait in waits[4:])
    assert one.answered(Answer(429, "", "5"), now_ms=0) == 5000
    assert run(one, Database()) == 1
    assert (one.problem, one.refused) == ("", [])


def test_a_server_that_has_never_taken_a_line_cannot_empty_the_log_into_the_dead_letters() -> None:
    one = delivery(lines(1000), proven=False)
    requests = 0
    while not one.problem:
        assert one.next()
        wait_ms = one.answered(Answer(400, "<html>no such page</html>"), now_ms=0)
        requests += 1
    assert requests <= 11 + 2 * DOUBTS_MAX
    assert wait_ms >= 50
    assert one.refused == []
    assert len(one.next()) == 1000
    run(one, Database())
    assert (one.proven, one.refused) == (True, [])


def test_the_first_line_taken_proves_that_the_others_were_to_blame() -> None:
    one = delivery(lines(8), proven=False)
    run(one, Database(poison=" 0"))
    assert [refusal.line for refusal in one.refused] == [0]


def test_lines_beyond_the_retention_are_counted_and_not_refused() -> None:
    one = delivery(lines(5))
    assert run(one, lambda sent: Answer(422, "partial write: points beyond retention policy dropped=2")) == 1
    assert (one.expired, one.refused) == (2, [])
