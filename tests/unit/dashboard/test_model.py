"""The page's model: what it keeps, what it drops, what a browser is told."""

from __future__ import annotations

import json
from typing import Any

from gateway.log.records import NO_HEADERS, encode_headers
from headwater.dashboard.model import PageModel

T = 1_700_000_000_000


def make(**limits: int) -> PageModel:
    return PageModel(**({"history_s": 900, "devices_max": 100, "series_max": 100} | limits))


def read(model: PageModel, device: str, time_ms: int, now_ms: int = T, **fields: Any) -> None:
    value = json.dumps(fields).encode()
    model.readings_block([device.encode()], [time_ms], [value], [NO_HEADERS], now_ms)


def result(start: int, revision: int = 0, *, mean: float, complete: bool = True) -> bytes:
    body = {
        "rule": "ten", "group": "edge/t1", "start": start, "end": start + 10_000, "revision": revision,
        "complete": complete, "count": 3, "fields": {"power": {"mean": mean, "min": mean, "max": mean}},
    }  # fmt: skip
    return json.dumps(body).encode()


def test_last_reading_of_each_device() -> None:
    model = make()
    read(model, "edge/t1", T, power=1, mode="run")
    read(model, "edge/t1", T + 100, power=2)
    row = model.devices["edge/t1"]
    assert row["fields"] == {"power": 2, "mode": "run"}
    assert (row["time_ms"], row["readings"]) == (T + 100, 2)


def test_how_often_a_device_speaks_is_learnt_from_its_readings_own_times() -> None:
    model, again = make(), make()
    for turn in range(8):
        read(model, "edge/t1", T + turn * 60_000, power=1)
        read(model, "edge/t1", T + turn * 60_000 + 100, power=1)
        read(model, "edge/t1", T + turn * 60_000 - 30_000, power=1)  # late
        read(model, "edge/t2", T + turn * 500, power=1)
    assert model.devices["edge/t1"]["interval_ms"] == 60_000
    assert model.devices["edge/t2"]["interval_ms"] is None
    for turn in range(8):  # read again after a restart, all at once
        read(again, "edge/t1", T + turn * 60_000, now_ms=T + 10**9, power=1)
    assert again.devices["edge/t1"]["interval_ms"] == 60_000
    assert model.since(0)["devices"][0]["interval_ms"] == 60_000


def test_how_often_a_device_should_speak_is_what_topic_devices_says_before_what_was_learnt() -> None:
    model = make()
    read(model, "edge/t1", T, power=1)
    model.devices_block([b"edge/t1", b"edge/t2", b"edge/t3"], [b'{"expected_interval_ms":3600000}', b"no JSON", None])
    assert model.since(1)["devices"][0]["interval_ms"] == 3_600_000  # also of a device that says nothing more
    for turn in range(1, 8):
        read(model, "edge/t1", T + turn * 60_000, power=1)
    assert model.devices["edge/t1"]["interval_ms"] == 3_600_000
    model.devices_block([b"edge/t1"], [b'{"expected_interval_ms":null}'])
    read(model, "edge/t1", T + 8 * 60_000, power=1)
    assert model.devices["edge/t1"]["interval_ms"] == 60_000


def test_chart_holds_one_point_a_second_and_the_last_one_wins() -> None:
    model = make()
    for ms, power in ((0, 1.0), (900, 2.0), (1000, 3.0)):
        read(model, "edge/t1", T + ms, power=power)
    assert model.since(0)["series"]["power"]["edge/t1"]["raw"] == [(T + 900, 2.0), (T + 1000, 3.0)]


def test_only_numbers_are_charted() -> None:
    model = make()
    read(model, "edge/t1", T, power=1, ok=True, mode="run", nothing=None)
    assert set(model.since(0)["series"]) == {"power"}


def test_since_brings_only_what_is_new() -> None:
    model = make()
    read(model, "edge/t1", T, power=1)
    seen = model.since(0)["change"]
    assert model.since(seen)["series"] == {}
    read(model, "edge/t2", T + 2000, power=7)
    update = model.since(seen)
    assert list(update["series"]["power"]) == ["edge/t2"]
    assert [row["device"] for row in update["devices"]] == ["edge/t2"]


def test_devices_are_bounded_and_the_longest_silent_leaves_with_its_charts() -> None:
    model = make(devices_max=2)
    for name in ("a", "b", "a", "c"):
        read(model, f"edge/{name}", T, power=1)
    assert set(model.devices) == {"edge/a", "edge/c"}
    assert {device for device, _ in model.series} == {"edge/a", "edge/c"}


def test_series_are_bounded_and_counted() -> None:
    model = make(series_max=1)
    read(model, "edge/a", T, power=1, wind=2)
    assert len(model.series) == 1
    assert model.since(0)["totals"]["series_left_out"] == 1


def test_health_readings_are_no_devices_but_their_marks_count() -> None:
    model = make()
    mark = {"v": 1, "node": "edge", "n": 5, "live": T, "clock": T + 65, "src": {"mqtt:t1": ["connected", T]}}
    headers = encode_headers([("hw-mark", json.dumps(mark).encode())])
    model.readings_block([b"edge/$gateway"], [T], [b'{"backlog":1}'], [headers], T + 5)
    assert not model.devices
    node = model.nodes["edge"]
    assert (node["mark"], node["live_ms"], node["mark_seen_ms"], node["clock_ahead_ms"]) == (5, T, T + 5, 60)


def test_progress_gives_backlog_and_version() -> None:
    model = make()
    record = {"node": "edge", "version": "1.2", "txn": 9, "parts": {"readings/0": {"done": 90, "end": 100}}}
    model.progress_block([json.dumps(record).encode(), None], T)
    assert model.nodes["edge"]["backlog_records"] == 10
    assert model.nodes["edge"]["version"] == "1.2"


def test_a_revision_replaces_its_window() -> None:
    model = make()
    model.aggregates_block([result(T, mean=1.0, complete=False), result(T + 10_000, mean=5.0)])
    model.aggregates_block([result(T, 1, mean=2.0)])
    windows = model.since(0)["series"]["power"]["edge/t1"]["windows"]
    assert sorted((start, revision, complete, each["mean"]) for start, _, revision, complete, each in windows) == [
        (T, 1, True, 2.0),
        (T + 10_000, 0, True, 5.0),
    ]


def test_alerts_keep_the_newest_transition_and_a_tombstone_removes() -> None:
    model = make()
    firing = {"rule": "hot", "instance": "edge/t1", "state": "firing", "since": T, "value": 90.0}
    model.alerts_block(
        [b"hot/edge/t1"] * 2, [json.dumps(firing).encode(), json.dumps(firing | {"state": "resolved"}).encode()]
    )
    assert [row["state"] for row in model.since(0)["alerts"]] == ["resolved"]
    model.alerts_block([b"hot/edge/t1"], [None])
    assert not model.alerts


def test_a_devices_age_is_its_readings_own_and_never_in_the_future() -> None:
    model = make()
    read(model, "edge/old", T - 60_000, now_ms=T, power=1)
    read(model, "edge/ahead", T + 60_000, now_ms=T, power=1)
    assert [model.devices[name]["seen_ms"] for name in ("edge/old", "edge/ahead")] == [T - 60_000, T]


def test_a_mark_read_from_the_past_is_as_old_as_it_says() -> None:
    model = make()
    headers = encode_headers(
        [("hw-mark", json.dumps({"node": "edge", "n": 1, "live": T, "clock": T - 9_000}).encode())]
    )
    block: Any = ([b"edge/$gateway"], [T], [b"{}"], [headers], T)
    model.readings_block(*block, live=False)
    assert model.nodes["edge"]["mark_seen_ms"] == T - 9_000
    model.readings_block(*block, live=True)
    assert model.nodes["edge"]["mark_seen_ms"] == T


def test_records_that_are_no_readings_are_left_out_and_their_neighbours_are_not() -> None:
    model = make()
    values: list[bytes | None] = [b'{"power":1}', b"not json", b"[1]", None, b'{"v":1' + b"0" * 400 + b"}"]
    keys: list[bytes | None] = [b"edge/%d" % index for index in range(5)]
    bad_mark = encode_headers([("hw-mark", b'{"node":"edge","n":1e400,"live":"x"}')])
    model.readings_block(keys, [T] * 5, values, [bad_mark] + [NO_HEADERS] * 4, T)
    assert model.devices["edge/0"]["fields"] == {"power": 1}
    assert model.devices["edge/1"]["fields"] == {}
    assert set(model.series) == {("edge/0", "power")}
    assert not model.nodes
