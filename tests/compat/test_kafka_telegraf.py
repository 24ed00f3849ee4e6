"""Telegraf's `kafka_consumer` (sarama) reads a node, which is killed in between."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.kafka_node import KafkaNode
from tests.support.peers import BUILT
from tests.support.waiting import until

pytestmark = pytest.mark.peer("telegraf")
CONFIG = """\
[agent]
  interval = "1s"
  flush_interval = "200ms"
  flush_jitter = "0s"
  omit_hostname = true
[[inputs.kafka_consumer]]
  brokers = ["{address}"]
  topics = ["readings"]
  consumer_group = "telegraf"
  kafka_version = "2.8.0"
  data_format = "json_v2"
  [[inputs.kafka_consumer.json_v2]]
    measurement_name = "readings"
    [[inputs.kafka_consumer.json_v2.field]]
      path = "n"
      type = "int"
[[outputs.file]]
  files = ["{out}"]
  data_format = "influx"
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    made = KafkaNode(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def seen(node: KafkaNode, tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Runs Telegraf; gives what it has written so far."""
    out, config = tmp_path / "out.influx", tmp_path / "telegraf.conf"
    config.write_text(CONFIG.format(address=node.address, out=out))
    with (tmp_path / "telegraf.log").open("wb") as log:
        process = subprocess.Popen([BUILT / "telegraf", "--config", str(config)], stdout=log, stderr=log)

    def numbers() -> list[int]:
        lines = out.read_text().splitlines() if out.exists() else []
        return [int(line.split(" ")[1].removeprefix("n=").removesuffix("i")) for line in lines if line.count(" ") == 2]

    yield numbers
    process.terminate()
    process.wait(20)


def send(node: KafkaNode, numbers: range, **settings: object) -> None:
    from confluent_kafka import Producer

    transactional = "transactional.id" in settings
    producer = Producer({"bootstrap.servers": node.address, "compression.type": "zstd", "linger.ms": 20, **settings})
    if transactional:
        producer.init_transactions(20)
        producer.begin_transaction()
    for number in numbers:
        producer.produce("readings", b'{"n":%d}' % number, b"edge-1/pump")
    assert producer.flush(20) == 0
    if transactional:
        producer.abort_transaction(20)


def test_every_reading_is_taken_through_a_sigkill_of_the_node(
    node: KafkaNode, seen: Callable[[], list[int]], tmp_path: Path
) -> None:

    def said() -> str:
        return (tmp_path / "telegraf.log").read_text()[-2_000:]

    send(node, range(500))
    until(lambda: len(seen()) >= 500, said)
    assert seen() == list(range(500))
    node.kill()
    node.start()
    send(node, range(500, 1_000))
    until(lambda: {*seen()} == {*range(1_000)}, said)  # at least once: the last offsets may not have been committed
    # It has no setting for it and reads what was aborted too: docs/kafka-clients.md says where that matters.
    send(node, range(1_000, 1_010), **{"transactional.id": "given-up"})
    until(lambda: 1_009 in seen(), said)
