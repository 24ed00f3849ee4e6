"""Who may subscribe to Sparkplug commands, and how often a node is asked for its births."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from devices.decoders.sparkplug import Rebirth
from gateway.ingest.messages import Messages
from gateway.ingest.mqtt.access import Rights
from gateway.ingest.mqtt.packets import Connect
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.sparkplug import ASK_EVERY_MS, EdgeNode, Rebirths, commanded
from gateway.ingest.mqtt.state import Exchange, TopicCache
from gateway.ingest.mqtt_client.rebirths import BrokerRebirths


@pytest.mark.parametrize(
    ("topic_filter", "node"),
    [
        ("spBv1.0/g/NCMD/n", ("g", "n")),
        ("spBv1.0/g/NCMD/n/#", ("g", "n")),
        ("spBv1.0/g/DCMD/n/+", ("g", "n")),
        ("spBv1.0/g/DCMD/n/d", ("g", "n")),
        ("spBv1.0/g/NCMD/+", None),
        ("spBv1.0/g/NCMD/#", None),
        ("spBv1.0/+/NCMD/n", None),
        ("spBv1.0/g/NDATA/n", None),
        ("spBv1.0/g/DCMD/n/d/e", None),
        ("$share/x/spBv1.0/g/NCMD/n", None),
    ],
)
def test_which_filters_are_a_node_s_commands(topic_filter: str, node: EdgeNode | None) -> None:
    assert commanded(topic_filter) == node


def exchange(connect: Connect, rights: Rights | None = None, session_expiry_s: int = 0) -> Exchange:
    x = Exchange(MqttSettings(), TopicCache())
    x.connect, x.rights, x.session_expiry_s = connect, rights, session_expiry_s
    return x


def test_a_node_that_is_another_client_s_or_in_a_session_that_stays_is_refused() -> None:
    own, other = "spBv1.0/g/NCMD/n", "spBv1.0/g/NCMD/other"
    rights = Rights(["spBv1.0/g/+/n/#"])
    x = exchange(Connect(4, "n"), rights)
    assert (x.subscribe(own), x.subscribe(other)) == (True, False)
    assert x.edge_nodes == [("g", "n")]
    assert not exchange(Connect(4, "n", clean=False), rights).subscribe(own)
    assert not exchange(Connect(5, "n"), rights, session_expiry_s=60).subscribe(own)
    assert (x.unsubscribe(own), x.unsubscribe(own), x.edge_nodes) == (True, False, [])


def test_one_connection_has_a_bounded_number_of_nodes() -> None:
    x = exchange(Connect(4, "gateway"))
    assert sum(x.subscribe(f"spBv1.0/g/NCMD/{number}") for number in range(150)) == 100


class Listening:
    def __init__(self, *nodes: EdgeNode) -> None:
        self.edge_nodes: Sequence[EdgeNode] = nodes
        self.topics: list[str] = []

    def deliver(self, topic: str, payload: bytes) -> None:
        self.topics.append(topic)


def test_a_node_is_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Rebirth] = []
    monkeypatch.setattr("gateway.ingest.mqtt.sparkplug.every_rebirth_wanted", lambda: [wanted.pop() for _ in wanted[:]])
    rebirths, node = Rebirths(), Listening(("g", "n"))

    def ask(now_ms: float) -> list[str]:
        return [one.reason for one in rebirths.ask([node], now_ms, 1_700_000_000_000)]

    wanted += [Rebirth("g", "n", "first"), Rebirth("g", "nobody", "it does not listen")]
    assert ask(0) == ["first"]
    assert node.topics == ["spBv1.0/g/NCMD/n"]
    wanted.append(Rebirth("g", "n", "second"))
    assert ask(1_000) == []
    assert ask(ASK_EVERY_MS) == ["second"]
    assert ask(3 * ASK_EVERY_MS) == []
    assert rebirths.asked == 2


def test_behind_a_broker_only_nodes_that_are_heard_through_it_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Rebirth] = []
    monkeypatch.setattr("gateway.ingest.mqtt.sparkplug.every_rebirth_wanted", lambda: [wanted.pop() for _ in wanted[:]])
    hall, yard, direct = BrokerRebirths(), BrokerRebirths(), Rebirths()
    sent: list[tuple[str, bytes]] = []

    def ask(broker: BrokerRebirths, granted: str, now_ms: float) -> list[Rebirth]:
        return list(
            broker.ask([granted], lambda topic, payload: sent.append((topic, payload)), now_ms, 1_700_000_000_000)
        )

    first = Rebirth("g", "n", "first")
    wanted.append(first)
    assert list(direct.ask([], 0, 1_700_000_000_000)) == []  # nobody listens at the node itself: the brokers hear of it
    assert ask(yard, "site/#", 0) == []
    assert ask(hall, "$share/x/spBv1.0/+/+/n/#", 0) == [first]
    assert (hall.asked, yard.asked, [topic for topic, _ in sent]) == (1, 0, ["spBv1.0/g/NCMD/n"])
    [(topic, payload)] = sent
    own, other = (topic, payload, 0, 0), (topic, b"of another host", 0, 0)
    assert list(hall.without_own(Messages([own, other]))) == [other]
    assert list(yard.without_own(Messages([own, other]))) == [own, other]
    wanted.append(first)
    assert ask(hall, "spBv1.0/g/NBIRTH/n", ASK_EVERY_MS - 1) == []
    assert ask(hall, "spBv1.0/g/NBIRTH/n", ASK_EVERY_MS) == [first]
