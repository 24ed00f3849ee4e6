"""What one MQTT connection knows, whatever its version; `version3` and `version5` say what packets do. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from gateway.ingest.messages import Messages
from gateway.ingest.mqtt.packets import Connect, Header, PacketType
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.sparkplug import NODES_MAX, EdgeNode, commanded, own_topic

if TYPE_CHECKING:
    from gateway.ingest.mqtt.access import Rights

# of a message: PUBLISH's own low nibble, HELD and REFUSED
RETAIN, QOS, QOS_2, DUP = 1, 6, 4, 8
HELD = 16  # QoS 2: this packet identifier is waiting for its PUBREL, so the message is stored already
REFUSED = 32  # not to be stored: its topic is not for this client; the reason code stands above, from REASON_SHIFT on
REASON_SHIFT = 8

TOPIC_LEVELS_MAX = 200  # as Mosquitto has it; nobody's plant is deeper, and matching costs by the level


class State(Enum):
    """A connection's life."""

    NEW = auto()  # nothing but CONNECT may come [MQTT-3.1.0-1]
    DECIDING = auto()  # CONNECT came; the caller decides
    CONNECTED = auto()
    CLOSED = auto()


# packets that differ in identifier and payload only: the bytes before those, the size of one, the topic, how many bytes
# an identifier has, and what cuts them
Alike = tuple[bytes, int, str, int, Callable[[bytes], Iterator[tuple[Any, ...]]]]


class TopicCache:
    """Topic names that were checked, by their bytes; shared by connections with the same rights, bounded."""

    def __init__(self, *, entries_max: int = 16_384, bytes_max: int = 256) -> None:
        self.names: dict[bytes, str] = {}
        self._entries_max = entries_max
        self._bytes_max = bytes_max

    def add(self, raw: bytes, name: str) -> None:
        if len(raw) <= self._bytes_max:
            if len(self.names) >= self._entries_max:
                self.names.clear()
            self.names[raw] = name


def retained(messages: Messages) -> int:
    """How many ask to be kept for whoever subscribes."""
    return sum([flags & (RETAIN | REFUSED) == RETAIN for flags in messages.flags]) if messages.any_flags & RETAIN else 0


class Exchange:
    """The state of one connection. `messages` and `out` are emptied by whoever feeds it."""

    def __init__(self, settings: MqttSettings, topics: TopicCache) -> None:
        self.settings = settings
        self.topics = topics
        self.state = State.NEW
        self.level = 4  # of the protocol: 4 is 3.1.1
        self.connect: Connect | None = None
        self.client_id = ""
        self.messages = Messages()
        self.alike: Alike | None = None  # packets that were cut together (`runs`)
        self.unlike_bytes = 0  # what was left of the bytes fed when they were last cut together in vain (`runs`)
        self.out: list[bytes] = []
        self.held: set[int] = set()  # QoS 2 packet identifiers between PUBLISH and PUBREL; the session's, not ours
        self.subscriptions_refused = 0
        self.edge_nodes: list[EdgeNode] = []  # whose Sparkplug commands it has subscribed to
        self.filter_refused: str | None = None  # the last one
        self.topic_refused: str | None = None
        self.rights: Rights | None = None  # None: any topic
        self.clean_end = False  # DISCONNECT came
        self.keeps_will = False  # … and asked for the will all the same (MQTT 5)
        self.session_expiry_s = 0  # MQTT 5; DISCONNECT may change it
        # MQTT 5's windows: PUBLISH packets with QoS 1 or 2 that are not acknowledged whole, and names of topics
        self.unacknowledged = 0
        self.aliases: dict[int, str] = {}

    def send(self, packet: bytes) -> None:
        """Queue an answer, unless it is larger than the client takes: then it counts as sent [MQTT-3.1.2-24, -25]."""
        limit = self.connect.packet_bytes_max if self.connect is not None else None
        if limit is None or len(packet) <= limit:
            self.out.append(packet)

    def may_publish(self, topic: str) -> ReasonCode:
        """SUCCESS, or why a well-formed topic is not taken."""
        if topic.startswith("$"):
            return ReasonCode.TOPIC_NAME_INVALID  # a broker's own (4.7.2), and here the node's: `$gateway`
        if topic.count("/") >= TOPIC_LEVELS_MAX:
            return ReasonCode.TOPIC_NAME_INVALID
        if self.rights is not None and not self.rights.allows(topic):
            return ReasonCode.NOT_AUTHORIZED
        return ReasonCode.SUCCESS

    def subscribe(self, topic_filter: str) -> bool:
        """Whether a subscription is granted: that of a Sparkplug edge node to its own commands, and no other."""
        node = commanded(topic_filter)
        ends_with_connection = self.connect is not None and self.connect.clean and not self.session_expiry_s
        if node is None or not ends_with_connection or len(self.edge_nodes) >= NODES_MAX:
            return False
        if self.rights is not None and not self.rights.allows(own_topic(node)):
            return False
        if node not in self.edge_nodes:
            self.edge_nodes.append(node)
        return True

    def refused_filters(self, filters: list[str]) -> None:
        """These of a SUBSCRIBE were not granted."""
        self.subscriptions_refused += len(filters)
        self.filter_refused = filters[-1] if filters else self.filter_refused

    def unsubscribe(self, topic_filter: str) -> bool:
        """Whether there was such a subscription."""
        node = commanded(topic_filter)
        if node not in self.edge_nodes:
            return False
        self.edge_nodes.remove(node)
        return True

    def restrict(self, rights: Rights | None) -> ReasonCode:
        """Who the client is, is known: what it may publish to, and whether its will is among that."""
        if rights is not None:
            self.rights = rights
            self.topics = TopicCache(entries_max=256)  # what others may does not count for it
        will = self.connect.will if self.connect is not None else None
        return self.may_publish(will.topic) if will is not None else ReasonCode.SUCCESS

    def hold(self, packet_id: int) -> int:
        """A QoS 2 message came: the flag to give it."""
        if packet_id in self.held:
            return HELD
        if len(self.held) >= self.settings.inflight_max:
            raise MqttError(
                f"more than {self.settings.inflight_max} QoS 2 messages without PUBREL",
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
            )
        self.held.add(packet_id)
        return 0


# (connection, data, header, where the body begins, where it ends)
Handler = Callable[[Exchange, bytes, Header, int, int], None]
Table = dict[PacketType, Handler]


def on_ping(x: Exchange, data: bytes, header: Header, position: int, end: int) -> None:
    """PINGREQ, the same in every version."""
    no_body(position, end)
    x.send(b"\xd0\x00")


def no_body(position: int, end: int) -> None:
    """For packets that are a header and nothing else."""
    if position != end:
        raise MqttError("bytes in a packet that has none")
