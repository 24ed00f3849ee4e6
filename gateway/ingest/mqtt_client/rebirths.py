"""Sparkplug edge nodes behind a broker: asked for their births through it. Sans-IO.

Asked is a node whose births would come back by a filter that the broker grants, as Sparkplug 3.0 (section 6.4.21) has a
host ask. A filter as wide as `spBv1.0/#` brings the request itself back; it is nobody's reading, and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from devices.decoders.sparkplug import Rebirth
from gateway.ingest.messages import Messages
from gateway.ingest.mqtt.access import Rights
from gateway.ingest.mqtt.sparkplug import WANTED_MAX, EdgeNode, Rebirths, own_topic
from gateway.ingest.mqtt_client.settings import SHARE

Publish = Callable[[str, bytes], None]


class BrokerRebirths:
    """Which edge nodes of one broker are asked, and what was sent for it."""

    def __init__(self) -> None:
        self._rebirths = Rebirths()
        self._sent: dict[str, bytes] = {}

    @property
    def asked(self) -> int:
        """How many requests were sent."""
        return self._rebirths.asked

    def ask(self, granted: Collection[str], publish: Publish, now_ms: float, wall_ms: int) -> Iterator[Rebirth]:
        """Ask those that are wanted and heard through the filters `granted`; each that was asked, for the log."""
        rights = Rights([_plain(name) for name in granted])

        def send(topic: str, payload: bytes) -> None:
            if rights.allows(topic):
                if len(self._sent) >= WANTED_MAX:
                    self._sent.clear()
                self._sent[topic] = payload
            publish(topic, payload)

        def way(node: EdgeNode) -> Publish | None:
            return send if rights.allows(own_topic(node)) else None

        return self._rebirths.ask_by(way, now_ms, wall_ms)

    def without_own(self, messages: Messages) -> Messages:
        """Messages but for this client's own requests."""
        sent = self._sent
        return messages.where(lambda one: sent.get(one[0]) != one[1]) if sent else messages


def _plain(name: str) -> str:
    """A topic filter without its `$share/GROUP/`."""
    return name.split("/", 2)[2] if name.startswith(SHARE) else name
