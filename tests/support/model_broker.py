"""A naive MQTT 5 broker with one session, on an imaginary wire that is cut, and the transport at its other end."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from gateway.ingest.mqtt import packets as codec
from gateway.ingest.mqtt import packets5
from gateway.ingest.mqtt.packets import PacketType, Publish
from gateway.ingest.mqtt.reasons import ReasonCode

TOPIC = "site/pump"


class Wire(asyncio.Transport):
    """Both directions as queues of bytes; what is in them when it is cut is gone."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.up, self.down = bytearray(), bytearray()  # to the broker, to the client
        self.is_open, self.reads = True, True

    def write(self, data: Any) -> None:
        if self.is_open:
            self.up += data

    def cut(self) -> None:
        if self.is_open:
            self.is_open = False
            self.up.clear()
            self.down.clear()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, ConnectionResetError("cut"))

    def close(self) -> None:
        self.cut()

    def abort(self) -> None:
        self.cut()

    def is_closing(self) -> bool:
        return not self.is_open

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class ModelBroker:
    """Keeps what is not acknowledged, and sends it again with DUP to a session that comes back.

    `numbers_anew`: with new identifiers then, from 1, as RabbitMQ does.
    """

    def __init__(self, random: Random, *, window: int, numbers_anew: bool) -> None:
        self._random = random
        self._window = window
        self._numbers_anew = numbers_anew
        self._waiting: list[tuple[bytes, int]] = []
        self._inflight: dict[int, tuple[bytes, int]] = {}
        self._released: list[int] = []  # QoS 2: PUBREL was sent
        self._next_id = 100
        self._has_session = False
        self._is_subscribed = False
        self.wire: Wire | None = None

    @property
    def owes(self) -> bool:
        return bool(self._waiting or self._inflight or self._released)

    def publish(self, payload: bytes, qos: int) -> None:
        """What a device has had its PUBACK for."""
        self._waiting.append((payload, qos))

    async def connect(self, factory: Any, host: str, port: int) -> Any:
        """The network seam: a new wire, the old one is cut."""
        protocol = factory()
        if self.wire is not None:
            self.wire.cut()
        self.wire = Wire(protocol)
        self._is_subscribed = False
        protocol.connection_made(self.wire)
        return protocol

    def step(self) -> None:
        """Some bytes move, some packets are answered, some messages are sent."""
        wire = self.wire
        if wire is None or not wire.is_open:
            return
        self._read(wire)
        self._send(wire)
        if wire.down and wire.reads:
            size = self._random.randint(1, len(wire.down))
            part = bytes(wire.down[:size])
            del wire.down[:size]
            wire.protocol.data_received(part)

    def _read(self, wire: Wire) -> None:
        while (header := codec.read_header(wire.up, 0, 1 << 20, level=5)) is not None and header.size <= len(wire.up):
            packet = bytes(wire.up[: header.size])
            del wire.up[: header.size]
            self._packet(wire, header.kind, packet, header.body)

    def _packet(self, wire: Wire, kind: PacketType, packet: bytes, body: int) -> None:
        packet_id = int.from_bytes(packet[body : body + 2], "big")
        if kind is PacketType.CONNECT:
            wire.down += packets5.encode_connack(ReasonCode.SUCCESS, {}, session_present=self._has_session)
            self._has_session = True
        elif kind is PacketType.SUBSCRIBE:
            self._is_subscribed = True
            wire.down += packets5.encode_reasons(PacketType.SUBACK, packet_id, [ReasonCode(0)])
            self._again(wire)
        elif kind is PacketType.PUBACK:
            self._inflight.pop(packet_id, None)
        elif kind is PacketType.PUBREC:
            if self._inflight.pop(packet_id, None) is not None:
                self._released.append(packet_id)
            wire.down += codec.encode_acknowledgement(PacketType.PUBREL, packet_id)
        elif kind is PacketType.PUBCOMP and packet_id in self._released:
            self._released.remove(packet_id)

    def _again(self, wire: Wire) -> None:
        unacknowledged = list(self._inflight.items())
        if self._numbers_anew:
            self._next_id = len(unacknowledged) + 1
            unacknowledged = list(enumerate([message for _, message in unacknowledged], 1))
            self._inflight = dict(unacknowledged)
        for packet_id in self._released:
            wire.down += codec.encode_acknowledgement(PacketType.PUBREL, packet_id)
        for packet_id, (payload, qos) in unacknowledged:
            wire.down += packets5.encode_publish(Publish(TOPIC, payload, qos, packet_id, True, False))

    def _send(self, wire: Wire) -> None:
        while self._is_subscribed and self._waiting and len(self._inflight) + len(self._released) < self._window:
            payload, qos = self._waiting.pop(0)
            packet_id = self._next_id if qos else 0
            if qos:
                self._next_id += 1
                self._inflight[packet_id] = (payload, qos)
            wire.down += packets5.encode_publish(Publish(TOPIC, payload, qos, packet_id, False, False))
