"""Starting on a log that anybody may have written to: odd headers cost nothing but themselves."""

from __future__ import annotations

import msgspec
import pytest

from devices.profile_files import read_profiles
from gateway.log.records import Record, encode_batch, encode_headers
from tests.support.ingest import Edge

[TURBINE] = read_profiles(["wind-turbine"])
BESIDE = {"v": 1, "node": "edge", "n": 7, "live": 1_000, "src": {"mqtt:a": ["gone", 5]}, "clock": 1}


def with_mark(**changes: object) -> bytes:
    return encode_headers([("hw-mark", msgspec.json.encode(BESIDE | changes)), ("hw-m", b"1:00000000:a")])


def raw_mark(text: bytes) -> bytes:
    return encode_headers([("hw-mark", text)])


def restarted(*sections: bytes, value: bytes = b'{"v":1}') -> Edge:
    """An edge whose `readings` another client filled before it starts again."""
    edge = Edge([TURBINE])
    now_ms = edge.clock.wall_ms()
    records: list[Record] = [(now_ms, b"edge/x", value, section) for section in sections]
    edge.ingest.readings.append(encode_batch(records), now_ms=now_ms)
    edge.store.flush_now()
    edge.store.close()
    edge.start()
    return edge


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(encode_headers([("hw-t", b"--5")]), id="a time with two signs"),
        pytest.param(encode_headers([("hw-t", b"9" * 5_000)]), id="a time of 5,000 digits"),
        pytest.param(with_mark(src=[]), id="sources as a list"),
        pytest.param(with_mark(src={"mqtt:a": 5}), id="a source that is a number"),
        pytest.param(with_mark(src={"mqtt:a": ["gone", "x"]}), id="a source's time as text"),
        pytest.param(with_mark(n="x"), id="a count as text"),
        pytest.param(with_mark(clock="z"), id="a clock as text"),
        pytest.param(with_mark(live=1 << 63), id="a time beyond int64"),
        pytest.param(raw_mark(b'{"n":' + b"9" * 5_000), id="a count of 5,000 digits"),
        pytest.param(raw_mark(b"[" * 5_000), id="deep JSON"),
        pytest.param(raw_mark(b"\xff"), id="no UTF-8"),
        pytest.param(b"\x02\x08hw-m", id="a section cut short"),
    ],
)
def test_one_odd_record_neither_stops_the_start_nor_holds_an_acknowledgement(section: bytes) -> None:
    edge = restarted(section, with_mark(n=41))
    assert edge.ingest.marks.n == 41  # its neighbour is read all the same
    edge.clock.advance(5_000)
    edge.take(edge.attach("a"), ("pump", b"1", 1, 2))
    edge.sync()
    assert edge.acks == [("mqtt:a", [1])]


@pytest.mark.parametrize("value", [b"no JSON", b"[" * 5_000, b'{"seq":' + b"9" * 5_000 + b"}"])
def test_a_reading_that_is_no_json_has_no_natural_key(value: bytes) -> None:
    assert restarted(b"\x00", value=value).ingest.marks.n == 0


def test_only_this_nodes_own_marks_are_taken_up() -> None:
    copied = encode_headers([("hw-mark", msgspec.json.encode(BESIDE)), ("hw", b"edge/0/0/4")])
    edge = restarted(with_mark(node="mast"), with_mark(partition=1), copied)
    assert (edge.ingest.marks.n, edge.ingest.marks.live) == (0, 0)


def test_a_group_that_a_defect_stops_is_given_back_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Edge()
    source = edge.attach("a")
    edge.clock.advance(5_000)

    def broken(**_: object) -> bytes:
        raise TypeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(edge.ingest.marks, "make", broken)
        edge.take(source, ("pump", b"1", 1, 2))
        edge.sync()
    assert (edge.lost, edge.ingest.status()["waiting_bytes"]) == ([("mqtt:a", [1])], 0)
    edge.take(source, ("pump", b"2", 1, 2))
    edge.sync()
    assert [reading.value for reading in edge.readings()] == [{"value": 2.0}]
    assert edge.acks == [("mqtt:a", [1])]
