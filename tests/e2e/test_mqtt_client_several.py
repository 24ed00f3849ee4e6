"""A node that reads two Mosquittos: one is killed and comes back while the other goes on, and each loses nothing."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker_gateway import PATIENCE_S, Gateway
from tests.support.brokers import Mosquitto

pytestmark = pytest.mark.peer("mosquitto")


def broker_of(status: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [row for row in status["brokers"] if row["name"] == name]
    return dict(found)


def numbers(start: int, end: int) -> list[str]:
    return [str(each) for each in range(start, end)]


def test_a_broker_that_is_killed_stops_no_other_and_loses_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "yard") as yard, Mosquitto(tmp_path / "hall") as hall:
        gateway = Gateway(tmp_path, hall.address, more={"yard": yard.address})
        try:
            gateway.start()
            for broker in (hall, yard):
                broker.publish("site/first", ["0"])
            settled = gateway.until(
                lambda status: status["ingest"]["stored"] >= 2 and not any(row["inflight"] for row in status["brokers"])
            )
            assert [row["name"] for row in settled["brokers"]] == ["hall", "yard"]
            hall.publish("site/pump", numbers(0, 1_000))
            gateway.until(lambda status: len(gateway.values()) >= 1_000 and not broker_of(status, "hall")["inflight"])
            # `mosquitto_pub -l` ends when the broker has acknowledged all
            going_on = threading.Thread(target=yard.publish, args=("site/pump", numbers(10_000, 13_000)))
            going_on.start()
            hall.stop(signal.SIGKILL)
            gateway.until(lambda status: not broker_of(status, "hall")["connected"])
            yard.publish("site/pump", numbers(20_000, 20_100))  # while the other is away
            without = gateway.until(lambda status: {*range(20_000, 20_100)} <= {*gateway.values()})
            assert (broker_of(without, "hall")["connected"], broker_of(without, "yard")["connected"]) == (False, True)
            assert broker_of(without, "hall")["problem"]
            assert not broker_of(without, "yard")["problem"]
            hall.start()
            gateway.until(lambda status: broker_of(status, "hall")["connected"])
            hall.publish("site/pump", numbers(1_000, 1_500))
            going_on.join(PATIENCE_S)
            assert not going_on.is_alive()
            wanted = {*range(1_500), *range(10_000, 13_000), *range(20_000, 20_100)}
            status = gateway.until(
                lambda status: {*gateway.values()} >= wanted and not any(row["inflight"] for row in status["brokers"])
            )
            assert sorted(gateway.values()) == sorted(wanted)
            assert broker_of(status, "yard")["connects"] == 1
            assert broker_of(status, "hall")["connects"] == 2
            assert gateway.end(signal.SIGTERM) == 0
        finally:
            gateway.close()
