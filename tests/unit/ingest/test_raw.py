"""Messages of a user's decoder: acknowledged as topic `raw`, and what they came to is stored once, marks included."""

from __future__ import annotations

import errno

import msgspec
import pytest

from devices.profile_text import load_profiles
from devices.reading import Reading
from gateway.ingest.mqtt.sessions import Session
from gateway.ingest.outcome import Outcome
from tests.support.ingest import Edge, Stored, stored

PROFILE = """
name = "tag"
decoder = "/elsewhere/tag.py:decode"
topics = ["tags/{device}"]
natural_key = "n"

[fields.temperature]
max = 50

[fields.n]
"""


def edge_with_tags() -> Edge:
    return Edge(load_profiles([("tag.toml", PROFILE)]))


def resumed(edge: Edge) -> tuple[Session, bool]:
    """The client's session, and whether it was there."""
    registry = edge.registry()
    session, present, _ = registry.open("a", clean=False, ends={"readings": 0, "deadletter": 0, "raw": 0})
    registry.prepare_sync()()
    return session, present


def raw(edge: Edge) -> list[Stored]:
    return stored(edge.store.topics["raw"].partitions[0], decode=False)


def outcome(edge: Edge, offset: int, *readings: Reading, source: str = "mqtt:a", reason: str = "") -> Outcome:
    record = raw(edge)[offset]
    told = (source, record.timestamp, record.headers["topic"].decode())
    return Outcome(offset, *told, list(readings), reason, "tag" if reason else "", record.value if reason else b"")


def hand_back(edge: Edge, *outcomes: Outcome, first: int, end: int) -> list[bool]:
    """As the decoders' driver does; what the batch was answered."""
    answers: list[bool] = []
    edge.ingest.take_outcomes("tag", outcomes, first=first, next_offset=end, done=answers.append)
    edge.store.flush_now()
    return answers


def reading(edge: Edge, n: int, temperature: float = 20.5, age_ms: int = 0) -> Reading:
    return Reading("t1", {"temperature": temperature, "n": n}, edge.clock.wall_ms() - age_ms, n)


def test_a_message_is_acknowledged_when_its_bytes_are_on_disk_as_they_came() -> None:
    edge = edge_with_tags()
    source = edge.attach("a", session=resumed(edge)[0])
    edge.take(source, ("tags/t1", b"\xff\x00", 7, 2), ("plain", b"1", 8, 2))
    edge.loop.step()
    assert not edge.acks
    edge.store.flush_now()
    assert edge.acks == [("mqtt:a", [7, 8])]
    [record] = raw(edge)
    assert (record.key, record.value, record.timestamp) == ("edge/mqtt:a", b"\xff\x00", edge.clock.wall_ms())
    assert (record.headers["topic"], record.headers["profile"]) == (b"tags/t1", b"tag")
    assert record.headers["hw-m"].startswith(b"7:")
    assert [one.key for one in edge.readings() if "$" not in one.key] == ["edge/plain"]


def test_what_it_came_to_goes_the_way_of_any_reading_and_names_its_raw_message() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a"), *[("tags/t1", b"x", 0, 0)] * 4)
    edge.sync()
    far = Reading("t1", {"temperature": 3.0, "n": 3}, 5, 3)
    outcomes = [
        outcome(edge, 0, reading(edge, 1), reading(edge, 2, 90.0)),
        outcome(edge, 1, reason="tag.py, line 3: KeyError"),
        outcome(edge, 2, reading(edge, 1), far),
        outcome(edge, 3),
    ]
    assert hand_back(edge, *outcomes, first=0, end=4) == [True]
    first, second, third = [one for one in edge.readings() if one.key == "edge/t1"]
    assert (first.value, first.headers) == ({"temperature": 20.5, "n": 1}, {})
    assert second.headers == {"hw-q": b"out-of-range:temperature", "hw-raw": b"tag/0/0"}
    assert third.headers == {"hw-t": b"5", "hw-raw": b"tag/2/0"}
    [dead] = edge.dead_letters()
    assert (dead.key, dead.value) == ("edge/mqtt:a", b"x")
    assert (dead.headers["reason"], dead.headers["hw-raw"]) == (b"tag.py, line 3: KeyError", b"tag/1/0")
    status = edge.ingest.status()
    counts = ("received", "raw", "stored", "dead_letters", "repeats_natural_key", "suppressed")
    assert [status[name] for name in counts] == [4, 4, 3, 1, 1, 1]
    [row] = [one for one in status["sources"] if one["id"] == "mqtt:a"]
    assert (row["readings"], row["dead_letters"]) == (3, 1)


def test_after_a_power_cut_what_was_settled_is_known_and_the_rest_is_not() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a"), *[("tags/t1", b"x", 0, 0)] * 6)
    edge.sync()
    hand_back(edge, *(outcome(edge, at, reading(edge, at)) for at in range(2)), first=0, end=2)
    hand_back(edge, outcome(edge, 2, reading(edge, 2)), outcome(edge, 4, reason="no"), first=2, end=5)
    lost = [outcome(edge, 5, reading(edge, 5))]
    edge.ingest.take_outcomes("tag", lost, first=5, next_offset=6, done=lambda _: None)  # not on disk
    edge.power_cut()
    progress = edge.ingest.raw.progress["tag"]
    assert (progress.start, sorted(progress.found)) == (2, [2, 4])


def test_a_repeat_of_a_raw_message_is_recognised_after_a_power_cut() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a", resumed(edge)[0]), ("tags/t1", b"x", 7, 2))
    edge.sync()
    edge.power_cut()
    session, present = resumed(edge)
    assert present
    edge.take(edge.attach("a", session, resumed=True), ("tags/t1", b"x", 7, 2 | 8))
    edge.sync()
    assert len(raw(edge)) == 1


def live(edge: Edge) -> int:
    """T of a mark that is made now, in ms before the wall clock."""
    edge.clock.advance(1_500)
    edge.ingest.tick()
    edge.store.flush_now()
    marks = [one for one in edge.readings() if "hw-mark" in one.headers]
    return edge.clock.wall_ms() - int(msgspec.json.decode(marks[-1].headers["hw-mark"])["live"])


def test_t_waits_for_what_is_not_decoded_yet() -> None:
    edge = edge_with_tags()
    source = edge.attach("a")
    assert live(edge) == 2_000
    edge.take(source, ("tags/t1", b"x", 0, 0))
    edge.sync()
    assert live(edge) == 3_500
    edge.take(source, ("plain", b"1", 0, 0))  # the same client's other readings do not carry T past it
    edge.sync()
    assert live(edge) == 5_000
    hand_back(edge, outcome(edge, 0, reading(edge, 1, age_ms=4_000)), first=0, end=1)
    assert live(edge) == 6_500  # T never falls; the reading is above it
    assert edge.ingest.status()["late"] == 0
    edge.clock.advance(10_000)
    assert live(edge) == 2_000  # idle by now, as any source


def test_t_waits_across_a_restart_and_not_for_ever() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a"), ("tags/t1", b"x", 0, 0))
    edge.sync()
    edge.power_cut()
    before = live(edge)
    assert live(edge) == before + 1_500
    edge.clock.advance(60_000)
    assert live(edge) == 2_000
    [row] = [one for one in edge.ingest.status()["sources"] if one["id"] == "mqtt:a"]
    assert "wait to be decoded" in row["note"]
    hand_back(edge, outcome(edge, 0, reading(edge, 1)), first=0, end=1)
    [row] = [one for one in edge.ingest.status()["sources"] if one["id"] == "mqtt:a"]
    assert row["note"] is None


def test_a_disk_that_fails_settles_nothing() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a"), ("tags/t1", b"x", 0, 0))
    edge.sync()
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    assert hand_back(edge, outcome(edge, 0, reading(edge, 1)), first=0, end=1) == [False]
    assert edge.ingest.raw.progress["tag"].start == 0
    assert hand_back(edge, outcome(edge, 0, reading(edge, 1)), first=0, end=1) == [True]
    assert [one.value["n"] for one in edge.readings() if one.key == "edge/t1"] == [1]


def test_a_batch_of_a_decoder_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        edge_with_tags().ingest.take_outcomes("other", [], first=0, next_offset=1, done=lambda _: None)


def test_nothing_that_waits_for_its_decoder_may_expire() -> None:
    edge = edge_with_tags()
    edge.take(edge.attach("a"), *[("tags/t1", b"x", 0, 0)] * 3)
    edge.sync()
    assert edge.ingest.raw.decoded_below(3) == 0
    hand_back(edge, outcome(edge, 0, reading(edge, 1)), first=0, end=1)
    assert edge.ingest.raw.decoded_below(3) == 1
    hand_back(edge, outcome(edge, 1), outcome(edge, 2), first=1, end=3)
    assert edge.ingest.raw.decoded_below(9) == 9
