"""A Sparkplug edge node on paho: it subscribes to its commands, and says its births again when it is asked.

Connected to the node itself, and to a Mosquitto that the node reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices.decoders.sparkplug_payload import BOOLEAN, parse_payload
from devices.protobuf import field
from headwater.app.control import read_status
from headwater.net import free_port
from tests.support import processes
from tests.support.brokers import Mosquitto
from tests.support.waiting import until

UINT32, UINT64 = 7, 8
COMMANDS = "spBv1.0/plant/NCMD/press"


def payload(seq: int | None, *metrics: bytes) -> bytes:
    """A Sparkplug B payload of now."""
    now_ms = int(time.time() * 1000)
    body = field(1, now_ms) + b"".join(field(2, metric) for metric in metrics)
    return body if seq is None else body + field(3, seq)


def metric(value: int, *, name: str = "", alias: int | None = None, datatype: int = UINT32) -> bytes:
    text = field(1, name.encode()) if name else b""
    return text + (field(2, alias) if alias is not None else b"") + field(4, datatype) + field(10, value)


class EdgeNode:
    """What Sparkplug 3.0 asks of an edge node: a will, commands, NBIRTH, numbered NDATA with aliases."""

    def __init__(self, port: int, *, version: int = 4, client_id: str = "press") -> None:
        self.seq = 0
        self.births = 0
        self.granted: list[list[int]] = []
        self.commands: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311,
            **({} if version == 5 else {"clean_session": True}),
        )
        self.client.will_set("spBv1.0/plant/NDEATH/press", payload(None, metric(0, name="bdSeq", datatype=UINT64)), 1)
        self.client.on_subscribe = self._subscribed
        self.client.on_message = self._commanded
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def subscribe(self, topic: str) -> list[int]:
        count = len(self.granted)
        self.client.subscribe(topic, 1)
        until(lambda: len(self.granted) > count)
        return self.granted[-1]

    def _subscribed(self, client: Any, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.granted.append([reason.value for reason in reasons])

    def _commanded(self, client: Any, data: Any, message: mqtt.MQTTMessage) -> None:
        self.commands.append((message.topic, message.payload))
        [command] = parse_payload(message.payload).metrics
        if (command.name, command.datatype, command.raw) == ("Node Control/Rebirth", BOOLEAN, 1):
            threading.Thread(target=self.birth).start()

    def birth(self) -> None:
        self.seq = 0
        said = [metric(0, name="bdSeq", datatype=UINT64), metric(7, name="strokes", alias=3)]
        self.client.publish("spBv1.0/plant/NBIRTH/press", payload(0, *said), 1).wait_for_publish(10)
        self.births += 1

    def data(self, value: int, *, skip: int = 0) -> None:
        self.seq = (self.seq + 1 + skip) % 256
        sent = self.client.publish("spBv1.0/plant/NDATA/press", payload(self.seq, metric(value, alias=3)), 1)
        sent.wait_for_publish(10)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A node that reads Sparkplug."""
    port = free_port()
    config = tmp_path / "headwater.toml"
    config.write_text(
        f'node = "edge-1"\nprofiles = ["sparkplug"]\n[mqtt]\nlisten = "127.0.0.1:{port}"\n'
        f'[kafka]\nlisten = "127.0.0.1:{free_port()}"\n'
    )
    with processes.node(config, tmp_path / "data"):
        yield port


def ingest(folder: Path) -> dict[str, Any]:
    status = read_status(str(folder / "data"))
    assert status is not None
    found: dict[str, Any] = status["ingest"]
    return found


@pytest.mark.parametrize("version", [4, 5])
def test_a_node_is_asked_for_its_births_when_its_data_cannot_be_read(version: int, port: int, tmp_path: Path) -> None:
    node = EdgeNode(port, version=version)
    assert node.subscribe(COMMANDS) == [0]
    node.data(1)  # the gateway is new, and has heard no birth
    until(lambda: node.births == 1)
    assert [topic for topic, _ in node.commands] == [COMMANDS]
    node.data(8)
    until(lambda: ingest(tmp_path)["stored"] >= 3)  # online, strokes of the birth, and 8
    assert ingest(tmp_path)["dead_letters"] == 1
    assert ingest(tmp_path)["rebirths_asked"] == 1
    node.data(9, skip=2)  # messages are missing: it is read all the same, and asked again, but not at once
    node.data(10, skip=2)
    until(lambda: ingest(tmp_path)["stored"] >= 7)
    assert ingest(tmp_path)["rebirths_asked"] == 1
    assert ingest(tmp_path)["dead_letters"] == 1
    node.stop()


def test_only_a_node_s_own_commands_may_be_subscribed_to(port: int, tmp_path: Path) -> None:
    node = EdgeNode(port)
    refused = 0x80
    assert node.subscribe("spBv1.0/plant/DCMD/press/#") == [0]
    for topic in (
        "spBv1.0/plant/NDATA/press",
        "spBv1.0/+/NCMD/press",
        "spBv1.0/plant/NCMD/#",
        "spBv1.0/STATE/host",
        "#",
    ):
        assert node.subscribe(topic) == [refused], topic
    problem = next(one["problem"] for one in ingest(tmp_path)["sources"] if one["id"] == "mqtt:press")
    assert "it subscribes" in problem
    node.stop()


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("version", ["5", pytest.param("3.1.1", marks=pytest.mark.long("brokers"))])
def test_a_node_behind_a_broker_is_asked_through_it(version: str, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        config = tmp_path / "headwater.toml"
        config.write_text(
            f'node = "edge-1"\nprofiles = ["sparkplug"]\n[kafka]\nlisten = "127.0.0.1:{free_port()}"\n'
            f'[[mqtt_client]]\nname = "hall"\naddress = "{broker.address}"\nversion = "{version}"\n'
            'topics = ["spBv1.0/#"]\n'  # as wide as people write it: the request itself comes back
        )
        with processes.node(config, tmp_path / "data"):
            until(lambda: brokers(tmp_path)["connected"])
            node = EdgeNode(broker.port)
            assert node.subscribe(COMMANDS) == [1]
            node.data(1)
            until(lambda: node.births == 1)
            assert [topic for topic, _ in node.commands] == [COMMANDS]
            node.data(8)
            until(lambda: ingest(tmp_path)["stored"] >= 3)
            node.data(9, skip=2)  # asked again, but not at once
            node.data(10, skip=2)
            until(lambda: ingest(tmp_path)["stored"] >= 7)
            assert brokers(tmp_path)["rebirths_asked"] == len(node.commands) == 1
            assert ingest(tmp_path)["dead_letters"] == 1  # the first data, and not the request
            node.stop()


def brokers(folder: Path) -> dict[str, Any]:
    status = read_status(str(folder / "data"))
    assert status is not None
    [found] = status["brokers"]
    return dict(found)
