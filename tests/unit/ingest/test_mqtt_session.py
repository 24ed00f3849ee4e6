"""The server session: whole, byte by byte, with trailing bytes; against an imaginary client; against hostile bytes."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.messages import Message, Messages
from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Connect, Header, PacketType, Publish
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.session import ServerSession, acknowledge
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import HELD, State, TopicCache

SETTINGS = MqttSettings(packet_bytes_max=10_000, connect_bytes_max=200)
CONNECT = packets.encode_connect(Connect(4, "dev", clean=False, keep_alive_s=10))


def publish(payload: bytes, *, qos: int = 1, packet_id: int = 1, dup: bool = False, topic: str = "a/b") -> bytes:
    return packets.encode_publish(Publish(topic, payload, qos, packet_id, dup, retain=False))


def session() -> ServerSession:
    return ServerSession(SETTINGS, TopicCache())


def connected(*, held: set[int] | None = None) -> ServerSession:
    machine = session()
    machine.feed(CONNECT)
    machine.accept("dev", present=False, held=held if held is not None else set())
    machine.out.clear()
    return machine


def run(machine: ServerSession, chunks: list[bytes]) -> tuple[list[Message], bytes]:
    """Feed everything, letting the client in when it asks."""
    for chunk in chunks:
        machine.feed(chunk)
        if machine.state is State.DECIDING:
            machine.accept(machine.client_id, present=True, held=set())
            machine.feed(b"")
    return list(machine.messages), b"".join(machine.out)


STREAM = (
    CONNECT
    + publish(b"1", packet_id=7)
    + publish(b"x" * 300, packet_id=8, topic="long/" + "t" * 200)
    + publish(b"", qos=0, packet_id=0)
    + publish(b"2", packet_id=9, dup=True)
    + packets.encode_packet(PacketType.SUBSCRIBE, 2, b"\0\5\0\1#\0\0\3a/b\1")
    + publish(b"3", qos=2, packet_id=10)
    + b"\xc0\x00"
    + packets.encode_packet(PacketType.UNSUBSCRIBE, 2, b"\0\6\0\1#")
    + b"\x62\x02\x00\x0a"
    + publish(b"4", packet_id=11)
)
MESSAGES = [
    ("a/b", b"1", 7, 2),
    ("long/" + "t" * 200, b"x" * 300, 8, 2),
    ("a/b", b"", 0, 0),
    ("a/b", b"2", 9, 10),
    ("a/b", b"3", 10, 4),
    ("a/b", b"4", 11, 2),
]
ANSWERS = bytes.fromhex("20020100" + "900400058080" + "d000" + "b0020006" + "7002000a")


def test_whole_byte_by_byte_and_in_every_two_halves() -> None:
    assert run(session(), [STREAM]) == (MESSAGES, ANSWERS)
    assert run(session(), [bytes((byte,)) for byte in STREAM]) == (MESSAGES, ANSWERS)
    for cut in range(1, len(STREAM)):
        assert run(session(), [STREAM[:cut], STREAM[cut:]]) == (MESSAGES, ANSWERS), cut


def test_a_topic_that_is_known_is_parsed_as_one_that_is_not() -> None:
    topics = TopicCache()
    for _ in range(2):
        machine = ServerSession(SETTINGS, topics)
        assert run(machine, [STREAM]) == (MESSAGES, ANSWERS)
    assert "a/b" in topics.names.values()


def test_after_disconnect_nothing_counts() -> None:
    machine = connected()
    machine.feed(publish(b"1") + b"\xe0\x00" + publish(b"2"))
    machine.feed(publish(b"3"))
    assert [message[1] for message in machine.messages] == [b"1"]
    assert machine.clean_end
    assert machine.state is State.CLOSED


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (packets.encode_connect(Connect(6, "dev")), "2003008400"),
        (packets.encode_packet(PacketType.CONNECT, 0, b"\0\6MQIsdp\3\2\0\0\0\1x"), "20020001"),
        (packets.encode_connect(Connect(4, "", clean=False)), "20020002"),
    ],
)
def test_connects_that_are_answered_with_a_refusal(connect: bytes, answer: str) -> None:
    machine = session()
    machine.feed(connect)
    assert b"".join(machine.out).hex() == answer
    assert machine.state is State.CLOSED
    assert not machine.clean_end


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (CONNECT, "a second CONNECT"),
        (b"\x20\x02\x00\x00", "only a server"),
        (b"\xd0\x00", "only a server"),
        (b"\x40\x02\x00\x01", "nothing that was sent"),
        (b"\xc0\x01x", "bytes in a packet that has none"),
        (b"\xe0\x01x", "bytes in a packet that has none"),
        (b"\x32\x05\x00\x01a\x00\x00", "identifier 0"),
        (b"\x32\x07\x00\x03a/b\x00\x00", "identifier 0"),
        (b"\x32\x06\x00\x03a/b\x00" + b"\xc0\x00", "without its packet identifier"),
        (publish(b"x" * 10_000), "is the most here"),
        (b"\x30\xff\xff\xff\x7f", "is the most here"),
        (b"\x62\x03\x00\x01x", "after its packet identifier"),
    ],
)
def test_what_closes_a_connection(data: bytes, said: str) -> None:
    machine = connected()
    machine.feed(publish(b"0"))  # the topic a/b is known: the hot path must be as strict
    with pytest.raises(MqttError, match=said):
        machine.feed(data)


def test_nothing_before_connect_and_no_large_connect() -> None:
    with pytest.raises(MqttError, match="PUBLISH before CONNECT"):
        session().feed(publish(b"1"))
    with pytest.raises(MqttError, match="before CONNECT"):
        session().feed(b"\x30\x64partial")
    with pytest.raises(MqttError, match="200 is the most"):
        session().feed(b"\x10\xc9\x01")


def test_keep_alive_is_one_and_a_half_times() -> None:
    machine = session()
    assert machine.keep_alive_ms is None
    machine.feed(CONNECT)
    assert machine.keep_alive_ms == 15_000


def test_qos_2_is_taken_once_until_its_pubrel() -> None:
    held: set[int] = set()
    machine = connected(held=held)
    machine.feed(publish(b"1", qos=2, packet_id=5) + publish(b"1", qos=2, packet_id=5, dup=True))
    assert [message[3] & HELD for message in machine.messages] == [0, HELD]
    assert acknowledge(machine.messages)[0] == b"\x50\x02\x00\x05" * 2
    later = connected(held=held)  # the session outlives the connection
    later.feed(publish(b"1", qos=2, packet_id=5, dup=True) + b"\x62\x02\x00\x05" + publish(b"2", qos=2, packet_id=5))
    assert [message[3] & HELD for message in later.messages] == [HELD, 0]


def test_acknowledgements_are_one_piece_in_order() -> None:
    messages = [("t", b"", 258, 2), ("t", b"", 0, 0), ("t", b"", 3, 10)]
    assert acknowledge(Messages(messages)) == (b"\x40\x02\x01\x02\x40\x02\x00\x03", b"\1\2\0\3")
    assert acknowledge(Messages([("t", b"", 0, 0)])) == (b"", b"")


class ImaginaryClient:
    """The client's side in a few lines: sends in a window, resends with DUP on a new connection."""

    def __init__(self, count: int, window: int) -> None:
        self.todo = [(packet_id, b"%d" % packet_id) for packet_id in range(1, count + 1)]
        self.window = window
        self.sent: dict[int, bytes] = {}

    def start(self) -> bytes:
        resent = [publish(payload, packet_id=packet_id, dup=True) for packet_id, payload in self.sent.items()]
        return CONNECT + b"".join(resent) + self.more()

    def more(self) -> bytes:
        out = b""
        while self.todo and len(self.sent) < self.window:
            packet_id, payload = self.todo.pop(0)
            self.sent[packet_id] = payload
            out += publish(payload, packet_id=packet_id)
        return out

    def receive(self, data: bytes) -> bytes:
        while data:
            if data[0] == 0x40:
                self.sent.pop(data[2] << 8 | data[3], None)
            data = data[2 + data[1] :]
        return self.more()


@given(st.integers(0, 10_000))
def test_two_machines_on_a_wire_that_breaks_and_splits(seed: int) -> None:
    dice = random.Random(seed)
    client = ImaginaryClient(30, window=dice.randint(1, 8))
    stored: set[bytes] = set()
    while client.todo or client.sent:
        server = session()
        upward, downward = client.start(), b""
        while upward or downward:
            if dice.random() < 0.05:
                break  # the link is cut; what is on it is lost
            size = dice.randint(0, len(upward))
            messages, answers = run(server, [upward[:size]])
            upward = upward[size:]
            stored |= {payload for _, payload, _, _ in messages}
            downward += answers + acknowledge(Messages(messages))[0]
            server.messages, server.out = Messages(), []
            size = dice.randint(0, len(downward)) // 4 * 4  # the imaginary client reads whole packets
            upward += client.receive(downward[:size])
            downward = downward[size:]
    assert stored == {b"%d" % packet_id for packet_id in range(1, 31)}


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_hostile_bytes_raise_nothing_but_our_own_error(chunks: list[bytes], first_connect: bool) -> None:
    machine = connected() if first_connect else session()
    try:
        run(machine, chunks)
    except MqttError:
        machine.close()
        machine.feed(b"anything")


@given(st.data())
def test_a_mutated_stream_raises_nothing_but_our_own_error(data: st.DataObject) -> None:
    stream = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stream)))
    with contextlib.suppress(MqttError):
        run(session(), [bytes(stream[:cut]), bytes(stream[cut:])])


def test_a_large_packet_in_small_pieces_is_not_parsed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    read_header = packets.read_header

    def counting(data: bytes, position: int, size_max: int, *, level: int, limit: str) -> Header | None:
        parsed.append(position)
        return read_header(data, position, size_max, level=level, limit=limit)

    monkeypatch.setattr(packets, "read_header", counting)
    machine = ServerSession(MqttSettings(packet_bytes_max=2_000_000), TopicCache())
    run(machine, [CONNECT])
    packet = publish(b"x" * 1_500_000)
    for start in range(0, len(packet), 1_000):
        machine.feed(packet[start : start + 1_000])
    assert [len(message[1]) for message in machine.messages] == [1_500_000]
    assert len(parsed) < 10


def test_refusals_have_their_own_code() -> None:
    machine = session()
    machine.feed(CONNECT)
    machine.refuse(ReasonCode.SERVER_UNAVAILABLE)
    assert b"".join(machine.out) == b"\x20\x02\x00\x03"
