"""Which broker is asked first after the one that was asked has failed."""

from __future__ import annotations

from gateway.log.records import Compression
from gateway.replicate.actions import Send
from gateway.replicate.gather import Producer
from gateway.replicate.requests import Body
from gateway.replicate.search import Search
from gateway.replicate.settings import UplinkSettings

Address = tuple[str, int]


def asked(search: Search) -> Address:
    search.from_discovery()
    action = search.ask(0.0, Producer(-1, -1, Compression.NONE), None)
    assert isinstance(action, Send)
    return action.requests[0].address


def turns(search: Search, count: int) -> list[Address]:
    found = []
    for _ in range(count):
        found.append(asked(search))
        search.rotate()
    return found


def metadata(*brokers: Address) -> tuple[Body, ...]:
    """An answer of a cluster that has no topics yet."""
    nodes = [{"node_id": number, "host": host, "port": port} for number, (host, port) in enumerate(brokers)]
    topics: list[Body] = [
        {"error_code": 3, "name": name, "topic_id": bytes(16), "partitions": []}
        for name in ("readings", "headwater.progress")
    ]
    return ({"brokers": nodes, "cluster_id": "c", "controller_id": 0, "topics": topics},)


def test_the_configured_ones_in_turn() -> None:
    search = Search("n", UplinkSettings(bootstrap_servers="a:1,b:2"))
    assert turns(search, 4) == [("a", 1), ("b", 2), ("a", 1), ("b", 2)]
    assert turns(Search("n", UplinkSettings(bootstrap_servers="a:1")), 2) == [("a", 1), ("a", 1)]


def test_brokers_that_the_cluster_named_are_asked_when_the_configured_one_is_gone() -> None:
    search = Search("n", UplinkSettings(bootstrap_servers="a:1"))
    assert asked(search) == ("a", 1)
    search.heard(metadata(("a", 1), ("b", 2), ("c", 3)), 0.0, Producer(-1, -1, Compression.NONE))
    search.rotate()
    assert turns(search, 4) == [("b", 2), ("c", 3), ("a", 1), ("b", 2)]


def test_one_that_has_left_the_cluster_is_not_asked_any_more() -> None:
    search = Search("n", UplinkSettings(bootstrap_servers="a:1"))
    asked(search)
    search.heard(metadata(("a", 1), ("b", 2)), 0.0, Producer(-1, -1, Compression.NONE))
    search.rotate()
    assert asked(search) == ("b", 2)
    search.heard(metadata(("b", 2), ("c", 3)), 0.0, Producer(-1, -1, Compression.NONE))
    search.rotate()
    assert set(turns(search, 6)) == {("a", 1), ("b", 2), ("c", 3)}  # a configured one stays
    asked(search)
    search.heard(metadata(("c", 3)), 0.0, Producer(-1, -1, Compression.NONE))
    search.rotate()
    assert set(turns(search, 6)) == {("a", 1), ("c", 3)}
