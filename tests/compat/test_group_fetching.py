"""What a member fetches by itself from a node that asks who it is: every codec and sign-in, TLS, a node that dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from gateway import users
from gateway.wire.errors import KafkaError
from processors.group.fetcher import Fetcher
from processors.group.settings import GroupSettings
from tests.compat.test_kafka_security import Place
from tests.support.group_processing import make_topic
from tests.support.kafka_node import KafkaNode
from tests.support.secure_node import PASSWORD

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
EACH = 300
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    patch = pytest.MonkeyPatch()
    patch.setattr(users, "_N", 4)
    made = Place(tmp_path_factory.mktemp("secure"))
    for codec in CODECS:
        write(made.librdkafka() | {"compression.type": codec}, codec)
    yield made
    made.node.stop()
    patch.undo()


def write(client: dict[str, Any], what: str) -> None:
    producer = Producer({**client, "enable.idempotence": True})
    for number in range(EACH):
        producer.produce("open-readings", f"{what} {number}".encode(), b"key", 0, headers=[("hw", b"n/1/%d" % number)])
    assert producer.flush(10) == 0


def read(fetcher: Fetcher, until: Callable[[list[bytes | None]], bool]) -> list[bytes | None]:
    found: list[bytes | None] = []
    deadline = time.monotonic() + WITHIN_S
    while not until(found):
        assert time.monotonic() < deadline, (len(found), fetcher.trouble)
        for block in fetcher.poll(0.05):
            assert (block.topic, block.partition) == ("readings", 0)
            assert block.offsets == list(range(len(found), len(found) + len(block.values)))
            found += block.values
    return found


def settings(servers: str, **more: Any) -> GroupSettings:
    return GroupSettings(name="farm", bootstrap_servers=servers, topic_prefix="open-", rules=(), **more)


def sasl(place: Place, **changed: Any) -> GroupSettings:
    given = {"security_protocol": "SASL_SSL", "sasl_username": "token", "sasl_password": PASSWORD}
    return settings(place.sasl, **{**given, "tls_ca_file": str(place.authority.file), **changed})


WRITTEN = [f"{codec} {number}".encode() for codec in CODECS for number in range(EACH)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_codec_over_tls_with_every_sign_in(place: Place, mechanism: str) -> None:
    with closing(Fetcher(sasl(place, sasl_mechanism=mechanism))) as fetcher:
        fetcher.assign({("readings", 0): 0})
        assert read(fetcher, lambda found: len(found) >= len(WRITTEN)) == WRITTEN
        assert fetcher.lags({"readings/0": 100, "readings/7": 3}) == {"readings/0": len(WRITTEN) - 100}


def has_said(fetcher: Fetcher, what: str, found: object) -> bool:
    return what in fetcher.trouble


def test_what_keeps_it_from_reading_is_said(place: Place) -> None:
    for wrong, said in (
        ({"sasl_password": "wrong"}, "does not let the user “token” in"),
        ({"tls_ca_file": ""}, "authority that we do not trust"),
    ):
        with closing(Fetcher(sasl(place, **wrong))) as fetcher:
            fetcher.assign({("readings", 0): 0})
            read(fetcher, partial(has_said, fetcher, said))
    mutual = {"tls_certificate_file": str(place.edge.certificate), "tls_key_file": str(place.edge.key)}
    known = settings(place.mutual, security_protocol="SSL", tls_ca_file=str(place.authority.file), **mutual)
    with closing(Fetcher(known)) as fetcher:  # it is let in, and may not read this topic
        fetcher.assign({("readings", 0): 0})
        with pytest.raises(KafkaError, match="topic open-readings: TOPIC_AUTHORIZATION_FAILED"):
            read(fetcher, lambda _: False)


def test_a_node_that_dies_and_comes_back_is_read_on(tmp_path: Path) -> None:
    node = KafkaNode(tmp_path)
    make_topic(node.address, "open-readings", 1)
    write({"bootstrap.servers": node.address}, "before")
    with closing(Fetcher(settings(node.address))) as fetcher:
        fetcher.assign({("readings", 0): 0})
        before = read(fetcher, lambda found: len(found) >= EACH)
        node.kill()
        read(fetcher, lambda _: node.address in fetcher.trouble)
        node.start()
        write({"bootstrap.servers": node.address}, "after")
        fetched: list[bytes | None] = []
        deadline = time.monotonic() + WITHIN_S
        while len(fetched) < EACH and time.monotonic() < deadline:
            fetched += [value for block in fetcher.poll(0.05) for value in block.values]
        assert fetcher.trouble == ""
    node.kill()
    assert before + fetched == [f"{when} {number}".encode() for when in ("before", "after") for number in range(EACH)]
