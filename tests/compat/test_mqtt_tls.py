"""MQTT over TLS with foreign clients: Mosquitto's and paho, with passwords and with client certificates."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from gateway import users
from gateway.ingest.mqtt import listener
from gateway.ingest.mqtt.settings import AclRule, MqttSettings, MqttTlsSettings
from gateway.users import add_user
from tests.support import peers
from tests.support.certificates import Authority, Certificate
from tests.support.mqtt_node import ThreadedNode, running
from tests.support.waiting import until

PASSWORD = "wonderland"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_N", 4)
    monkeypatch.setattr(listener, "SWEEP_S", 0.02)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def settings(server: Certificate, *, client_ca_file: str = "", **more: Any) -> MqttSettings:
    tls = MqttTlsSettings(
        listen="127.0.0.1:0",
        certificate_file=str(server.certificate),
        key_file=str(server.key),
        client_ca_file=client_ca_file,
    )
    return MqttSettings(listen="127.0.0.1:0", tls=tls, **more)


def tls_port(node: ThreadedNode) -> int:
    door = node.node.listener.tls
    assert door is not None
    assert door.address is not None, door.problem
    return door.address[1]


def publish(node: ThreadedNode, authority: Authority, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = peers.program("mosquitto_pub")
    assert program is not None
    fixed = [program, "-h", "localhost", "-p", str(tls_port(node)), "--cafile", str(authority.file), "-q", "1"]
    return subprocess.run([*fixed, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.peer("mosquitto")
def test_mosquitto_pub_with_a_password_inside_tls(tmp_path: Path, authority: Authority) -> None:
    add_user(str(tmp_path / "node" / "users"), "alice", PASSWORD.encode(), frozenset({"mqtt"}))
    with running(tmp_path, settings=settings(authority.sign("node"))) as node:
        said = ("-t", "shed/a", "-m", "1", "-u", "alice", "-P")
        assert publish(node, authority, *said, PASSWORD).returncode == 0
        assert publish(node, authority, *said, "wrong").returncode != 0
        stranger = Authority(tmp_path / "tls", "other-ca")
        assert publish(node, stranger, *said, PASSWORD).returncode != 0
        assert len(node.readings()) == 1
        mqtt = node.status()
        assert mqtt["tls_handshakes_failed"] >= 1
        assert mqtt["tls_open"]


@pytest.mark.peer("mosquitto")
def test_a_certificate_is_its_clients_user(tmp_path: Path, authority: Authority) -> None:
    mine = authority.sign("pump-7", names="")
    strange = Authority(tmp_path / "tls", "other-ca").sign("pump-8", names="")
    unfit = authority.sign("unfit", "/CN=a#b", names="")
    rule = AclRule(publish=("%u/#",))
    both = settings(authority.sign("node"), client_ca_file=str(authority.file), acl=(rule,))

    def showing(one: Certificate, topic: str) -> subprocess.CompletedProcess[str]:
        files = ("--cert", one.certificate, "--key", one.key)
        return publish(node, authority, *files, "-t", topic, "-m", "1", "-V", "5")

    with running(tmp_path / "data", settings=both) as node:
        assert showing(mine, "pump-7/level").returncode == 0
        refused = showing(mine, "pump-8/level")  # MQTT 5 tells it with the PUBACK
        assert "not authorized" in (refused.stdout + refused.stderr).lower()
        assert showing(strange, "pump-8/level").returncode != 0
        assert showing(unfit, "a/level").returncode != 0
        assert publish(node, authority, "-t", "x", "-m", "1").returncode != 0  # no certificate
        assert len(node.readings()) == 1


def test_paho_and_a_listener_that_comes_back_with_its_certificate(tmp_path: Path, authority: Authority) -> None:
    server = authority.sign("shortly")
    add_user(str(tmp_path / "node" / "users"), "alice", PASSWORD.encode(), frozenset({"mqtt"}))
    with running(tmp_path, settings=settings(server)) as node:
        port, door = tls_port(node), node.node.listener.tls
        assert door is not None
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
        client.tls_set(str(authority.file))
        client.username_pw_set("alice", PASSWORD)
        client.connect("localhost", port)
        client.loop_start()
        client.publish("shed/a", "1", 1).wait_for_publish(10)
        whole = server.certificate.read_bytes()
        server.certificate.write_bytes(whole[:100])
        until(lambda: door.problem is not None)
        with pytest.raises(OSError, match="refused"):
            paho.Client(paho.CallbackAPIVersion.VERSION2, "d").connect("localhost", port)
        client.publish("shed/a", "2", 1).wait_for_publish(10)  # who is in stays in
        server.certificate.write_bytes(whole)
        until(lambda: door.problem is None)
        client.disconnect()
        client.loop_stop()
        assert tls_port(node) == port
        assert len(node.readings()) == 2
