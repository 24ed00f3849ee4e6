"""Packets of one layout are cut all at once: what comes out is what one by one gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.messages import Message, Messages
from gateway.ingest.mqtt import runs
from gateway.ingest.mqtt.packets import Connect, encode_connect, encode_length, encode_text
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.session import ServerSession
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import Exchange, TopicCache, retained

KNOWN, UNKNOWN = ["a", "farm/turbine-01/telemetry"], "new"
SETTINGS = MqttSettings(packet_bytes_max=200)


def packet(first: int, topic: str, packet_id: int, payload: bytes, level: int) -> bytes:
    numbered = packet_id.to_bytes(2, "big") if first & 6 else b""
    body = encode_text(topic) + numbered + b"\0" * (level == 5) + payload
    return bytes((first,)) + encode_length(len(body)) + body


# many alike, now and then one that differs in one thing
PACKETS = st.lists(
    st.one_of(
        st.builds(lambda number, digit: (0x32, KNOWN[1], number, b"%d" % digit), st.integers(1, 9), st.integers(0, 9)),
        st.tuples(
            st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x34, 0x3A, 0xC0]),
            st.sampled_from([*KNOWN, UNKNOWN]),
            st.integers(0, 300),
            st.sampled_from([b"", b"1", b"2", b"x" * 150, b"y" * 300, b"\x32\x1e\x00\x19farm/turbine-01/telemetry"]),
        ),
    ),
    max_size=24,
)


def exchange() -> Exchange:
    topics = TopicCache()
    for name in KNOWN:
        topics.add(name.encode(), name)
    return Exchange(SETTINGS, topics)


def read(data: bytes, level: int, room: int, x: Exchange | None = None) -> tuple[int, int, list[Message], int]:
    x = x or exchange()
    x.messages = Messages()
    properties = int(level == 5)
    if (alike := runs.read_alike(x, data, room, properties)) is not None:
        return len(data), len(alike) if alike.numbered else 0, list(alike), retained(alike)
    position, numbered = runs.read_run(x, data, 0, len(data), room, properties)
    return position, numbered, list(x.messages), retained(x.messages)


@given(PACKETS, st.sampled_from([4, 5]), st.integers(0, 40), st.integers(0, 40))
def test_all_at_once_is_what_one_by_one_is(
    packets: list[tuple[int, str, int, bytes]], level: int, room: int, missing: int
) -> None:
    data = b"".join(packet(*each, level) for each in packets)
    data = data[: len(data) - missing]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "EQUAL_MIN", 1 << 40)
        one_by_one = read(data, level, room)
    assert read(data, level, room) == one_by_one


@given(st.lists(PACKETS, max_size=6), st.sampled_from([4, 5]), st.integers(0, 40))
def test_what_came_before_changes_nothing(
    events: list[list[tuple[int, str, int, bytes]]], level: int, room: int
) -> None:
    connection = exchange()
    for packets in events:
        data = b"".join(packet(*each, level) for each in packets)
        assert read(data, level, room, connection) == read(data, level, room)


@pytest.mark.parametrize("level", [4, 5])
def test_packets_like_the_ones_before_are_cut_as_those_were(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = exchange()
    read(packet(0x32, KNOWN[1], 300, b"7.1", level) * 4, level, 20, connection)
    monkeypatch.setattr(runs, "PLAIN", frozenset[int]())  # the way by the book is closed
    for count in (4, 20, 30):
        data = b"".join(packet(0x32, KNOWN[1], 301 + number, b"7.%d" % (number % 10), level) for number in range(count))
        taken = read(data, level, 20, connection)
        assert taken[:2] == ((len(data), count) if count <= 20 else (0, 0))
    assert read(packet(0x32, KNOWN[1], 0, b"7.1", level) * 4, level, 20, connection)[0] == 0


@pytest.mark.parametrize("level", [4, 5])
def test_packets_of_one_layout_are_taken_together(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    together = runs._equal_packets

    def noting(*given: int, **named: int) -> object:
        taken.append(given[4])
        return together(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "_equal_packets", noting)
    data = b"".join(packet(0x32, KNOWN[1], 300 + number, b"7.%d" % number, level) for number in range(10))
    position, numbered, messages, _ = read(data + b"\x32", level, 20)
    assert (position, numbered, taken) == (len(data), 10, [10])
    assert messages == [(KNOWN[1], b"7.%d" % number, 300 + number, 2) for number in range(10)]
    assert read(data, level, 9)[1] == 9  # as far as the window goes


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("odd", range(10))
@pytest.mark.parametrize("what", ["identifier 0", "retained", "another topic", "longer", "properties", "QoS 0"])
def test_one_packet_that_is_not_like_its_neighbours(what: str, odd: int, level: int) -> None:
    packets = [packet(0x32, "a", number + 1, b"7.%d" % number, level) for number in range(10)]
    learnt = exchange()
    assert read(b"".join(packets), level, 20, learnt)[1] == 10
    packets[odd] = {
        "identifier 0": packet(0x32, "a", 0, b"7.1", level),
        "retained": packet(0x33, "a", 99, b"7.1", level),
        "another topic": packet(0x32, "b", 99, b"7.1", level),
        "longer": packet(0x32, "a", 99, b"7.10", level),
        "properties": packet(0x32, "a", 99, b"\2" * (level == 5) + b"7.1", 4),
        "QoS 0": packet(0x30, "a", 0, b"  7.1", level),
    }[what]
    data = b"".join(packets)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "EQUAL_MIN", 1 << 40)
        one_by_one = read(data, level, 20)
    assert read(data, level, 20) == one_by_one
    assert read(data, level, 20, learnt) == one_by_one
    taken = 10 if what in ("retained", "longer", "QoS 0") or (what, level) == ("properties", 4) else odd
    assert len(one_by_one[2]) == taken


def test_a_flag_of_one_packet_is_not_that_of_its_neighbours() -> None:
    data = b"".join(packet(0x32 | (number == 7), KNOWN[0], number + 1, b"1", 4) for number in range(10))
    _, _, messages, count = read(data, 4, 20)
    assert [flags for *_, flags in messages] == [2] * 7 + [3] + [2] * 2
    assert count == 1


@pytest.mark.parametrize("level", [4, 5])
def test_a_packet_type_of_zero_is_no_publish(level: int) -> None:
    assert read(b"\0\4\0\1a7" * 5, level, 20) == (0, 0, [], 0)
    session = ServerSession(SETTINGS, TopicCache())
    session.feed(encode_connect(Connect(4, "c")))
    session.accept("c", present=False, held=set())
    with pytest.raises(MqttError, match="packet type 0 is reserved"):
        session.feed(b"\0\4\0\1a7")
    assert not session.messages


def test_bytes_that_only_look_alike_cost_no_more_than_twice_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain packets with pings between them, and the last one where it would stand if all were of one layout."""
    looked_at: list[int] = []
    together = runs._equal_packets

    def noting(data: bytes, position: int, size: int, head: int, count: int, *rest: int) -> object:
        looked_at.append(count * size)
        return together(data, position, size, head, count, *rest)

    monkeypatch.setattr(runs, "_equal_packets", noting)
    plain = packet(0x32, "a", 1, b"x" * 3, 4)
    session = ServerSession(SETTINGS, TopicCache())
    session.feed(encode_connect(Connect(4, "c")))
    session.accept("c", present=False, held=set())
    session.feed(plain)
    data = (plain + b"\xc0\0" * (len(plain) // 2)) * 200 + plain
    for _ in range(2):  # of new bytes nothing is known
        looked_at.clear()
        session.feed(data)
        assert looked_at
        assert sum(looked_at) <= 3 * len(data)
    assert len(session.messages) == 1 + 2 * 201
