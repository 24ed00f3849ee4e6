"""What a connected MQTT 5 client's packets do: one handler per packet, and the run of plain PUBLISHes. Sans-IO.

Payload format, content type, response topic, correlation data and message expiry are read, checked and then ignored:
a reading is stored at once, so nothing expires on its way, and nobody answers here.
"""

from __future__ import annotations

from gateway.ingest.messages import Messages
from gateway.ingest.mqtt import packets5, runs
from gateway.ingest.mqtt.packets import Header, PacketType
from gateway.ingest.mqtt.properties import Properties, Property
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.state import (
    REASON_SHIFT,
    REFUSED,
    Exchange,
    Table,
    on_ping,
)

ALIASED_CHARACTERS_MAX = 65_536  # of all topics that one connection has given an alias


def receive_maximum(x: Exchange) -> int:
    """How many PUBLISH packets with QoS 1 or 2 a client may have on the way, as CONNACK told it."""
    return min(x.settings.inflight_max, 0xFFFF)


def read_run(x: Exchange, data: bytes, position: int, end: int) -> int:
    """The run of plain PUBLISH packets at `position`, as far as the window goes; plain is one without properties."""
    position, numbered = runs.read_run(x, data, position, end, receive_maximum(x) - x.unacknowledged, 1)
    x.unacknowledged += numbered
    return position


def read_alike(x: Exchange, data: bytes) -> Messages | None:
    """All of `data`, if it looks like what came before and the window has room for it."""
    messages = runs.read_alike(x, data, receive_maximum(x) - x.unacknowledged, 1)
    if messages is not None and messages.numbered:
        x.unacknowledged += len(messages)
    return messages


def on_publish(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """PUBLISH by the book (3.3.4): window, alias, rights."""
    publish, found = packets5.read_publish(data, header.flags, position, end)
    if publish.qos:
        if x.unacknowledged >= receive_maximum(x):
            raise MqttError(
                f"more than {receive_maximum(x)} messages on the way [MQTT-3.3.4-9]",
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
            )
        x.unacknowledged += 1
    topic = _topic(x, publish.topic, found)
    flags = header.flags
    if reason := x.may_publish(topic):
        x.topic_refused = topic
        flags |= REFUSED | reason << REASON_SHIFT
    else:
        x.topics.add(topic.encode(), topic)
        if publish.qos == 2:
            flags |= x.hold(publish.packet_id)
    x.messages.append((topic, publish.payload, publish.packet_id, flags))


def _topic(x: Exchange, topic: str, found: Properties) -> str:
    """The topic's name, through its alias if it has one (3.3.2.3.4)."""
    alias = found.get(Property.TOPIC_ALIAS)
    if not isinstance(alias, int):
        return topic
    if alias > x.settings.topic_aliases_max:
        raise MqttError(
            f"topic alias {alias}; {x.settings.topic_aliases_max} is the most here [MQTT-3.3.2-9]",
            ReasonCode.TOPIC_ALIAS_INVALID,
        )
    if topic:
        x.aliases[alias] = topic
        if sum(map(len, x.aliases.values())) > ALIASED_CHARACTERS_MAX:
            raise MqttError("topics with an alias are too long together", ReasonCode.QUOTA_EXCEEDED)
        return topic
    if alias not in x.aliases:
        # a protocol error in 3.3.4; the code for aliases says more than 0x82 would
        raise MqttError(f"topic alias {alias} stands for nothing yet", ReasonCode.TOPIC_ALIAS_INVALID)
    return x.aliases[alias]


def on_pubrel(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """PUBREL: identifier and window are free again."""
    packet_id = packets5.read_pubrel(data, position, end)
    known = packet_id in x.held
    x.held.discard(packet_id)
    x.unacknowledged = max(0, x.unacknowledged - 1)
    # unknown is no error after a crash, and the client is told [MQTT-4.3.3-11]
    reason = ReasonCode.SUCCESS if known else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    x.send(packets5.encode_pubcomp(packet_id, reason))


def on_subscribe(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """SUBSCRIBE is refused filter by filter, as in 3.1.1: all but a Sparkplug node's own commands, at QoS 0."""
    packet_id, filters, has_identifier = packets5.read_subscribe(data, position, end)
    reasons = [_subscribe_reason(x, name, has_identifier=has_identifier) for name in filters]
    x.refused_filters([name for name, reason in zip(filters, reasons, strict=True) if reason])
    x.send(packets5.encode_reasons(PacketType.SUBACK, packet_id, reasons))


def _subscribe_reason(x: Exchange, name: str, *, has_identifier: bool) -> ReasonCode:
    if has_identifier:
        return ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
    if x.subscribe(name):
        return ReasonCode.SUCCESS  # granted QoS 0
    shared = name.startswith("$share/")
    return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED if shared else ReasonCode.NOT_AUTHORIZED


def on_unsubscribe(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """UNSUBSCRIBE is answered filter by filter."""
    packet_id, filters = packets5.read_unsubscribe(data, position, end)
    reasons = [ReasonCode.SUCCESS if x.unsubscribe(name) else ReasonCode.NO_SUBSCRIPTION_EXISTED for name in filters]
    x.send(packets5.encode_reasons(PacketType.UNSUBACK, packet_id, reasons))


def on_disconnect(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """DISCONNECT (3.14): only reason 0 forgets the will; the session's expiry may change, but not from 0."""
    found = packets5.read_disconnect(data, position, end)
    if found.session_expiry_s is not None:
        if found.session_expiry_s and not x.session_expiry_s:
            raise MqttError("DISCONNECT with a session expiry where CONNECT had none", ReasonCode.PROTOCOL_ERROR)
        x.session_expiry_s = found.session_expiry_s
    x.clean_end = True
    x.keeps_will = found.reason != ReasonCode.SUCCESS


def on_auth(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """AUTH: no method was agreed on, so it is never in order [MQTT-4.12.0-1]."""
    raise MqttError("AUTH without an authentication method", ReasonCode.PROTOCOL_ERROR)


TABLE: Table = {
    PacketType.PUBLISH: on_publish,
    PacketType.PUBREL: on_pubrel,
    PacketType.SUBSCRIBE: on_subscribe,
    PacketType.UNSUBSCRIBE: on_unsubscribe,
    PacketType.PINGREQ: on_ping,
    PacketType.DISCONNECT: on_disconnect,
    PacketType.AUTH: on_auth,
}
