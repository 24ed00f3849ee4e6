"""Foreign MQTT 5 clients on a real socket: Mosquitto's, paho and aiomqtt, with what version 5 adds."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.ingest.mqtt.connection import Connection
from gateway.ingest.mqtt.settings import AclRule, MqttSettings
from gateway.users import add_user
from tests.support import peers
from tests.support.mqtt_node import ThreadedNode, running

SECONDS = 15
FREE = "127.0.0.1:0"


def mosquitto_pub(node: ThreadedNode, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = peers.program("mosquitto_pub")
    assert program is not None
    version = [] if "-V" in arguments else ["-V", "5"]
    command = [program, *version, "-h", "127.0.0.1", "-p", str(node.port), *arguments]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)


def wait(node: ThreadedNode, condition: Callable[[], bool]) -> None:
    """What is awaited has no acknowledgement: look until it is there."""
    pause = threading.Event()
    for _ in range(SECONDS * 50):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(node.status())


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("qos", ["1", "2"])
def test_mosquitto_pub_with_properties(tmp_path: Path, qos: str) -> None:
    properties = [
        *("-D", "connect", "receive-maximum", "5"),
        *("-D", "connect", "user-property", "site", "shed"),
        *("-D", "publish", "user-property", "unit", "C"),
        *("-D", "publish", "user-property", "unit", "K"),
        *("-D", "publish", "content-type", "text/plain"),
        *("-D", "publish", "payload-format-indicator", "1"),
        *("-D", "publish", "message-expiry-interval", "3600"),
        *("-D", "publish", "response-topic", "answers"),
        *("-D", "publish", "correlation-data", "xyz"),
        *("-D", "disconnect", "session-expiry-interval", "30"),
    ]
    with running(tmp_path) as node:
        done = mosquitto_pub(node, "-i", "m5", "-c", "-q", qos, "-r", "-t", "shed/pump1", "-m", "21.5", *properties)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        [record] = node.readings()
        assert (record.key, record.value) == ("edge/shed/pump1", {"value": 21.5})
        assert node.status()["retained"] == 1
        assert node.status()["sessions"] == 1


@pytest.mark.peer("mosquitto")
def test_mosquitto_pub_is_told_reasons(tmp_path: Path) -> None:
    with running(tmp_path, settings=MqttSettings(listen=FREE, packet_bytes_max=1_000)) as node:
        # it keeps to the maximum packet size that CONNACK names, and does not even send
        mosquitto_pub(node, "-q", "1", "-t", "a", "-m", "x" * 2_000)
        assert node.status()["refused"] == 0
        done = mosquitto_pub(node, "-q", "1", "-t", "$gateway", "-m", "1")
        assert b"Topic Name invalid" in done.stderr
        assert node.readings() == []
        assert node.status()["refused_messages"] == 1


@pytest.mark.peer("mosquitto")
def test_mosquitto_sub_is_told_that_it_may_not(tmp_path: Path) -> None:
    program = peers.program("mosquitto_sub")
    assert program is not None
    with running(tmp_path) as node:
        command = [program, "-V", "5", "-h", "127.0.0.1", "-p", str(node.port), "-t", "a/#"]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        assert b"denied" in done.stderr


class Paho:
    """A paho client that speaks 5, with its own network thread."""

    def __init__(self, port: int, client_id: str, *, expiry_s: int = 0, properties: Properties | None = None) -> None:
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self.sessions: list[bool] = []
        self.connacks: list[Any] = []
        self.reasons: list[Any] = []
        self.connected, self.ended = threading.Event(), threading.Event()
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.reconnect_delay_set(1, 1)
        if properties is None:
            properties = Properties(PacketTypes.CONNECT)
        if expiry_s:
            properties.SessionExpiryInterval = expiry_s
        self.client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self.client.loop_start()
        assert self.connected.wait(SECONDS)

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.sessions.append(flags.session_present)
        self.connacks.append(properties)
        self.connected.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.reasons.append((reason.value, getattr(properties, "ReasonString", "")))
        self.ended.set()

    def close(self, reason: int = 0) -> None:
        self.client.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, identifier=reason))
        self.ended.wait(SECONDS)
        self.client.loop_stop()


def test_paho_reads_the_limits_and_its_new_name(tmp_path: Path) -> None:
    with running(tmp_path, settings=MqttSettings(listen=FREE, inflight_max=20, topic_aliases_max=3)) as node:
        client = Paho(node.port, "")
        [told] = client.connacks
        assert (told.ReceiveMaximum, told.TopicAliasMaximum, told.MaximumPacketSize) == (20, 3, 262_144)
        assert told.RetainAvailable == 1
        assert told.SharedSubscriptionAvailable == told.SubscriptionIdentifierAvailable == 0
        assert told.AssignedClientIdentifier.startswith("anonymous-")
        # paho keeps 20 messages on the way whatever CONNACK says: as many as this listener takes
        sent = [client.client.publish("pump", str(number), qos=1 + number % 2) for number in range(100)]
        for each in sent:
            each.wait_for_publish(SECONDS)
            assert each.is_published()
        client.close()
        assert sorted(record.value["value"] for record in node.readings()) == list(range(100))


def test_paho_overruns_a_smaller_receive_maximum_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "flush", lambda connection: None)  # acknowledgements that are slow to come
    with running(tmp_path, settings=MqttSettings(listen=FREE, inflight_max=5)) as node:
        client = Paho(node.port, "p")
        for number in range(20):
            client.client.publish("pump", str(number), qos=1)
        assert client.ended.wait(SECONDS)
        client.client.loop_stop()
        assert client.reasons[0][0] == 0x93


def test_paho_sends_by_alias(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        client = Paho(node.port, "alias")
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 1
        client.client.publish("farm/t1/telemetry", "1", qos=1, properties=alias).wait_for_publish(SECONDS)
        client.client.publish("", "2", qos=1, properties=alias).wait_for_publish(SECONDS)
        alias.TopicAlias = 999
        client.client.publish("", "3", qos=1, properties=alias)
        assert client.ended.wait(SECONDS)
        client.client.loop_stop()
        assert client.reasons[0][0] == 0x94
        assert "topic alias 999" in client.reasons[0][1]
        assert [(each.key, each.value["value"]) for each in node.readings()] == [
            ("edge/farm/t1/telemetry", 1),
            ("edge/farm/t1/telemetry", 2),
        ]


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
        client = Paho(node.port, "paho-5", expiry_s=60)
        sent = client.client.publish("pump", "21.5", qos=qos)
        sent.wait_for_publish(SECONDS)
        assert sent.is_published()
        client.close()
        assert cut
        assert client.sessions == [False, True]
        assert [record.value for record in node.readings()] == [{"value": 21.5}]
        assert node.status()["repeats_dup"] == 1


def test_a_paho_session_without_expiry_ends_with_its_connection(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        for expiry_s, present in ((0, False), (60, False), (60, True), (0, True), (0, False)):
            client = Paho(node.port, "paho-5", expiry_s=expiry_s)
            client.close()
            assert client.sessions == [present], expiry_s


def test_aiomqtt_publishes_and_its_takeover_is_told(tmp_path: Path) -> None:
    async def test(node: ThreadedNode) -> None:
        def client() -> aiomqtt.Client:
            return aiomqtt.Client("127.0.0.1", node.port, identifier="aio", protocol=aiomqtt.ProtocolVersion.V5)

        async with asyncio.timeout(SECONDS):
            async with client() as first:
                properties = Properties(PacketTypes.PUBLISH)
                properties.UserProperty = [("unit", "C")]
                for qos in (0, 1, 2):
                    await first.publish("pump", f"{qos}", qos=qos, properties=properties)
            async with client() as old, client():
                with pytest.raises(aiomqtt.MqttError):
                    await anext(aiter(old.messages))

    with running(tmp_path) as node:
        asyncio.run(test(node))
        assert sorted(record.value["value"] for record in node.readings()) == [0, 1, 2]


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("version", ["5", "311"])
def test_mosquitto_pub_signs_in(tmp_path: Path, version: str) -> None:
    add_user(str(tmp_path / "node" / "users"), "pump", b"secret", frozenset({"mqtt"}))
    acl = (AclRule(publish=("shed/%u/#",)),)
    with running(tmp_path, settings=MqttSettings(listen=FREE, acl=acl)) as node:
        more = ["-V", version, "-q", "1", "-m", "21.5"]
        assert mosquitto_pub(node, *more, "-t", "shed/pump/t", "-u", "pump", "-P", "secret").returncode == 0
        wrong = mosquitto_pub(node, *more, "-t", "shed/pump/t", "-u", "pump", "-P", "wrong")
        assert wrong.returncode != 0
        assert b"user name or password" in wrong.stderr.lower()
        assert b"ot authori" in mosquitto_pub(node, *more, "-t", "shed/pump/t").stderr
        elsewhere = mosquitto_pub(node, *more, "-t", "shed/other/t", "-u", "pump", "-P", "secret")
        if version == "5":
            assert b"Not authorized" in elsewhere.stderr
            assert node.status()["refused_messages"] == 1
        assert [record.key for record in node.readings()] == ["edge/shed/pump/t"]


@pytest.mark.peer("mosquitto")
@pytest.mark.parametrize("version", ["5", "311"])
def test_a_mosquitto_client_that_dies_leaves_its_will(tmp_path: Path, version: str) -> None:
    program = peers.program("mosquitto_pub")
    assert program is not None
    with running(tmp_path) as node:
        command = [program, "-V", version, "-h", "127.0.0.1", "-p", str(node.port), "-i", "m", "-l", "-t", "shed/t"]
        command += ["--will-topic", "shed/status", "--will-payload", '"offline"', "--will-qos", "1"]
        client = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(b"21.5\n")
        client.stdin.flush()
        wait(node, lambda: len(node.readings()) == 1)
        client.kill()
        client.wait(SECONDS)
        client.stdin.close()
        wait(node, lambda: len(node.readings()) == 2)
        assert (node.readings()[1].key, node.readings()[1].value) == ("edge/shed/status", {"value": "offline"})
