"""The server's side of one MQTT connection, 3.1.1 or 5, sans-IO.

`feed` parses every packet of a readable event in one loop: PUBLISHes go into `messages`, answers that need
nothing from outside become bytes in `out`; the caller empties both. CONNECT is the one packet that needs a decision
(is there a session, may it come in): `connect` is set, parsing stops, and `accept` or `refuse` goes on.

What each packet does once connected is a table per version, in `version3` and `version5`; whatever is not in it closes
the connection [MQTT-4.8.0-1]. A client of MQTT 5 is told why: after an error `out` ends with CONNACK or DISCONNECT.
PUBACK and PUBREC are not made here but by `acknowledge`, when the caller knows that the messages are on disk.
"""

from __future__ import annotations

from gateway.ingest.messages import Messages, Packed, numbered
from gateway.ingest.mqtt import packets, packets5, version3, version5
from gateway.ingest.mqtt.foreign import name_foreign
from gateway.ingest.mqtt.packets import Header, PacketType
from gateway.ingest.mqtt.properties import Property, Value
from gateway.ingest.mqtt.reasons import CONNECT_CODES, MqttError, ReasonCode
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.state import QOS_2, REASON_SHIFT, REFUSED, Exchange, State, TopicCache

# each look into an Enum is a call: this is asked for every readable event
_NEW, _DECIDING, _CONNECTED, _CLOSED = State.NEW, State.DECIDING, State.CONNECTED, State.CLOSED


class ServerSession(Exchange):
    """One connection. Raises `MqttError`, and nothing else, on bytes that break the protocol."""

    def __init__(self, settings: MqttSettings, topics: TopicCache) -> None:
        super().__init__(settings, topics)
        self.refused_for: ReasonCode | None = None  # CONNECT was answered with a refusal
        self._rest = bytearray()
        self._need = 0
        self._table = version3.TABLE
        self._read_run, self._read_alike = version3.read_run, version3.read_alike

    @property
    def keep_alive_ms(self) -> float | None:
        """Silence after which the client is taken for dead: 1.5 × its keep-alive [MQTT-3.1.2-24]; None: never."""
        seconds = self.keep_alive_s
        return seconds * 1_500.0 if seconds else None

    @property
    def keep_alive_s(self) -> int:
        """What holds: the client's own, or for MQTT 5 the server's where the client's is longer or none."""
        seconds = self.connect.keep_alive_s if self.connect is not None else 0
        longest = self.settings.keep_alive_max_s
        if self.level == 5 and longest and (not seconds or seconds > longest):
            return longest
        return seconds

    def feed(self, data: bytes) -> bool:
        """Take in what the network gave; True when that was messages of the usual kind and nothing else."""
        if self.state is _CLOSED:
            return False  # bytes after DISCONNECT are discarded
        if self.state is _CONNECTED and not self._rest:  # as nearly always, and all of them whole
            if not self.messages.payloads and (messages := self._read_alike(self, data)) is not None:
                self.messages = messages
                return True
            position = self._read_run(self, data, 0, len(data))
            if position == len(data):
                return position > 0
            data = data[position:]
        is_first = self.state is _NEW and not self._rest
        try:
            self._feed(data)
        except MqttError as error:
            self.end(error.reason, error.what)
            if is_first and (foreign := name_foreign(data)) is not None:
                raise MqttError(foreign, error.reason) from None
            raise
        return False

    def _feed(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need or self.state is _DECIDING:
                self._check_backlog()
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self.state is _DECIDING:
            self._rest += data
            self._check_backlog()
            return
        position = self._parse(data)
        if position < len(data) and not self._closed():
            self._rest += data[position:] if position else data

    def _closed(self) -> bool:
        return self.state is _CLOSED

    def _check_backlog(self) -> None:
        # a reader that is paused while we decide may still be handed what was in flight: one read, at most
        if len(self._rest) > self.settings.packet_bytes_max + (1 << 20):
            raise MqttError("too many bytes before CONNACK", ReasonCode.QUOTA_EXCEEDED)

    def _parse(self, data: bytes) -> int:
        """Every whole packet of `data`; returns where the first incomplete one begins."""
        position, end = 0, len(data)
        while position < end:
            if self.state is _CONNECTED:
                position = self._read_run(self, data, position, end)
            size_max, limit = self.settings.packet_bytes_max, "packet_bytes_max"
            if self.state is _NEW and self.settings.connect_bytes_max < size_max:
                size_max, limit = self.settings.connect_bytes_max, "connect_bytes_max"
            try:
                header = packets.read_header(data, position, size_max, level=self.level, limit=limit)
            except MqttError:
                if self.state is _NEW and packets.begins_connect_5(data, position):
                    self.level = 5  # a CONNECT that is too long is never read, and its client is told all the same
                raise
            if header is None:
                self._need = end - position + 1
                return position
            if position + header.size > end:
                self._need = header.size
                if self.state is _NEW and header.kind is not PacketType.CONNECT:
                    raise MqttError(f"{header.kind.name} before CONNECT [MQTT-3.1.0-1]", ReasonCode.PROTOCOL_ERROR)
                return position
            self._packet(data, header, position + header.size)
            position += header.size
            if self.state is not _CONNECTED:
                break
        return position

    def _packet(self, data: bytes, header: Header, end: int) -> None:
        if self.state is _CONNECTED and (handler := self._table.get(header.kind)) is not None:
            handler(self, data, header, header.body, end)
            if self.clean_end:
                self.state = _CLOSED
        elif self.state is _NEW and header.kind is PacketType.CONNECT:
            self._on_connect(data, header.body, end)
        else:
            raise MqttError(_unexpected(self.state, header.kind), ReasonCode.PROTOCOL_ERROR)

    # --- CONNECT

    def _on_connect(self, data: bytes, position: int, end: int) -> None:
        connect = packets.read_connect(data, position, end)
        self.connect = connect
        if connect.level == 5:
            self.level = 5
            self._table = version5.TABLE
            self._read_run, self._read_alike = version5.read_run, version5.read_alike
            # protocol name and level were read: 6 bytes and 1
            self.connect = connect = packets5.read_connect(data, position + 7, end)
            self.session_expiry_s = connect.session_expiry_s
        elif connect.level != 4:
            self.level = 5 if connect.level > 5 else 4
            self.refuse(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
            return
        if connect.authentication_method is not None:
            self.refuse(ReasonCode.BAD_AUTHENTICATION_METHOD)
        elif connect.level == 4 and not connect.client_id and not connect.clean:
            self.refuse(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)  # [MQTT-3.1.3-8]
        elif connect.will is not None and (reason := self.may_publish(connect.will.topic)):
            self.refuse(reason, "the will's topic is not for this client")
        else:
            self.client_id = connect.client_id
            self.state = State.DECIDING

    def accept(self, client_id: str, *, present: bool, held: set[int]) -> None:
        """Let the client in; `held` belongs to its session. Then call `feed(b"")` for what waited.

        Raises `MqttError` when CONNACK is larger than the client takes.
        """
        self.client_id = client_id
        self.held = held
        if self.level == 5:
            connack = packets5.encode_connack(ReasonCode.SUCCESS, self._offer(), session_present=present)
        else:
            connack = packets.encode_connack(CONNECT_CODES[ReasonCode.SUCCESS], session_present=present)
        self.send(connack)
        if not self.out:
            self.state = State.CLOSED
            raise MqttError(f"it takes no packet of {len(connack)} bytes, the size of CONNACK")
        self.state = State.CONNECTED
        self._need = 0

    def _offer(self) -> dict[Property, Value]:
        """What CONNACK says of this listener: limits, and that it delivers nothing."""
        settings = self.settings
        offer: dict[Property, Value] = {
            Property.RECEIVE_MAXIMUM: version5.receive_maximum(self),
            Property.MAXIMUM_PACKET_SIZE: settings.packet_bytes_max,
            Property.TOPIC_ALIAS_MAXIMUM: settings.topic_aliases_max,
            Property.RETAIN_AVAILABLE: 1,
            Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
            Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
        }
        if self.connect is not None and not self.connect.client_id:
            offer[Property.ASSIGNED_CLIENT_IDENTIFIER] = self.client_id
        if self.connect is not None and self.keep_alive_s != self.connect.keep_alive_s:
            offer[Property.SERVER_KEEP_ALIVE] = self.keep_alive_s
        return offer

    def refuse(self, reason: ReasonCode, text: str = "") -> None:
        """CONNACK with a refusal; the caller closes [MQTT-3.2.2-5]."""
        self.refused_for = reason
        if self.level == 5:
            words: dict[Property, Value] = {Property.REASON_STRING: text} if text and self._wants_reasons() else {}
            self._send_shortened(
                packets5.encode_connack(reason, words), packets5.encode_connack(reason, {}), has_text=bool(words)
            )
        elif (code := CONNECT_CODES.get(reason)) is not None:
            self.send(packets.encode_connack(code))
        self.state = State.CLOSED

    # --- the end

    def end(self, reason: ReasonCode, text: str = "") -> None:
        """The server closes: a client of MQTT 5 is told why, in `out` [MQTT-4.13.1-1]. Then nothing more is read."""
        if self.level == 5 and self.state is State.CONNECTED:
            text = text if self._wants_reasons() else ""
            self._send_shortened(
                packets5.encode_disconnect(reason, text), packets5.encode_disconnect(reason), has_text=bool(text)
            )
        elif self.level == 5 and self.state in (State.NEW, State.DECIDING):
            self.refuse(reason, text)
        self.close()

    def _wants_reasons(self) -> bool:
        return self.connect is None or self.connect.wants_reasons

    def _send_shortened(self, packet: bytes, without_text: bytes, *, has_text: bool) -> None:
        """Words are left out before a packet is larger than the client takes [MQTT-3.2.2-19, -3.14.2-3]."""
        before = len(self.out)
        self.send(packet)
        if has_text and len(self.out) == before:
            self.send(without_text)

    def close(self) -> None:
        """The connection is gone; whatever comes is discarded."""
        self.state = State.CLOSED
        self._rest.clear()


def acknowledge(messages: Messages) -> tuple[Packed, Packed]:
    """The PUBACKs and PUBRECs of messages that are on disk, in the order in which they came, and their identifiers."""
    ids = messages.ids if messages.numbered else numbered(messages)
    if messages.any_flags & (QOS_2 | REFUSED):
        acks = [_acknowledgement(packet_id, flags) for _, _, packet_id, flags in messages if packet_id]
        return b"".join(acks), ids
    return packets.encode_pubacks(ids), ids


def acknowledge_all(settled: list[Messages]) -> tuple[Packed, Packed]:
    """`acknowledge` of all of them, one after another."""
    if len(settled) == 1:  # as nearly always
        return acknowledge(settled[0])
    acks, ids = zip(*map(acknowledge, settled), strict=True)
    return b"".join(acks), b"".join(ids)


def _acknowledgement(packet_id: int, flags: int) -> bytes:
    first = b"\x50" if flags & QOS_2 else b"\x40"
    if flags & REFUSED:
        return first + b"\x03" + packet_id.to_bytes(2, "big") + bytes((flags >> REASON_SHIFT,))
    return first + b"\x02" + packet_id.to_bytes(2, "big")


def windows_freed(messages: Messages) -> int:
    """How many places in an MQTT 5 client's window `acknowledge` gives back: a QoS 2 message waits for its PUBREL."""
    if not messages.any_flags & QOS_2:
        return len(numbered(messages)) // 2
    return sum([1 for _, _, packet_id, flags in messages if packet_id and (not flags & QOS_2 or flags & REFUSED)])


def _unexpected(state: State, kind: PacketType) -> str:
    if state is State.NEW:
        return f"{kind.name} before CONNECT [MQTT-3.1.0-1]"
    if kind is PacketType.CONNECT:
        return "a second CONNECT [MQTT-3.1.0-2]"
    if packets.is_from_server(kind):
        return f"{kind.name}, which only a server sends"
    return f"{kind.name} for nothing that was sent to this client"
