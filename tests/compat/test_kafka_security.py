"""Foreign Kafka clients against a node that asks who they are: SASL over TLS, client certificates, and its rules."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import users
from gateway.wire.settings import KafkaAclRule, KafkaListenerSettings
from tests.support.certificates import Authority, Certificate
from tests.support.peers import KAFKA_KIT, program
from tests.support.secure_node import PASSWORD, Background

# kafka-python's and aiokafka's own imports and threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ACL = (
    KafkaAclRule(principals=("token",), allow=("all",)),
    KafkaAclRule(principals=("reader",), allow=("read",), topics=("open*",), groups=("reader-*",)),
    KafkaAclRule(principals=("edge-7",), allow=("write", "create"), topics=("from-%u",)),
)


class Place:
    """The node and what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "tls")
        server = self.authority.sign("node")
        self.edge: Certificate = self.authority.sign("edge-7", "/O=Example/OU=edges/CN=edge-7", names="")
        ours = {"certificate_file": str(server.certificate), "key_file": str(server.key)}
        common: dict[str, Any] = {"listen": "127.0.0.1:0", "advertised": "localhost", **ours}
        outer = KafkaListenerSettings(**common)
        mutual = KafkaListenerSettings(**common, protocol="SSL", client_ca_file=str(self.authority.file))
        self.node = Background(folder / "data", outer, mutual, acl=ACL, users=("token", "reader"))
        self.sasl, self.mutual = (f"localhost:{port}" for port in self.node.ports)

    def librdkafka(self, mechanism: str = "PLAIN", user: str = "token", password: str = PASSWORD) -> dict[str, Any]:
        """As IBM Event Streams tells its users, with this node's address."""
        return {
            "bootstrap.servers": self.sasl,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self.authority.file),
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "_N", 4)
    made = Place(tmp_path_factory.mktemp("secure"))
    yield made
    made.node.stop()
    patch.undo()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_confluent_kafka_signs_in_writes_and_reads(place: Place, mechanism: str) -> None:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

    topic = f"open-{mechanism.lower()}"
    producer = Producer({**place.librdkafka(mechanism), "enable.idempotence": True})
    failures: list[object] = []
    for number in range(100):
        producer.produce(topic, b"%d" % number, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(10) == 0
    assert failures == []
    consumer = Consumer({**place.librdkafka(mechanism), "group.id": "g"})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert [message.value() for message in consumer.consume(100, 10)] == [b"%d" % number for number in range(100)]
    consumer.close()


def test_librdkafka_is_told_what_is_wrong(place: Place) -> None:
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

    def why(**changes: str) -> list[Any]:
        seen: list[Any] = []
        settings = place.librdkafka() | {key.replace("_", "."): value for key, value in changes.items()}
        client = AdminClient(settings | {"error_cb": seen.append, "log_level": 0})
        for _ in range(50):
            client.poll(0.1)
            if seen:
                break
        return seen

    wrong = why(sasl_password="wrong")[0]
    assert wrong.code() == KafkaError._AUTHENTICATION
    assert "invalid credentials" in wrong.str()
    assert why(sasl_mechanism="SCRAM-SHA-256", sasl_username="nobody")[0].code() == KafkaError._AUTHENTICATION
    stranger = Authority(place.authority.folder, "other-ca")
    # librdkafka tells it as a failed handshake or as a closed connection, as the moment has it
    assert "certificate verify failed" in why(ssl_ca_location=str(stranger.file))[0].str()


def test_certificates_name_the_principal_and_rules_bind_it(place: Place) -> None:
    from confluent_kafka import KafkaError, KafkaException, Producer
    from confluent_kafka.admin import AdminClient

    settings = {
        "bootstrap.servers": place.mutual,
        "security.protocol": "SSL",
        "ssl.ca.location": str(place.authority.file),
        "ssl.certificate.location": str(place.edge.certificate),
        "ssl.key.location": str(place.edge.key),
    }
    outcomes: list[Any] = []
    producer = Producer(settings)
    for topic in ("from-edge-7", "from-edge-8"):
        producer.produce(topic, b"x", on_delivery=lambda error, message: outcomes.append((message.topic(), error)))
    assert producer.flush(10) == 0
    found = {topic: error and error.code() for topic, error in outcomes}
    assert found == {"from-edge-7": None, "from-edge-8": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    admin = AdminClient(settings)
    assert set(admin.list_topics(timeout=10).topics) == {"from-edge-7"}  # the others are not there for it
    with pytest.raises(KafkaException) as refused:
        admin.delete_topics(["from-edge-7"])["from-edge-7"].result(10)
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_reader_reads_in_its_group_and_no_further(place: Place) -> None:
    from confluent_kafka import Consumer, KafkaError, Producer

    producer = Producer(place.librdkafka())
    producer.produce("open-news", b"hello")
    producer.produce("closed-news", b"secret")
    assert producer.flush(10) == 0
    mine = place.librdkafka(user="reader") | {"auto.offset.reset": "earliest"}
    consumer = Consumer(mine | {"group.id": "reader-1"})
    consumer.subscribe(["open-news"])
    message = consumer.poll(10)
    assert message is not None
    assert message.value() == b"hello"
    consumer.commit(message, asynchronous=False)
    consumer.unsubscribe()
    consumer.subscribe(["closed-news"])
    message = consumer.poll(10)
    assert message is not None
    assert message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    consumer.close()
    other = Consumer(mine | {"group.id": "others"})
    other.subscribe(["open-news"])
    message = other.poll(10)
    assert message is not None
    assert message.error().code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    other.close()


@pytest.mark.peer("kcat")
def test_kcat(place: Place) -> None:
    kcat = program("kcat", "kafkacat")
    assert kcat is not None
    options = [part for key, value in place.librdkafka("SCRAM-SHA-512").items() for part in ("-X", f"{key}={value}")]
    made = [kcat, "-b", place.sasl, *options, "-t", "open-kcat"]
    subprocess.run([*made, "-P"], input=b"from kcat", check=True, timeout=20)
    read = subprocess.run([*made, "-C", "-e", "-q", "-o", "beginning"], capture_output=True, check=True, timeout=20)
    assert read.stdout == b"from kcat\n"


def test_aiokafka_and_kafka_python(place: Place) -> None:
    import ssl

    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from kafka import KafkaConsumer, KafkaProducer

    def settings(mechanism: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": place.sasl,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": "token",
            "sasl_plain_password": PASSWORD,
            "ssl_context": ssl.create_default_context(cafile=str(place.authority.file)),
        }

    async def through_aiokafka() -> bytes:
        async with AIOKafkaProducer(**settings("SCRAM-SHA-256")) as producer:
            await producer.send_and_wait("open-aio", b"from aiokafka")
        async with AIOKafkaConsumer("open-aio", auto_offset_reset="earliest", **settings("SCRAM-SHA-512")) as consumer:
            message = await consumer.getone()
        return bytes(message.value)

    assert asyncio.run(through_aiokafka()) == b"from aiokafka"
    producer = KafkaProducer(**settings("SCRAM-SHA-512"))
    producer.send("open-python", b"from kafka-python").get(10)
    producer.close()
    options = settings("PLAIN") | {"auto_offset_reset": "earliest", "consumer_timeout_ms": 10_000}
    consumer = KafkaConsumer("open-python", **options)
    assert next(iter(consumer)).value == b"from kafka-python"
    consumer.close()


@pytest.mark.peer("kafka")
@pytest.mark.long("kafka-security")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_javas_tools(place: Place, tmp_path: Path, mechanism: str) -> None:
    module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    file = tmp_path / "client.properties"
    file.write_text(
        "security.protocol=SASL_SSL\n"
        f"sasl.mechanism={mechanism}\n"
        "ssl.truststore.type=PEM\n"
        f"ssl.truststore.location={place.authority.file}\n"
        f"sasl.jaas.config=org.apache.kafka.common.security.{module} required "
        f'username="token" password="{PASSWORD}";\n'
    )
    at = ("--bootstrap-server", place.sasl)

    def tool(name: str, *arguments: str, text: str = "") -> str:
        command = [sys.executable, str(KAFKA_KIT), "tool", name, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    topic = f"java-{mechanism.lower()}"
    tool("topics", *at, "--command-config", str(file), "--create", "--topic", topic)
    tool("console-producer", *at, "--command-config", str(file), "--topic", topic, text="a\nb\n")
    read = tool("console-consumer", *at, "--command-config", str(file), "--topic", topic, "--from-beginning",
                "--max-messages", "2")  # fmt: skip
    assert read.split() == ["a", "b"]
