"""The uplink through TLS and SASL: to a real Kafka set up as IBM Event Streams is, and to a Headwater central."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from gateway import users
from gateway.wire.settings import KafkaAclRule, KafkaListenerSettings
from tests.support.certificates import Authority
from tests.support.peers import Kafka, kafka_tool
from tests.support.ports import neighbouring_ports
from tests.support.secure_node import secure_node
from tests.support.uplink_node import NODE, CentralNode, EdgeNode

API_KEY = "an API key"


class Secure:
    """Where the real broker is, and what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "tls")
        server = self.authority.sign("broker")
        self.client = self.authority.sign("edge", names="")
        plain = neighbouring_ports(4)  # the next one is its controller's
        self.sasl, self.mutual = plain + 2, plain + 3
        keys = folder / "broker.pem"
        keys.write_text(server.key.read_text() + server.certificate.read_text() + self.authority.file.read_text())
        doors = f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{self.sasl},SSL://127.0.0.1:{self.mutual}"
        module = "org.apache.kafka.common.security"
        lines = {
            "listeners": f"{doors},CONTROLLER://127.0.0.1:{plain + 1}",
            "advertised.listeners": doors,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keys),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{module}.plain.PlainLoginModule required user_token="{API_KEY}";'
            ),
        } | {
            f"listener.name.sasl_ssl.scram-sha-{bits}.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;"
            for bits in (256, 512)
        }
        properties = folder / "more.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        os.environ["KAFKA_PROPS"] = str(properties)
        try:
            self.broker = Kafka.start(folder / "kafka", plain)
        finally:
            del os.environ["KAFKA_PROPS"]
        for bits in (256, 512):
            credential = f"SCRAM-SHA-{bits}=[password={API_KEY}]"
            kafka_tool("configs", "--bootstrap-server", self.broker.bootstrap, "--alter", "--add-config", credential,
                       "--entity-type", "users", "--entity-name", "token")  # fmt: skip


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    made = Secure(tmp_path_factory.mktemp("secure"))
    yield made
    made.broker.stop()


def play(directory: Path, bootstrap: str, story: Callable[[EdgeNode], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        edge = EdgeNode(directory, bootstrap, **settings)
        try:
            await story(edge)
        finally:
            await edge.stop()

    asyncio.run(run())


def consumed(secure: Secure, topic: str) -> list[int]:
    """The readings' numbers as librdkafka reads them, read_committed, through the same door."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{secure.sasl}",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "token",
            "sasl.password": API_KEY,
            "ssl.ca.location": str(secure.authority.file),
            "group.id": "judge",
            "isolation.level": "read_committed",
        }
    )
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    found = []
    while messages := consumer.consume(10_000, 2.0):
        assert all(message.error() is None for message in messages)
        found += [msgspec.json.decode(message.value())["n"] for message in messages]
    consumer.close()
    return found


WAYS: dict[str, dict[str, str]] = {
    "event-streams": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"},
    "scram-256": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256"},
    "scram-512": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"},
    "certificate": {"security_protocol": "SSL"},
}


@pytest.mark.peer("kafka")
@pytest.mark.long("kafka-security")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_each_reading_once_through_a_secured_kafka(secure: Secure, tmp_path: Path, way: str) -> None:
    settings = WAYS[way] | {"tls_ca_file": str(secure.authority.file), "topic_prefix": f"{way}."}
    if way == "certificate":
        files = {"tls_certificate_file": str(secure.client.certificate), "tls_key_file": str(secure.client.key)}
        settings |= files
    else:
        settings |= {"sasl_username": "token", "sasl_password": API_KEY}
    random = Random(4)

    async def story(edge: EdgeNode) -> None:
        edge.ingest(100)
        await edge.drained()
        edge.net.fault = lambda number: random.random() < 0.04  # TLS: one lost piece ends the connection
        while edge.net.faults < 4 or edge.number < 1_000:
            edge.ingest(100)
            await asyncio.sleep(0.05)
        edge.net.fault = lambda number: False
        await edge.drained()

    port = secure.mutual if way == "certificate" else secure.sasl
    play(tmp_path, f"127.0.0.1:{port}", story, linger_ms=0, **settings)
    found = consumed(secure, f"{way}.readings")
    assert len(found) >= 1_000
    assert found == list(range(len(found)))


@pytest.mark.peer("kafka")
@pytest.mark.long("kafka-security")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sasl_password": "wrong"}, "does not let the user “token” in"),
        ({"tls_ca_file": ""}, "authority that we do not trust"),
        (
            {"security_protocol": "PLAINTEXT", "sasl_username": "", "sasl_password": "", "tls_ca_file": ""},
            "the broker speaks TLS there",
        ),
        ({"sasl_mechanism": "PLAIN", "tls_ca_file": "/nowhere.pem"}, "/nowhere.pem cannot be read"),
    ],
    ids=["password", "authority", "no TLS", "file"],
)
def test_a_real_brokers_refusal_is_told_in_words(
    secure: Secure, tmp_path: Path, changes: dict[str, str], text: str
) -> None:
    settings = WAYS["scram-256"] | {"sasl_username": "token", "sasl_password": API_KEY}
    settings |= {"tls_ca_file": str(secure.authority.file)} | changes
    if settings["security_protocol"] == "PLAINTEXT":
        del settings["sasl_mechanism"]

    async def story(edge: EdgeNode) -> None:
        edge.ingest(1)
        async with asyncio.timeout(10):
            while text not in edge.uplink.status()["error"]:  # noqa: ASYNC110 - the uplink has no event for it
                await asyncio.sleep(0.02)
        assert API_KEY not in str(edge.uplink.status())

    play(tmp_path, f"localhost:{secure.sasl}", story, **settings)


def test_an_edge_with_the_rights_of_the_manual_replicates_to_a_headwater_central(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule that docs/security.md gives for edges is enough, and lets one edge be no other."""
    monkeypatch.setattr(users, "_N", 4)
    authority = Authority(tmp_path / "tls")
    server, mine = authority.sign("central"), authority.sign(NODE, names="")

    async def scenario() -> None:
        door = KafkaListenerSettings(
            listen="127.0.0.1:0",
            protocol="SSL",
            certificate_file=str(server.certificate),
            key_file=str(server.key),
            client_ca_file=str(authority.file),
        )
        async with secure_node(tmp_path / "central", door, acl=EDGE_RULES, partitions={"readings": 4}) as central:
            edge = EdgeNode(
                tmp_path,
                f"localhost:{central.port()}",
                security_protocol="SSL",
                tls_ca_file=str(authority.file),
                tls_certificate_file=str(mine.certificate),
                tls_key_file=str(mine.key),
                linger_ms=0,
            )
            try:
                for _ in range(5):
                    edge.ingest(50)
                    await edge.drained(10)
            finally:
                await edge.stop()
            reader = CentralNode.__new__(CentralNode)
            reader.store = central.store
            assert reader.numbers() == list(range(250))

    asyncio.run(scenario())


EDGE_RULES = (
    KafkaAclRule(
        principals=("*",),
        allow=("read", "write", "create"),
        topics=("readings", "deadletter", "events", "devices", "headwater.progress"),
    ),
    KafkaAclRule(principals=("*",), allow=("write",), transactional_ids=("headwater.uplink.%u",)),
)
