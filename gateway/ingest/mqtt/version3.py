"""What a connected MQTT 3.1.1 client's packets do: one handler per packet, and the run of plain PUBLISHes. Sans-IO."""

from __future__ import annotations

from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Header, PacketType
from gateway.ingest.mqtt.reasons import MqttError
from gateway.ingest.mqtt.state import (
    PLAIN_PUBLISH,
    PLAIN_RETAINED,
    QOS,
    REASON_SHIFT,
    REFUSED,
    Exchange,
    Table,
    no_body,
    on_ping,
    retained_since,
)

_SUBSCRIBE_FAILURE = 0x80


def read_run(x: Exchange, data: bytes, position: int, end: int) -> int:
    """The run of plain PUBLISH packets at `position`: the hot path, with no call per packet.

    Stops before anything unusual (QoS 2, a new topic, an error), which the table then treats by the book.
    """
    names, messages = x.topics.names, x.messages
    length_max = x.settings.packet_bytes_max - 3  # one a byte or so larger is left to the table
    before, has_retained = len(messages), False
    first = flags = qos = 0  # of the packet before
    name, head = "", b""  # the topic of the packet before, and its bytes with their length: the next is often the same
    while position + 4 <= end:
        if data[position] != first:
            first = data[position]
            if first not in PLAIN_PUBLISH and first not in PLAIN_RETAINED:
                break
            flags, qos = first & 15, first & QOS
            has_retained |= first in PLAIN_RETAINED
        length = data[position + 1]
        body = position + 2
        if length >= 0x80:
            high = data[body]
            if high >= 0x80:
                break
            length = length & 0x7F | high << 7
            body += 1
        stop = body + length
        if stop > end or length > length_max:
            break
        if not head or not data.startswith(head, body):
            if length < 4:
                break
            topic_end = body + 2 + (data[body] << 8 | data[body + 1])
            known = names.get(data[body + 2 : topic_end])
            if known is None:
                break
            name, head = known, data[body:topic_end]
        at = body + len(head)
        if at + 2 > stop:
            break
        if qos:
            packet_id = data[at] << 8 | data[at + 1]
            if not packet_id:
                break
            messages.append((name, data[at + 2 : stop], packet_id, flags))
        else:
            messages.append((name, data[at:stop], 0, flags))
        position = stop
    if has_retained:
        x.retained += retained_since(messages, before)
    return position


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
        x.retained += publish.retain
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
    x.subscriptions_refused += codes.count(_SUBSCRIBE_FAILURE)
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
