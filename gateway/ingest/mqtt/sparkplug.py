"""The one thing that this listener delivers: Sparkplug's request to say all births again. Sans-IO.

An edge node subscribes to its commands, `spBv1.0/<group>/NCMD/<node>` (and DCMD for its devices). That is granted at
QoS 0, as Sparkplug 3.0 sends commands, to a client that may publish that node's data, in a session that ends with its
connection, as Sparkplug 3.0 has them. When the decoder cannot read a node without its birth, or misses messages, the
node is asked for a rebirth, at most every `ASK_EVERY_MS`. No other command is ever sent, and nobody's passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol
from weakref import WeakSet

from devices.decoders.sparkplug import Rebirth, every_rebirth_wanted
from devices.decoders.sparkplug_payload import rebirth_request
from gateway.ingest.mqtt import packets, packets5
from gateway.ingest.mqtt.packets import Publish

ASK_EVERY_MS = 10_000
WANTED_MAX = 1_000
NODES_MAX = 100  # of one connection

_COMMANDS = re.compile(r"spBv1\.0/([^/+#]+)/[ND]CMD/([^/+#]+)(?:/#|/\+|/[^/+#]+)?")

EdgeNode = tuple[str, str]
"""Group and node."""


class Subscriber(Protocol):
    """A connection, as far as commands go."""

    @property
    def edge_nodes(self) -> Sequence[EdgeNode]: ...
    def deliver(self, topic: str, payload: bytes) -> None: ...


def commanded(topic_filter: str) -> EdgeNode | None:
    """The edge node whose commands a filter takes in, and nothing else; None for any other filter."""
    found = _COMMANDS.fullmatch(topic_filter)
    return (found[1], found[2]) if found is not None else None


def own_topic(node: EdgeNode) -> str:
    """A topic that only that node's client publishes to."""
    return f"spBv1.0/{node[0]}/NBIRTH/{node[1]}"


def command_packet(level: int, topic: str, payload: bytes) -> bytes:
    """A PUBLISH of QoS 0, not retained (Sparkplug 3.0, section 6.4.5)."""
    publish = Publish(topic, payload, 0, 0, dup=False, retain=False)
    return packets5.encode_publish(publish) if level == 5 else packets.encode_publish(publish)


Deliver = Callable[[str, bytes], None]
"""Send topic and payload to an edge node."""


class Rebirths:
    """Which edge nodes one way out is to ask, and when it did: this listener, or a broker.

    The decoder's memory is the process's; what one takes out of it is told to all, for each knows only its own nodes.
    """

    _all: ClassVar[WeakSet[Rebirths]] = WeakSet()

    def __init__(self) -> None:
        self.asked = 0
        self._wanted: dict[EdgeNode, str] = {}
        self._asked_ms: dict[EdgeNode, float] = {}
        Rebirths._all.add(self)

    def ask(self, subscribers: Sequence[Subscriber], now_ms: float, wall_ms: int) -> Iterator[Rebirth]:
        """Ask those that are wanted and listen; each that was asked, for the log."""
        listening = {node: subscriber.deliver for subscriber in subscribers for node in subscriber.edge_nodes}
        return self.ask_by(listening.get, now_ms, wall_ms)

    def ask_by(self, way: Callable[[EdgeNode], Deliver | None], now_ms: float, wall_ms: int) -> Iterator[Rebirth]:
        """Likewise; `way` leads to an edge node, or None when nothing does."""
        for one in every_rebirth_wanted():
            for each in Rebirths._all:
                each._want(one)
        self._asked_ms = {node: at_ms for node, at_ms in self._asked_ms.items() if now_ms - at_ms < ASK_EVERY_MS}
        for node, reason in list(self._wanted.items()):
            deliver = way(node)
            if deliver is None:
                del self._wanted[node]  # one that comes later begins with its birth
            elif node not in self._asked_ms:
                del self._wanted[node]
                self._asked_ms[node] = now_ms
                deliver(*rebirth_request(*node, wall_ms))
                self.asked += 1
                yield Rebirth(*node, reason)

    def _want(self, one: Rebirth) -> None:
        if len(self._wanted) < WANTED_MAX:
            self._wanted.setdefault((one.group, one.node), one.reason)
