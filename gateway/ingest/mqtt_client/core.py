"""The client's side of one connection to a broker, MQTT 3.1.1 or 5, sans-IO.

    CONNECTING ──CONNACK──▶ SUBSCRIBING ──SUBACK──▶ UP
         └──────────────────────┴────────────────────┴──▶ CLOSED

`feed` parses every packet of a readable event in one loop, with the listener's own run of plain PUBLISHes; messages
become tuples in `messages`, packets to send become bytes in `out`; the caller empties both. What each packet does in
each state is the table `TABLE`; whatever is not in it closes the connection. PUBACK and PUBREC are not made here but by
`packets.acknowledge`, when the caller knows that the messages are on disk. `tick` keeps the connection alive, notices a
dead one, and asks again for filters that were refused. Times are monotonic milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from devices.reading import HEALTH_DEVICE
from gateway.ingest.mqtt import packets as codec
from gateway.ingest.mqtt import version3, version5
from gateway.ingest.mqtt.packets import REMAINING_LENGTH_MAX, Connect, Header, PacketType
from gateway.ingest.mqtt.properties import Property, integer, read_varint
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import HELD, REFUSED, TOPIC_LEVELS_MAX, Exchange, TopicCache, no_body
from gateway.ingest.mqtt_client import packets
from gateway.ingest.mqtt_client.answers import BAD_VERSION, Refusal, connect_refusal, farewell, filter_refusal
from gateway.ingest.mqtt_client.packets import text_of
from headwater.errors import PeerError

SUBSCRIBE_ID = 1
ASK_AGAIN_MS = 60_000.0
_ANY_PACKET = REMAINING_LENGTH_MAX + 5


class Phase(Enum):
    """A connection's life."""

    CONNECTING = auto()
    SUBSCRIBING = auto()
    UP = auto()
    CLOSED = auto()


class Plan(NamedTuple):
    """What to ask of the broker. `former`: filters that the session may still have and that are wanted no more.

    `retained`: whether copies that the broker kept are wanted.
    """

    connect: Connect
    filters: Sequence[tuple[str, int]]
    former: Sequence[str]
    receive_maximum: int
    packet_bytes_max: int
    connect_timeout_ms: float
    retained: bool = False


class Lost(PeerError):  # noqa: N818 - an outcome, not a defect
    """The connection is over: why, and what to do next. `bad_version`: another MQTT version may do better."""

    def __init__(self, refusal: Refusal, *, bad_version: bool = False) -> None:
        super().__init__(str(refusal))
        self.bad_version = bad_version


class ClientSession(Exchange):
    """One connection. Raises `MqttError` on bytes that break the protocol, `Lost` when the broker refuses or ends."""

    def __init__(self, plan: Plan, *, held: set[int], topics: TopicCache, now_ms: float) -> None:
        """`held`: identifiers of QoS 2 messages that wait for their PUBREL; the session's, not the connection's."""
        # the broker's window is not judged here: a reader that pauses bounds what is taken in
        limits = MqttSettings(packet_bytes_max=plan.packet_bytes_max, inflight_max=0xFFFF, topic_aliases_max=0)
        super().__init__(limits, topics)
        self.plan = plan
        self.level = plan.connect.level
        self.held = held
        self.phase = Phase.CONNECTING
        self.present = False  # the broker had the session still
        self.answered = False  # any CONNACK came
        self.keep_alive_s = plan.connect.keep_alive_s
        self.session_expiry_s = plan.connect.session_expiry_s
        self.granted: dict[str, int] = {}  # filter → QoS
        self.refused: dict[str, Refusal] = {}
        self.oversize: tuple[str, int] | None = None  # topic and size of the last message that was too large
        self.unreadable: str | None = None  # the last topic that cannot be one
        self._asked: dict[int, list[str]] = {}  # SUBSCRIBEs on the way, by packet identifier
        self._ask_again_ms = 0.0
        self._packet_id = SUBSCRIBE_ID
        self._read_run = version5.read_run if self.level == 5 else version3.read_run
        self._rest = bytearray()
        self._need = 0
        self._skip = 0  # bytes of an oversize message still to come
        self._heard_ms = self._sent_ms = self._asked_ms = now_ms
        self.out.append(packets.encode_connect(plan.connect, receive_maximum=plan.receive_maximum))

    # --- bytes

    def feed(self, data: bytes, now_ms: float) -> None:
        """Take in what the network gave. What was whole before an error is in `messages` all the same."""
        if self.phase is Phase.CLOSED:
            return
        self._heard_ms = now_ms
        try:
            self._feed(data)
        except PeerError:
            self.phase = Phase.CLOSED
            raise

    def _feed(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        self.unacknowledged = 0
        position = self._parse(data)
        if position < len(data):
            self._rest += data[position:] if position else data

    def _parse(self, data: bytes) -> int:
        """Every whole packet of `data`; returns where the first incomplete one begins."""
        position, end = 0, len(data)
        while position < end:
            if self.phase is not Phase.CONNECTING:
                position = self._read_run(self, data, position, end)
            header = codec.read_header(data, position, _ANY_PACKET, level=self.level)
            if header is None:
                self._need = end - position + 1
                return position
            if header.size > self.plan.packet_bytes_max:
                stop = self._pass_over(data, header, position)
                if not stop:
                    return position
                position = stop
                continue
            if position + header.size > end:
                self._need = header.size
                return position
            handler = TABLE[self.phase].get(header.kind)
            if handler is None:
                raise MqttError(f"{header.kind.name} from a broker while {self.phase.name.lower()}")
            handler(self, data, header, header.body, position + header.size)
            position += header.size
        return position

    def _pass_over(self, data: bytes, header: Header, position: int) -> int:
        """A packet over the limit: a message is settled without its payload, for it would only come again.

        Returns where parsing goes on, 0 while its topic and identifier are not all there.
        """
        if header.kind is not PacketType.PUBLISH or self.phase is Phase.CONNECTING:
            what = f"{header.kind.name} of {header.size} bytes; {self.plan.packet_bytes_max} is the most here"
            raise MqttError(f"{what}: packet_bytes_max in [[mqtt_client]]")
        names_end = header.body + 2
        if len(data) >= names_end:
            names_end += (data[header.body] << 8 | data[header.body + 1]) + (2 if header.flags & 6 else 0)
        if len(data) < max(names_end, header.body + 2):
            self._need = names_end - position
            return 0
        if names_end > position + header.size:
            raise MqttError("a string longer than its packet")
        raw, after = codec.read_binary(data, header.body, names_end)
        packet_id = codec.read_packet_id(data, after, names_end)[0] if header.flags & 6 else 0
        topic = raw.decode("utf-8", "replace")
        self.oversize = (topic, header.size)
        self.messages.append((topic, b"", packet_id, header.flags | REFUSED | self._held_flag(header.flags, packet_id)))
        stop = min(position + header.size, len(data))
        self._skip = position + header.size - stop
        return stop

    def _held_flag(self, flags: int, packet_id: int) -> int:
        """As `hold` of a server's side, which a client never refuses: identifiers are bounded by their size."""
        if flags & 6 != 4:
            return 0
        if packet_id in self.held:
            return HELD
        self.held.add(packet_id)
        return 0

    def send(self, packet: bytes) -> None:
        self.out.append(packet)

    def next_packet_id(self) -> int:
        """For SUBSCRIBE and UNSUBSCRIBE."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id

    # --- time

    def sent(self, now_ms: float) -> None:
        """Something was written: the broker hears us."""
        self._sent_ms = now_ms

    def heard(self, now_ms: float) -> None:
        """The silence before this was our own doing: reads were paused."""
        self._heard_ms = now_ms

    def tick(self, now_ms: float, *, reading: bool) -> None:
        """PINGREQ in time, refused filters once more. Raises `Lost` for a broker that is silent while we read."""
        if self.phase is Phase.CLOSED:
            return
        silent_ms, limit_ms = now_ms - self._heard_ms, self.keep_alive_s * 1_000.0
        if self.phase is Phase.CONNECTING:
            if silent_ms > self.plan.connect_timeout_ms:
                self._end(Refusal(f"no CONNACK for {silent_ms / 1000:.0f} s", "is it an MQTT broker?"))
            return
        if reading and silent_ms > limit_ms:
            self._end(Refusal(f"not a byte from it for {silent_ms / 1000:.0f} s: the link or the broker is dead"))
        if now_ms - self._sent_ms >= limit_ms / 2 or (silent_ms >= limit_ms / 2 and now_ms - self._asked_ms >= 1_000):
            self._asked_ms = self._sent_ms = now_ms
            self.send(packets.PINGREQ)
        if self.phase is Phase.UP and self.refused and now_ms >= self._ask_again_ms:
            self._ask_again_ms = now_ms + ASK_AGAIN_MS
            self.ask_for([each for each in self.plan.filters if each[0] in self.refused])

    def _end(self, refusal: Refusal) -> None:
        self.phase = Phase.CLOSED
        raise Lost(refusal)

    # --- what goes out

    def ask_for(self, filters: Sequence[tuple[str, int]]) -> None:
        """SUBSCRIBE; its answer fills `granted` and `refused`."""
        packet_id = self.next_packet_id()
        self._asked[packet_id] = [name for name, _ in filters]
        self.send(packets.encode_subscribe(self.level, packet_id, filters, retained=self.plan.retained))

    def answered_subscribe(self, packet_id: int, codes: Sequence[int]) -> None:
        """A SUBACK. Raises `MqttError` for one that answers nothing."""
        names = self._asked.pop(packet_id, None)
        if names is None or len(names) != len(codes):
            raise MqttError("SUBACK that answers no SUBSCRIBE [MQTT-3.8.4-6]")
        for name, code in zip(names, codes, strict=True):
            if code < 0x80:
                self.granted[name] = code & 3
                self.refused.pop(name, None)
            else:
                self.refused[name] = filter_refusal(code)
        self._ask_again_ms = self._heard_ms + ASK_AGAIN_MS
        if not self._asked:
            self.phase = Phase.UP

    def end(self, reason: int = 0) -> None:
        """Say good-bye; the session stays at the broker."""
        if self.phase in (Phase.SUBSCRIBING, Phase.UP):
            self.send(packets.encode_disconnect(self.level, reason))
        self.phase = Phase.CLOSED


# --- what each packet does: (session, data, header, where the body begins, where it ends)

Handler = Callable[[ClientSession, bytes, Header, int, int], None]


def _on_connack(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    x.answered = True
    told = packets.read_connack(x.level, data, position, end)
    if told.code:
        text, elsewhere = (
            text_of(told.properties, each) for each in (Property.REASON_STRING, Property.SERVER_REFERENCE)
        )
        raise Lost(connect_refusal(told.code, text, elsewhere), bad_version=told.code in BAD_VERSION)
    x.present = told.present
    if not told.present:
        x.held.clear()
    x.keep_alive_s = integer(told.properties, Property.SERVER_KEEP_ALIVE, 0) or x.keep_alive_s
    x.session_expiry_s = integer(told.properties, Property.SESSION_EXPIRY_INTERVAL, x.session_expiry_s)
    x.phase = Phase.SUBSCRIBING
    if told.present and x.plan.former:
        # what a session was asked for once it delivers for ever
        x.send(packets.encode_unsubscribe(x.level, x.next_packet_id(), x.plan.former))
    x.ask_for(x.plan.filters)


def _on_publish(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    """A message by the book. Its properties are passed over: none of them says how to store it."""
    qos = header.flags >> 1 & 3
    if qos == 3:
        raise MqttError("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
    raw, position = codec.read_binary(data, position, end)
    packet_id = 0
    if qos:
        packet_id, position = codec.read_packet_id(data, position, end)
    if x.level == 5:
        length, position = read_varint(data, position, end)
        position += length
        if position > end:
            raise MqttError("properties longer than their packet")
    flags = header.flags | x._held_flag(header.flags, packet_id)
    try:
        topic = codec.check_topic(raw)
    except MqttError:  # it would come again and again
        topic = raw.decode("utf-8", "replace")
        flags |= REFUSED
    if topic.startswith(HEALTH_DEVICE) or topic.count("/") >= TOPIC_LEVELS_MAX:
        flags |= REFUSED
    if flags & REFUSED:
        x.unreadable = topic
    else:
        x.topics.add(raw, topic)
    x.messages.append((topic, data[position:end], packet_id, flags))


def _on_pubrel(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    """PUBREL: the identifier is free again; an unknown one, after a crash, is completed all the same."""
    packet_id = codec.read_packet_id(data, position, end)[0]
    x.held.discard(packet_id)
    x.send(codec.encode_acknowledgement(PacketType.PUBCOMP, packet_id))


def _on_suback(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    x.answered_subscribe(*packets.read_suback(x.level, data, position, end))


def _on_unsuback(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    packets.read_unsuback(x.level, data, position, end)


def _on_pingresp(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    no_body(position, end)


def _on_disconnect(x: ClientSession, data: bytes, header: Header, position: int, end: int) -> None:
    if x.level != 5:
        raise MqttError("DISCONNECT, which only a client sends in MQTT 3.1.1")
    raise Lost(farewell(*packets.read_disconnect(data, position, end)))


_CONNECTED: dict[PacketType, Handler] = {
    PacketType.PUBLISH: _on_publish,
    PacketType.PUBREL: _on_pubrel,
    PacketType.SUBACK: _on_suback,
    PacketType.UNSUBACK: _on_unsuback,
    PacketType.PINGRESP: _on_pingresp,
    PacketType.DISCONNECT: _on_disconnect,
}
TABLE: dict[Phase, dict[PacketType, Handler]] = {
    Phase.CONNECTING: {PacketType.CONNACK: _on_connack},
    Phase.SUBSCRIBING: _CONNECTED,  # a session that goes on delivers before its SUBACK
    Phase.UP: _CONNECTED,
    Phase.CLOSED: {},
}
