"""The server's side of one MQTT 3.1.1 connection, sans-IO.

`feed` parses every packet of a readable event in one loop: PUBLISHes become tuples in `messages`, answers that need
nothing from outside become bytes in `out`; the caller empties both. CONNECT is the one packet that needs a decision
(is there a session, may it come in): `connect` is set, parsing stops, and `accept` or `refuse` goes on.

What each packet does in each state is the table `_TABLE`; whatever is not in it closes the connection [MQTT-4.8.0-1].
PUBACK and PUBREC are not made here but by `acknowledge`, when the caller knows that the messages are on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Connect, ConnectCode, Header, MqttError, PacketType
from gateway.ingest.mqtt.settings import MqttSettings

# (topic, payload, packet id or 0, flags); flags are PUBLISH's own low nibble and HELD
Message = tuple[str, bytes, int, int]
DUP, QOS, QOS_2, RETAIN = 8, 6, 4, 1
HELD = 16  # QoS 2: this packet identifier is waiting for its PUBREL, so the message is stored already

_SUBSCRIBE_FAILURE = 0x80
_PLAIN_PUBLISH = frozenset({0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B})  # QoS 0 and 1, every legal flag


class State(Enum):
    """A connection's life."""

    NEW = auto()  # nothing but CONNECT may come [MQTT-3.1.0-1]
    DECIDING = auto()  # CONNECT came; the caller decides
    CONNECTED = auto()
    CLOSED = auto()


class TopicCache:
    """Topic names that were checked, by their bytes; shared by all connections, bounded."""

    def __init__(self, *, entries_max: int = 16_384, bytes_max: int = 256) -> None:
        self.names: dict[bytes, str] = {}
        self._entries_max = entries_max
        self._bytes_max = bytes_max

    def add(self, raw: bytes, name: str) -> None:
        if len(raw) <= self._bytes_max:
            if len(self.names) >= self._entries_max:
                self.names.clear()
            self.names[raw] = name


class ServerSession:
    """One connection. Raises `MqttError`, and nothing else, on bytes that break the protocol."""

    def __init__(self, settings: MqttSettings, topics: TopicCache) -> None:
        self.state = State.NEW
        self.connect: Connect | None = None
        self.client_id = ""
        self.messages: list[Message] = []
        self.out: list[bytes] = []
        self.subscriptions_refused = 0
        self.clean_end = False  # DISCONNECT came
        self.held: set[int] = set()  # QoS 2 packet identifiers between PUBLISH and PUBREL; the session's, not ours
        self._settings = settings
        self._topics = topics
        self._rest = bytearray()
        self._need = 0

    @property
    def keep_alive_ms(self) -> float | None:
        """Silence after which the client is taken for dead: 1.5 × its keep-alive [MQTT-3.1.2-24]; None: never."""
        seconds = self.connect.keep_alive_s if self.connect is not None else 0
        return seconds * 1_500.0 if seconds else None

    def feed(self, data: bytes) -> None:
        """Take in what the network gave."""
        if self.state is State.CLOSED:
            return  # bytes after DISCONNECT are discarded
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need or self.state is State.DECIDING:
                self._check_backlog()
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self.state is State.DECIDING:
            self._rest += data
            self._check_backlog()
            return
        position = self._parse(data)
        if position < len(data) and not self._closed():
            self._rest += data[position:] if position else data

    def _closed(self) -> bool:
        return self.state is State.CLOSED

    def _check_backlog(self) -> None:
        # a reader that is paused while we decide may still be handed what was in flight: one read, at most
        if len(self._rest) > self._settings.packet_bytes_max + (1 << 20):
            raise MqttError("too many bytes before CONNACK")

    def _parse(self, data: bytes) -> int:
        """Every whole packet of `data`; returns where the first incomplete one begins."""
        position, end = 0, len(data)
        while position < end:
            if self.state is State.CONNECTED:
                position = self._publishes(data, position, end)
            size_max = self._settings.packet_bytes_max
            if self.state is State.NEW:
                size_max = min(size_max, self._settings.connect_bytes_max)
            header = packets.read_header(data, position, size_max)
            if header is None:
                self._need = end - position + 1
                return position
            if position + header.size > end:
                self._need = header.size
                if self.state is State.NEW and header.kind is not PacketType.CONNECT:
                    raise MqttError(f"{header.kind.name} before CONNECT [MQTT-3.1.0-1]")
                return position
            self._packet(data, header, position + header.size)
            position += header.size
            if self.state is not State.CONNECTED:
                break
        return position

    def _publishes(self, data: bytes, position: int, end: int) -> int:
        """The run of plain PUBLISH packets at `position`: the hot path, with no call per packet.

        Stops before anything unusual (QoS 2, a new topic, an error), which the table then treats by the book.
        """
        names = self._topics.names
        messages = self.messages
        size_max = self._settings.packet_bytes_max
        while position + 4 <= end:
            first = data[position]
            if first not in _PLAIN_PUBLISH:
                break
            length = data[position + 1]
            body = position + 2
            if length >= 0x80:
                high = data[position + 2]
                if high >= 0x80:
                    break
                length = length & 0x7F | high << 7
                body = position + 3
            stop = body + length
            if stop > end or length < 4 or stop - position > size_max:
                break
            topic_end = body + 2 + (data[body] << 8 | data[body + 1])
            name = names.get(data[body + 2 : topic_end])
            if name is None or topic_end + 2 > stop:
                break
            if first & QOS:
                packet_id = data[topic_end] << 8 | data[topic_end + 1]
                if not packet_id:
                    break
                messages.append((name, data[topic_end + 2 : stop], packet_id, first & 15))
            else:
                messages.append((name, data[topic_end:stop], 0, first & 15))
            position = stop
        return position

    def _packet(self, data: bytes, header: Header, end: int) -> None:
        handler = _TABLE.get((self.state, header.kind))
        if handler is None:
            raise MqttError(_unexpected(self.state, header.kind))
        handler(self, data, header, header.body, end)

    # --- one method per packet: (data, header, where the body begins, where it ends)

    def _on_connect(self, data: bytes, header: Header, position: int, end: int) -> None:
        connect = packets.read_connect(data, position, end)
        self.connect = connect
        if connect.level != 4:
            # MQTT 5's own CONNACK would say more, but a 5 client reads this one as "unsupported version" too
            self.refuse(ConnectCode.UNACCEPTABLE_VERSION)
        elif not connect.client_id and not connect.clean:
            self.refuse(ConnectCode.IDENTIFIER_REJECTED)  # [MQTT-3.1.3-8]
        else:
            self.client_id = connect.client_id
            self.state = State.DECIDING

    def accept(self, client_id: str, *, present: bool, held: set[int]) -> None:
        """Let the client in; `held` belongs to its session. Then call `feed(b"")` for what waited."""
        self.client_id = client_id
        self.held = held
        self.out.append(packets.encode_connack(ConnectCode.ACCEPTED, session_present=present))
        self.state = State.CONNECTED
        self._need = 0

    def refuse(self, code: ConnectCode) -> None:
        """CONNACK with a refusal; the caller closes [MQTT-3.2.2-5]."""
        self.out.append(packets.encode_connack(code))
        self.state = State.CLOSED

    def _on_publish(self, data: bytes, header: Header, position: int, end: int) -> None:
        publish = packets.read_publish(data, header.flags, position, end)
        self._topics.add(publish.topic.encode(), publish.topic)
        flags = header.flags
        if publish.qos == 2:
            if publish.packet_id in self.held:
                flags |= HELD
            elif len(self.held) >= self._settings.inflight_max:
                raise MqttError(f"more than {self._settings.inflight_max} QoS 2 messages without PUBREL")
            else:
                self.held.add(publish.packet_id)
        self.messages.append((publish.topic, publish.payload, publish.packet_id, flags))

    def _on_pubrel(self, data: bytes, header: Header, position: int, end: int) -> None:
        packet_id = packets.read_acknowledgement(data, position, end)
        self.held.discard(packet_id)  # unknown after a crash: PUBCOMP all the same [MQTT-4.3.3-2]
        self.out.append(packets.encode_acknowledgement(PacketType.PUBCOMP, packet_id))

    def _on_subscribe(self, data: bytes, header: Header, position: int, end: int) -> None:
        packet_id, filters = packets.read_filters(data, position, end, with_qos=True)
        self.subscriptions_refused += len(filters)
        self.out.append(packets.encode_suback(packet_id, [_SUBSCRIBE_FAILURE] * len(filters)))

    def _on_unsubscribe(self, data: bytes, header: Header, position: int, end: int) -> None:
        packet_id, _ = packets.read_filters(data, position, end, with_qos=False)
        self.out.append(packets.encode_acknowledgement(PacketType.UNSUBACK, packet_id))  # [MQTT-3.10.4-5]

    def _on_ping(self, data: bytes, header: Header, position: int, end: int) -> None:
        _no_body(position, end)
        self.out.append(b"\xd0\x00")

    def _on_disconnect(self, data: bytes, header: Header, position: int, end: int) -> None:
        _no_body(position, end)
        self.clean_end = True
        self.state = State.CLOSED

    def close(self) -> None:
        """The connection is gone; whatever comes is discarded."""
        self.state = State.CLOSED
        self._rest.clear()


def acknowledge(messages: list[Message]) -> tuple[bytes, list[int]]:
    """The PUBACKs and PUBRECs of messages that are on disk, in the order in which they came, and their identifiers."""
    ids = [message[2] for message in messages if message[2]]
    if not ids:
        return b"", ids
    if any(message[3] & QOS_2 for message in messages):
        parts = [
            (b"\x50\x02" if flags & QOS_2 else b"\x40\x02") + packet_id.to_bytes(2, "big")
            for _, _, packet_id, flags in messages
            if packet_id
        ]
        return b"".join(parts), ids
    return b"\x40\x02" + b"\x40\x02".join([packet_id.to_bytes(2, "big") for packet_id in ids]), ids


def _no_body(position: int, end: int) -> None:
    if position != end:
        raise MqttError("bytes in a packet that has none")


def _unexpected(state: State, kind: PacketType) -> str:
    if state is State.NEW:
        return f"{kind.name} before CONNECT [MQTT-3.1.0-1]"
    if kind is PacketType.CONNECT:
        return "a second CONNECT [MQTT-3.1.0-2]"
    if packets.is_from_server(kind):
        return f"{kind.name}, which only a server sends"
    return f"{kind.name} for nothing that was sent to this client"


Handler = Callable[[ServerSession, bytes, Header, int, int], None]
_TABLE: dict[tuple[State, PacketType], Handler] = {
    (State.NEW, PacketType.CONNECT): ServerSession._on_connect,
    (State.CONNECTED, PacketType.PUBLISH): ServerSession._on_publish,
    (State.CONNECTED, PacketType.PUBREL): ServerSession._on_pubrel,
    (State.CONNECTED, PacketType.SUBSCRIBE): ServerSession._on_subscribe,
    (State.CONNECTED, PacketType.UNSUBSCRIBE): ServerSession._on_unsubscribe,
    (State.CONNECTED, PacketType.PINGREQ): ServerSession._on_ping,
    (State.CONNECTED, PacketType.DISCONNECT): ServerSession._on_disconnect,
}
