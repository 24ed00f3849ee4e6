"""Foreign MQTT clients on a real socket: Mosquitto's and paho, with and without a session, and a link that breaks."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from devices.profile_files import read_profiles
from gateway.ingest.mqtt.connection import Connection
from gateway.ingest.mqtt.settings import MqttSettings
from tests.support import peers
from tests.support.mqtt_node import ThreadedNode, running

SECONDS = 15


def mosquitto_pub(node: ThreadedNode, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = peers.program("mosquitto_pub")
    assert program is not None
    command = [program, "-h", "127.0.0.1", "-p", str(node.port), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, check=False)


def wait(node: ThreadedNode, condition: Callable[[], bool]) -> None:
    """QoS 0 has no acknowledgement to wait for: look until it is there."""
    pause = threading.Event()
    for _ in range(SECONDS * 50):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(node.status())


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_pub_at_every_quality(tmp_path: Path, qos: str) -> None:
    with running(tmp_path) as node:
        done = mosquitto_pub(node, "-q", qos, "-t", "shed/pump1/temperature", "-m", "21.5")
        assert (done.returncode, done.stderr) == (0, b"")
        wait(node, lambda: len(node.readings()) == 1)
        [record] = node.readings()
        assert (record.key, record.value) == ("edge/shed/pump1/temperature", {"value": 21.5})
        assert node.status()["sources"][0]["problem"] is None


@pytest.mark.peer("mosquitto")
def test_mosquitto_pub_sends_a_thousand_lines_in_a_session(tmp_path: Path) -> None:
    lines = b"".join(b'{"ts":%d,"seq":%d,"power":7.5}\n' % (1_700_000_000_000 + n, n) for n in range(1_000))
    with running(tmp_path, read_profiles(["wind-turbine"])) as node:
        topic = "farm/t1/telemetry"
        done = mosquitto_pub(node, "-q", "1", "-c", "-i", "t1", "-t", topic, "-l", stdin=lines)
        assert (done.returncode, done.stderr) == (0, b"")
        assert [record.value["seq"] for record in node.readings()] == list(range(1_000))
        again = mosquitto_pub(node, "-q", "1", "-c", "-i", "t1", "-t", topic, "-m", lines.splitlines()[999].decode())
        assert again.returncode == 0
        assert node.status()["repeats_natural_key"] == 1


@pytest.mark.peer("mosquitto")
def test_mosquitto_sub_is_refused_and_ends(tmp_path: Path) -> None:
    program = peers.program("mosquitto_sub")
    assert program is not None
    with running(tmp_path) as node:
        command = [program, "-h", "127.0.0.1", "-p", str(node.port), "-t", "#"]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert b"denied" in done.stderr


@pytest.mark.peer("mosquitto")
def test_an_oversized_message_closes_its_connection_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path, settings=MqttSettings(listen="127.0.0.1:0", packet_bytes_max=1_000)) as node:
        done = mosquitto_pub(node, "-q", "1", "-t", "a", "-m", "x" * 2_000)
        assert done.returncode != 0
        assert mosquitto_pub(node, "-q", "1", "-t", "a", "-m", "1").returncode == 0
        assert [record.value for record in node.readings()] == [{"value": 1}]


class Paho:
    """A paho client with its own network thread."""

    def __init__(self, port: int, client_id: str) -> None:
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=paho.MQTTv311
        )
        self.sessions: list[bool] = []
        self.connected = threading.Event()
        self.client.on_connect = self._on_connect
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.connected.wait(SECONDS)

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.sessions.append(flags.session_present)
        self.connected.set()

    def publish(self, payload: bytes, qos: int = 1) -> Any:
        return self.client.publish("pump", payload, qos=qos)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("qos", [1, 2])
def test_paho_sends_again_what_was_stored_but_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    cut: list[str] = []
    flush = Connection.flush

    def break_before_the_first_acknowledgement(connection: Connection) -> None:
        if not cut and connection._settled and connection._transport is not None:
            cut.append(connection.name)
            connection._transport.abort()
        else:
            flush(connection)

    monkeypatch.setattr(Connection, "flush", break_before_the_first_acknowledgement)
    with running(tmp_path) as node:
        client = Paho(node.port, "paho-1")
        first = client.publish(b"21.5", qos)
        first.wait_for_publish(SECONDS)
        assert first.is_published()
        second = client.publish(b"21.5", qos)  # the same again is a new message
        second.wait_for_publish(SECONDS)
        client.close()
        assert cut
        assert client.sessions == [False, True]
        assert [record.value for record in node.readings()] == [{"value": 21.5}] * 2
        assert node.status()["repeats_dup"] == 1


def test_paho_finds_its_session_after_the_node_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        # the node dies with a reading on disk and its PUBACK unwritten
        patched.setattr(Connection, "flush", lambda connection: None)
        with running(tmp_path) as node:
            client = Paho(node.port, "paho-1")
            first = client.publish(b"21.5")
            wait(node, lambda: len(node.readings()) == 1)
            port = node.port
    with running(tmp_path, settings=MqttSettings(listen=f"127.0.0.1:{port}")) as node:
        first.wait_for_publish(SECONDS)
        assert first.is_published()
        client.close()
        assert client.sessions == [False, True]
        assert [record.value for record in node.readings()] == [{"value": 21.5}]
        assert node.status()["repeats_dup"] == 1
