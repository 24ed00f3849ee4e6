"""Marks: the value byte for byte, listings, recordings, sources that hold and release."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.ingest.marks import CHANGES_MAX, MarkMaker, MarkSettings, MarkSource
from gateway.log.own_headers import OwnMark

WALL = 1_700_000_000_000


def maker(*, recorded: bool = False, **settings: int) -> MarkMaker:
    return MarkMaker(MarkSettings(**settings), node="edge-1", started_ms=0.0, recorded=recorded)


def make(marks: MarkMaker, now_ms: float) -> dict[str, Any]:
    mark: dict[str, Any] = msgspec.json.decode(marks.make(now_ms=now_ms, wall_ms=WALL + int(now_ms), epoch=2))
    return mark


def send(marks: MarkMaker, source_id: str, now_ms: float, event_ms: int | None = None) -> MarkSource:
    source = marks.source(source_id)
    marks.connected(source)
    wall_ms = WALL + int(now_ms)
    marks.saw(source, wall_ms if event_ms is None else event_ms, arrival_ms=wall_ms, now_ms=now_ms)
    return source


def test_the_value_byte_for_byte() -> None:
    marks = maker()
    send(marks, "mqtt:t1", 400)
    assert marks.make(now_ms=1_000, wall_ms=WALL + 1_000, epoch=2) == (
        b'{"v":1,"node":"edge-1","epoch":2,"partition":0,"k":1,"n":1,"live":1699999998400,'
        b'"src":{"mqtt:t1":["connected",1699999998400]},"clock":1700000001000,"every_ms":1000}'
    )


def test_due_and_overdue() -> None:
    marks = maker()
    assert not marks.due(999)
    assert marks.due(1_000)
    assert not marks.overdue(1_100)
    assert marks.overdue(1_200)
    make(marks, 1_200)
    assert not marks.due(2_100)


def test_a_silent_source_holds_until_idle_and_a_goodbye_releases_at_once() -> None:
    marks = maker()
    silent = send(marks, "mqtt:silent", 0)
    send(marks, "mqtt:busy", 9_000)
    assert make(marks, 9_000)["live"] == WALL - 2_000
    send(marks, "mqtt:busy", 10_001)
    assert make(marks, 10_001)["live"] == WALL + 8_001
    other = send(marks, "mqtt:other", 10_500, WALL + 8_100)
    assert make(marks, 10_500)["live"] == WALL + 8_001  # never falls
    marks.disconnected(other, clean=True)
    mark = make(marks, 10_600)
    assert mark["live"] == WALL + 8_001
    assert mark["src"]["mqtt:other"][0] == "gone"
    assert silent.told is not None


def test_a_profiles_expected_interval_takes_the_place_of_idle_ms() -> None:
    marks = maker()
    send(marks, "mqtt:slow", 0).idle_ms = 30_000
    send(marks, "mqtt:busy", 25_000)
    assert make(marks, 25_000)["live"] == WALL - 2_000


def test_an_unclean_end_still_holds() -> None:
    marks = maker()
    marks.disconnected(send(marks, "mqtt:a", 0), clean=False)
    send(marks, "mqtt:b", 5_000)
    assert make(marks, 5_000)["live"] == WALL - 2_000


def test_a_source_far_behind_is_left_out_unless_it_is_a_recording() -> None:
    marks = maker()
    slow = send(marks, "mqtt:slow", 1_000, WALL - 70_000)
    send(marks, "mqtt:ok", 1_000)
    assert marks.is_behind(slow)
    assert make(marks, 1_000)["live"] == WALL - 1_000
    slow.recorded = True
    assert not marks.is_behind(slow)


def test_without_any_source_t_is_now() -> None:
    assert make(maker(), 5_000)["live"] == WALL + 3_000


def test_a_recording_that_has_not_begun_or_pauses_says_nothing_about_today() -> None:
    marks = maker(recorded=True)
    assert make(marks, 1_000)["live"] == 0
    old = send(marks, "mqtt:replay", 2_000, 1_357_000_000_000)
    old.recorded = True
    assert make(marks, 2_000)["live"] == 1_357_000_000_000 - 2_000
    assert make(marks, 60_000)["live"] == 1_357_000_000_000 - 2_000
    marks.disconnected(old, clean=True)
    assert make(marks, 61_000)["live"] == WALL + 59_000


def test_at_most_64_changes_and_nobody_starves() -> None:
    marks = maker()
    names = [f"mqtt:{number:03}" for number in range(150)]
    for first in (1, 4, 7):  # the first three are the full listing, the others changes alone
        told: set[str] = set()
        for step in range(first, first + 3):
            for name in names:
                send(marks, name, step * 1_000)
            src = make(marks, step * 1_000)["src"]
            assert len(src) <= CHANGES_MAX
            told |= set(src)
        assert told == set(names)


def test_every_60th_mark_begins_a_full_listing() -> None:
    marks = maker()
    for number in range(70):
        send(marks, f"mqtt:{number}", 0)
    sizes = [len(make(marks, step * 10)["src"]) for step in range(1, 65)]
    assert [index + 1 for index, size in enumerate(sizes) if size] == [1, 2, 61, 62]
    assert sizes[60] + sizes[61] == 70


def test_resuming_goes_on_counting_and_never_falls() -> None:
    first = maker()
    send(first, "mqtt:a", 500)
    marks = [first.make(now_ms=1_000 * step, wall_ms=WALL + 1_000 * step, epoch=0) for step in (1, 2)]
    second = maker()
    for value in marks:
        second.resume(msgspec.json.decode(value, type=OwnMark))
    mark = make(second, 9_000)
    assert mark["n"] == 3
    assert mark["live"] == WALL - 1_500  # the source that was there holds T until idle, from this start on
    assert make(second, 10_001)["live"] == WALL + 8_001


def test_sources_that_left_long_ago_are_forgotten() -> None:
    marks = maker()
    marks.disconnected(send(marks, "mqtt:once", 0), clean=True)
    send(marks, "mqtt:stays", 0)
    marks.forget_gone(3_600_001)
    assert list(marks.sources) == ["mqtt:stays"]


def test_a_short_forward_step_of_the_clock_does_not_carry_t_along() -> None:
    """A day ahead for two seconds, then right again: no reading of the rest is late, nor of the next run."""
    marks = maker()
    for second in range(60):
        now_ms = 1_000.0 * second
        wall_ms = WALL + 1_000 * second + (86_400_000 if 10 <= second < 12 else 0)
        source = marks.source("mqtt:a")
        marks.connected(source)
        assert marks.live <= wall_ms
        marks.saw(source, wall_ms, arrival_ms=wall_ms, now_ms=now_ms)
        marks.make(now_ms=now_ms, wall_ms=wall_ms, epoch=0)
    assert marks.live == WALL + 59_000 - 2_000
    assert source.newest_ms == WALL + 59_000


def test_a_clock_that_stays_where_it_stepped_to_is_believed_after_a_minute() -> None:
    marks = maker()
    marks.make(now_ms=0.0, wall_ms=WALL, epoch=0)
    for second in range(1, 63):
        marks.make(now_ms=1_000.0 * second, wall_ms=WALL + 3_600_000 + 1_000 * second, epoch=0)
        if second == 59:
            assert marks.live == WALL + 59_000 - 2_000
    assert marks.live == WALL + 3_600_000 + 62_000 - 2_000
