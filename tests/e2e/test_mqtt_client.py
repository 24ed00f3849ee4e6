"""A node that reads Mosquitto: killed while messages stream, away while the broker holds them, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker_gateway import PATIENCE_S, Gateway
from tests.support.brokers import Mosquitto


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[tuple[Mosquitto, Gateway]]:
    with Mosquitto(tmp_path / "broker") as broker:
        gateway = Gateway(tmp_path, broker.address)
        try:
            yield broker, gateway
        finally:
            gateway.close()


@pytest.mark.peer("mosquitto")
def test_a_killed_gateway_loses_nothing_that_its_broker_holds(hall: tuple[Mosquitto, Gateway]) -> None:
    broker, gateway = hall
    gateway.start()
    # past identifier 1: were it sent again after a crash, it could be a new message of a broker that numbers anew
    broker.publish("site/first", ["0"])
    gateway.until(lambda status: status["ingest"]["stored"] and not status["brokers"][0]["inflight"])
    # `mosquitto_pub -l` ends when the broker has acknowledged all: those numbers are the ledger
    sending = threading.Thread(target=broker.publish, args=("site/pump", [str(each) for each in range(6_000)]))
    sending.start()
    gateway.until(lambda status: status["ingest"]["stored"] > 200)
    gateway.end(signal.SIGKILL)
    sending.join(PATIENCE_S)
    broker.publish("site/pump", [str(each) for each in range(6_000, 6_500)])
    resumed = gateway.start()
    assert resumed["brokers"][0]["session_present"]
    gateway.until(lambda status: len(gateway.values()) >= 6_500 and not status["brokers"][0]["inflight"])
    # Mosquitto keeps the packet identifiers of what it sends again, so each repeat is recognised
    assert sorted(gateway.values()) == list(range(6_500))
    assert gateway.end(signal.SIGTERM) == 0
    assert os.path.getsize(gateway.data / "node" / "brokers.json") > 0
