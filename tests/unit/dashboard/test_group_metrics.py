"""`/metrics` of a member of a group: a node's names for what the two have in common."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.app.metrics_server import MetricsServer
from headwater.dashboard.group_metrics import group_registry
from headwater.errors import UserError
from processors.group.core import Member
from processors.processor import PartitionProcessor
from processors.rules.model import Rules
from tests.support import river
from tests.support.river import Row, health

MEMORY = {"bytes_max": 1000, "rules": {"w": 280}, "devices": 2, "full": 0}
USER = {"state": "paused", "problem": "x", "readings": 7, "outputs": 3, "failed": 2, "killed": 1, "state_bytes": 99}


def status() -> dict[str, Any]:
    rules = river.processor()
    rules.process(river.block([Row("a", 1, {"x": 1}), Row("b", 1, {"x": 1}), health(10_000), Row("a", 2, {"x": 1})]))
    processors: dict[str, Any] = {"state": "up", "memory": MEMORY, "transactions": 5, "rebalances": 1, "restarts": 0}
    processors |= {**rules.counters(), "lag_records": 12, "lag_by_partition": {"readings/0": 12, "readings/3": 0}}
    processors |= {"too_late_by_rule": {"w": {"readings": 4, "devices": {}}}}
    return {"instance": "a", "version": "1", "processors": processors, "user_processors": {"pump": USER}}


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", 0, group_registry(status))
    yield server
    server.close()


def get(server: MetricsServer, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_member_tells_lag_readings_windows_late_dead_letters_and_memory(server: MetricsServer) -> None:
    lines = get(server).splitlines()
    for wanted in (
        'headwater_info{node="a",version="1"} 1.0',
        "headwater_processors_up 1.0",
        "headwater_processors_lag_records 12.0",
        'headwater_processors_partition_lag_records{partition="0",topic="readings"} 12.0',
        'headwater_processors_partition_lag_records{partition="3",topic="readings"} 0.0',
        "headwater_processors_readings_total 4.0",
        "headwater_processors_windows_emitted_total 2.0",
        "headwater_processors_late_total 1.0",
        'headwater_processors_too_late_total{rule="w"} 4.0',
        'headwater_processor_state_bytes{rule="w"} 280.0',
        "headwater_processor_state_bytes_max 1000.0",
        'headwater_user_processor_failed_total{processor="pump"} 2.0',
        'headwater_user_processor_state_bytes{processor="pump"} 99.0',
        'headwater_user_processor_paused{processor="pump"} 1.0',
        "headwater_group_transactions_total 5.0",
    ):
        assert wanted in lines, wanted


def test_other_paths_are_not_found_and_a_client_that_goes_away_stops_nothing(server: MetricsServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/")
    for half in (b"", b"GET /metr", b"\0\xff\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(half)
    assert "headwater_processors_up 1.0" in get(server)


def test_a_port_that_somebody_has_is_named(server: MetricsServer) -> None:
    with pytest.raises(UserError, match=rf"metrics cannot be served on 127.0.0.1:{server.port}"):
        MetricsServer("127.0.0.1", server.port, group_registry(status))


def test_only_users_processors_and_a_member_that_is_not_up_yet() -> None:
    empty = {"instance": "a", "version": "1", "user_processors": {}}
    for processors in (None, {"state": "connecting"}):
        server = MetricsServer("127.0.0.1", 0, group_registry(lambda told=processors: {**empty, "processors": told}))  # type: ignore[misc]
        try:
            assert ("headwater_processors_up 0.0" in get(server)) is (processors is not None)
        finally:
            server.close()


def test_readings_are_counted_once_and_over_restarts() -> None:
    member = Member(Rules(windows=(river.window(),)), place="central")
    member.begin(("readings", 0), None, partitions=1, committed=None, start=0)
    member.process(river.block([Row("a", 1, {"x": 1}), Row("a", 2, {"x": 1})]))
    assert member.status()["readings"] == 2
    one = river.processor()
    one.process(river.block([Row("a", 1, {"x": 1}), health(1)]))
    other: PartitionProcessor = river.processor()
    other.restore(one.snapshot())
    assert other.counters()["readings"] == 2
