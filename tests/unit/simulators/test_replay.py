from __future__ import annotations

import gzip
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.clock import ManualClock
from headwater.errors import UserError
from simulators import replay
from simulators.options import parse_speed
from simulators.replay import Layout, Player, Recording, parse_cell, parse_time
from tests.support.recordings import airport_weather

LAYOUT = Layout(time_column="at", device_columns=("site",))
TEXT = """site,at,temp,sky
a,2013-01-01T02:00:00Z,1.5,clear
a,2013-01-01T03:00:00Z,NA,
b,2013-01-01T01:00:00Z,-3,rain
b,2013-01-01T02:00:00Z,4,"a, b"
"""


def recording(tmp_path: Path, text: str, layout: Layout = LAYOUT, name: str = "r.csv") -> Recording:
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return Recording(str(path), layout)


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
def test_rows_are_merged_by_time_whatever_the_files_order(tmp_path: Path, name: str) -> None:
    with closing(recording(tmp_path, TEXT, name=name)) as played:
        rows = list(played)
    hour = 3_600_000
    start = 1_356_998_400_000
    assert [(row.ts, row.device) for row in rows] == [
        (start + hour, "b"),
        (start + 2 * hour, "a"),
        (start + 2 * hour, "b"),
        (start + 3 * hour, "a"),
    ]
    assert [msgspec.json.decode(row.payload) for row in rows][:2] == [
        {"ts": start + hour, "temp": -3, "sky": "rain"},
        {"ts": start + 2 * hour, "temp": 1.5, "sky": "clear"},
    ]
    assert msgspec.json.decode(rows[3].payload) == {"ts": start + 3 * hour}, "NA and empty say nothing"


def test_columns_and_devices_can_be_chosen(tmp_path: Path) -> None:
    layout = Layout(time_column="at", device_columns=("site", "sky"), columns=("temp",))
    with closing(recording(tmp_path, TEXT, layout)) as played:
        rows = list(played)
    assert rows[0].device == "b-rain"
    assert msgspec.json.decode(rows[0].payload).keys() == {"ts", "temp"}
    with closing(recording(tmp_path, TEXT, Layout(time_column="at", device="mill"))) as played:
        rows = list(played)
    assert [row.device for row in rows] == ["mill"] * 4
    assert msgspec.json.decode(rows[0].payload)["site"] == "b"


@pytest.mark.parametrize(
    ("text", "form", "ms"),
    [
        ("2013-01-01T06:00:00Z", "iso8601", 1_357_020_000_000),
        ("2013-01-01 06:00:00", "iso8601", 1_357_020_000_000),
        ("2013-01-01T07:00:00.250+01:00", "iso8601", 1_357_020_000_250),
        ("1357020000.5", "s", 1_357_020_000_500),
        ("1357020000500", "ms", 1_357_020_000_500),
        ("01.01.2013 06:00", "%d.%m.%Y %H:%M", 1_357_020_000_000),
    ],
)
def test_times(text: str, form: str, ms: int) -> None:
    assert parse_time(text, form, UTC) == ms


def test_cells() -> None:
    assert [parse_cell(text) for text in ("7", "-1.25", "1e3", "x7", "inf")] == [7, -1.25, 1000.0, "x7", "inf"]


@pytest.mark.parametrize(
    ("text", "layout", "words"),
    [
        (TEXT, Layout(time_column="when", device_columns=("site",)), "no column “when”"),
        (TEXT, Layout(time_column="at", device_columns=("site",), zone="Mars/Base"), "no time zone"),
        (TEXT.replace("2013-01-01T01", "yesterday"), LAYOUT, "r.csv:4: at:"),
    ],
)
def test_mistakes_name_file_line_and_column(tmp_path: Path, text: str, layout: Layout, words: str) -> None:
    with pytest.raises(UserError, match=words):
        recording(tmp_path, text, layout)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file"):
        Recording(str(tmp_path / "nowhere.csv"), LAYOUT)


@pytest.mark.parametrize("text", ["fast", "0", "-1", "inf"])
def test_speeds_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="is no speed"):
        parse_speed(text)


class Eager:
    """A publisher whose gateway acknowledges at once."""

    inflight = queued = resent = 0
    problem = ""
    fd = None
    wants_write = False

    def __init__(self, on_sent: Any, on_acked: Any, clock: ManualClock) -> None:
        self.on_sent, self.on_acked, self.clock = on_sent, on_acked, clock
        self.said: list[tuple[str, float]] = []

    def publish(self, topic: str, payload: bytes, token: Any) -> bool:
        self.said.append((topic, self.clock.monotonic_ms()))
        self.on_sent(token)
        self.on_acked(token)
        return True

    def tick(self, now_ms: float) -> None:
        pass

    def disconnect(self) -> None:
        pass


def test_gaps_stay_at_the_chosen_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(replay, "wait_for", lambda publishers, fds, timeout_ms: clock.advance(max(1.0, timeout_ms)))
    made: list[Eager] = []

    def publisher_of(on_sent: Any, on_acked: Any) -> Eager:
        made.append(Eager(on_sent, on_acked, clock))
        return made[0]

    player = Player(publisher_of, topic="recording/{device}/x", speed=3600.0, clock=clock, ledger=None)
    start_ms = clock.monotonic_ms()
    with closing(recording(tmp_path, TEXT)) as played:
        player.play(played, lambda event, members: None)
    assert [topic for topic, _ in made[0].said] == [f"recording/{device}/x" for device in "baba"]
    assert [round((at - start_ms) / 100) for _, at in made[0].said] == [0, 10, 10, 20]
    assert (player.sent, player.acknowledged) == (4, 4)


class Deaf(Eager):
    """A publisher without a gateway."""

    connects = 0
    queued = 0

    def publish(self, topic: str, payload: bytes, token: Any) -> bool:
        self.queued = 1
        return True

    def tick(self, now_ms: float) -> None:
        self.problem = "cannot connect: Connection refused"


def test_a_gateway_that_is_not_there_is_told_once_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(replay, "wait_for", lambda publishers, fds, timeout_ms: clock.advance(max(1.0, timeout_ms)))
    said: list[Any] = []
    player = Player(
        lambda on_sent, on_acked: Deaf(on_sent, on_acked, clock),
        topic="t",
        speed=None,
        clock=clock,
        ledger=None,
        address=("h", 1883),
    )
    with (
        closing(recording(tmp_path, TEXT)) as played,
        pytest.raises(UserError, match="no MQTT gateway at h:1883") as no,
    ):
        player.play(played, lambda event, members: said.append(members["problem"]))
    assert said == ["cannot connect: Connection refused"]
    assert "--mqtt" in no.value.hint


def test_the_weather_of_three_airports(tmp_path: Path) -> None:
    path = airport_weather(tmp_path)
    weather = Recording(str(path), Layout(time_column="time_hour", device_columns=("origin",)))
    assert weather.count == 26_115
    times = [row.ts for row in weather]
    assert times == sorted(times)
    assert len(times) == 26_115
    first = next(iter(weather))
    values = msgspec.json.decode(first.payload)
    assert (first.device, first.ts, values["temp"]) == ("EWR", 1_357_020_000_000, 39.02)
    assert "wind_gust" not in values
    weather.close()
