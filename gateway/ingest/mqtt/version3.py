"""What a connected MQTT 3.1.1 client's packets do: one handler per packet, and the run of plain PUBLISHes. Sans-IO."""

from __future__ import annotations

from gateway.ingest.messages import Messages
from gateway.ingest.mqtt import packets, runs
from gateway.ingest.mqtt.packets import Header, PacketType
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.state import (
    REASON_SHIFT,
    REFUSED,
    Exchange,
    Table,
    no_body,
    on_ping,
)

_SUBSCRIBE_FAILURE = 0x80
_UNBOUNDED = 1 << 62


def read_run(x: Exchange, data: bytes, position: int, end: int) -> int:
    """The run of plain PUBLISH packets at `position`: any number of them may be on the way."""
    return runs.read_run(x, data, position, end, _UNBOUNDED, 0)[0]


def read_alike(x: Exchange, data: bytes) -> Messages | None:
    """All of `data`, if it looks like what came before."""
    return runs.read_alike(x, data, _UNBOUNDED, 0)


def on_publish(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """PUBLISH by the book; 3.1.1 has no way to refuse one but to close [MQTT-3.3.5-2]."""
    publish = packets.read_publish(data, header.flags, position, end)
    flags = header.flags
    if reason := x.may_publish(publish.topic):
        x.topic_refused = publish.topic
        if publish.qos:
            raise MqttError(f"it publishes to “{publish.topic:.80}”, which is not for it", reason)
        flags |= REFUSED | reason << REASON_SHIFT
    else:
        x.topics.add(publish.topic.encode(), publish.topic)
        if publish.qos == 2:
            flags |= x.hold(publish.packet_id)
    x.messages.append((publish.topic, publish.payload, publish.packet_id, flags))


def on_pubrel(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """PUBREL: the identifier is free again."""
    packet_id = packets.read_acknowledgement(data, position, end)
    x.held.discard(packet_id)  # unknown after a crash: PUBCOMP all the same [MQTT-4.3.3-2]
    x.send(packets.encode_acknowledgement(PacketType.PUBCOMP, packet_id))


def on_subscribe(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """SUBSCRIBE is refused, for this listener takes readings in; but for a Sparkplug node's own commands, at QoS 0."""
    packet_id, filters = packets.read_filters(data, position, end, with_qos=True)
    codes = [0 if x.subscribe(name) else _SUBSCRIBE_FAILURE for name in filters]
    x.refused_filters([name for name, code in zip(filters, codes, strict=True) if code])
    x.send(packets.encode_suback(packet_id, codes))


def on_unsubscribe(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """UNSUBSCRIBE is answered even when nothing was subscribed [MQTT-3.10.4-5]."""
    packet_id, filters = packets.read_filters(data, position, end, with_qos=False)
    for name in filters:
        x.unsubscribe(name)
    x.send(packets.encode_acknowledgement(PacketType.UNSUBACK, packet_id))


def on_disconnect(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """DISCONNECT: a good-bye; the will is forgotten [MQTT-3.14.4-3]."""
    no_body(position, end)
    x.clean_end = True


TABLE: Table = {
    PacketType.PUBLISH: on_publish,
    PacketType.PUBREL: on_pubrel,
    PacketType.SUBSCRIBE: on_subscribe,
    PacketType.UNSUBSCRIBE: on_unsubscribe,
    PacketType.PINGREQ: on_ping,
    PacketType.DISCONNECT: on_disconnect,
}
