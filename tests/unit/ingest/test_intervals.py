"""How often a source speaks: learnt, kept over a restart, and what follows from it."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from devices.profile_text import parse_profile
from gateway.ingest.interval_file import IntervalFile
from gateway.ingest.intervals import BURST_MS, PERIODS_KEPT, PERIODS_MIN, Interval
from gateway.ingest.marks import MarkMaker, MarkSettings, MarkSource
from headwater.disk import ForgetfulDisk
from tests.support.ingest import Edge

NEVER = float("-inf")


def learn(times_ms: list[float]) -> Interval:
    interval, last_ms = Interval(), NEVER
    for time_ms in times_ms:
        if time_ms - last_ms > BURST_MS:
            interval.spoke(time_ms, last_ms)
        last_ms = time_ms
        interval.forget_if_streaming(last_ms)
    return interval


def test_an_interval_is_learnt_from_the_sixth_time_on() -> None:
    assert learn([60_000.0 * turn for turn in range(PERIODS_MIN)]).learnt_ms is None
    assert learn([60_000.0 * turn for turn in range(PERIODS_MIN + 1)]).learnt_ms == 60_000


def test_a_burst_is_one_time() -> None:
    times = [30_000.0 * turn + 200 * part for turn in range(8) for part in range(4)]
    assert learn(times).learnt_ms == 30_000


def test_what_streams_has_none_whatever_its_outages() -> None:
    times = [start + 100.0 * turn for start in range(0, 2_000_000, 200_000) for turn in range(1_500)]
    assert learn(times).learnt_ms is None


def test_one_that_begins_to_stream_is_forgotten() -> None:
    slow = [10_000.0 * turn for turn in range(10)]
    assert learn(slow).learnt_ms == 10_000
    assert learn(slow + [90_000 + 100.0 * turn for turn in range(400)]).learnt_ms is None


@given(st.integers(2_000, 3_600_000), st.integers(0, 2**32), st.lists(st.integers(20, 34), max_size=3, unique=True))
def test_outages_and_jitter_move_nothing(every_ms: int, seed: int, outages: list[int]) -> None:
    random, now_ms, times = Random(seed), 0.0, []
    for turn in range(40):
        now_ms += every_ms * (random.uniform(10, 1_000) if turn in outages else random.uniform(0.95, 1.05))
        times.append(now_ms)
    learnt_ms = learn(times).learnt_ms
    assert learnt_ms is not None
    assert 0.94 * every_ms <= learnt_ms <= 1.06 * every_ms
    assert len(learn(times)._periods) <= PERIODS_KEPT


def maker() -> tuple[MarkMaker, MarkSource]:
    marks = MarkMaker(MarkSettings(), node="edge", started_ms=0.0)
    source = marks.source("mqtt:slow")
    marks.connected(source)
    return marks, source


def test_a_slow_source_holds_t_until_three_intervals_are_over() -> None:
    marks, slow = maker()
    fast = marks.source("mqtt:fast")
    marks.connected(fast)
    for now_ms in range(0, 130_000, 500):
        if now_ms % 15_000 == 0:
            marks.saw(slow, now_ms, arrival_ms=now_ms, now_ms=now_ms)
        marks.saw(fast, now_ms, arrival_ms=now_ms, now_ms=now_ms)
    assert slow.learnt_ms == 15_000
    assert fast.learnt_ms is None
    for now_ms in range(130_000, 200_000, 500):
        marks.saw(fast, now_ms, arrival_ms=now_ms, now_ms=now_ms)
        marks.make(now_ms=now_ms, wall_ms=now_ms, epoch=0)
        held = now_ms - 120_000 <= 45_000  # it spoke last at 120 s
        assert marks.live == (118_000 if held else now_ms - 2_000), now_ms


def test_what_was_learnt_is_bounded_and_gives_way_to_a_profile() -> None:
    marks, source = maker()
    source.remember(600_000)
    assert marks._idle_ms(source) == 60_000
    source.remember(1_500)
    assert marks._idle_ms(source) == 10_000
    source.seen_ms, source.idle_ms = 0.0, 5_000
    assert marks._idle(source, 5_001.0)


def test_it_is_kept_over_a_restart_and_a_damaged_file_costs_nothing_else() -> None:
    disk = ForgetfulDisk()
    disk.make_directory("/data")
    disk.make_directory("/data/node")
    marks, source = maker()
    file = IntervalFile(disk, "/data", marks)
    for now_ms in range(0, 90_000, 15_000):
        marks.saw(source, now_ms, arrival_ms=now_ms, now_ms=now_ms)
    file.close()
    disk.power_cut()
    again, source = maker()
    IntervalFile(disk, "/data", again)
    assert again.intervals() == {"mqtt:slow": 15_000}
    for damage in (b"", b"{", b'{"v":1,"sources":{"mqtt:slow":"x"}}', b"\xff"):
        disk.replace_file("/data/node/intervals", damage)
        third, _ = maker()
        IntervalFile(disk, "/data", third)
        assert third.intervals() == {}


def test_a_source_of_several_profiles_is_waited_for_as_the_most_patient_says() -> None:
    texts = [f'name = "p{ms}"\ntopics = ["{ms}"]\nexpected_interval_ms = {ms}' for ms in (1_000, 60_000)]
    edge = Edge(profiles=[parse_profile(text, "p.toml") for text in texts])
    client = edge.attach("both")
    for topic in ("1000", "60000", "1000", "no profile"):
        edge.take(client, (topic, b'{"x":1}', 0, 0))
        edge.sync()
    assert client.interval_ms == 60_000


def test_status_says_how_often_it_speaks_and_that_it_is_silent() -> None:
    edge = Edge(
        profiles=[parse_profile('name = "hourly"\ntopics = ["h"]\nexpected_interval_ms = 20000', "hourly.toml")]
    )
    learnt, told, new = edge.attach("learnt"), edge.attach("told"), edge.attach("new")
    edge.take(told, ("h", b'{"x":1}', 0, 0))
    edge.take(new, ("n", b'{"x":1}', 0, 0))
    for _ in range(8):
        edge.take(learnt, ("l", b'{"x":1}', 0, 0))
        edge.sync()
        edge.clock.advance(15_000)
    rows = {row["id"]: row for row in edge.ingest.status()["sources"]}
    assert [rows[f"mqtt:{name}"]["interval_ms"] for name in ("learnt", "told", "new")] == [15_000, 20_000, None]
    assert [rows[f"mqtt:{name}"]["note"] for name in ("learnt", "told", "new")] == [
        None,
        "silent for 120 s, where it speaks every 20 s",
        None,
    ]


def test_who_said_good_bye_is_not_missed_unless_it_comes_back_each_time() -> None:
    profile = parse_profile('name = "often"\ntopics = ["h"]\nexpected_interval_ms = 20000', "often.toml")
    edge = Edge(profiles=[profile])
    for name, sessions, clean in (
        ("stopped", 1, True),
        ("restarted", 2, True),
        ("sleeper", 4, True),
        ("cut", 1, False),
    ):
        for _ in range(sessions):
            client = edge.attach(name)
            edge.take(client, ("h", b'{"x":1}', 0, 0))
            edge.sync()
            edge.ingest.detach(client, clean=clean)
    edge.clock.advance(120_000)
    notes = {row["id"].removeprefix("mqtt:"): row["note"] for row in edge.ingest.status()["sources"]}
    silent = "silent for 120 s, where it speaks every 20 s"
    assert notes == {"stopped": None, "restarted": None, "sleeper": silent, "cut": silent}
