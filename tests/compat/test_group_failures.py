"""A member of `headwater process` that fails or is held up before it commits its outputs, or loses its cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from headwater.errors import HeadwaterError, UserError
from processors.group import driver, topics
from processors.group.driver import GroupProcessor
from processors.group.settings import GroupSettings
from processors.rules.files import parse_rules
from tests.compat.test_group_processing import PARTITIONS, RULES, blocks, expected, story, told
from tests.support.group_processing import feed, make_topic, until
from tests.support.kafka_node import KafkaNode


class Failing(GroupProcessor):
    """Fails once, with outputs in its transaction and their positions not committed."""

    failed = False

    def _write(self, outputs: Any, partition: int) -> None:
        super()._write(outputs, partition)
        if not self.failed:
            self.failed = True
            assert self._producer.flush(20) == 0  # they are at the broker: the abort finds nothing to purge
            raise HeadwaterError("a fault")


class HeldUp(GroupProcessor):
    """Stands still once, with outputs in its transaction, until the cluster has given that one up."""

    node: KafkaNode
    held_up = False

    def _write(self, outputs: Any, partition: int) -> None:
        super()._write(outputs, partition)
        if not self.held_up:
            self.held_up = True
            assert self._producer.flush(20) == 0
            until(lambda: "farm.a aborted" in self.node.log(), "its transaction has taken too long")


def new_settings(node: KafkaNode, **changed: Any) -> GroupSettings:
    return GroupSettings(
        name="farm", bootstrap_servers=node.address, rules=(), **{"session_timeout_ms": 6000, **changed}
    )


@contextmanager
def running(member: GroupProcessor) -> Iterator[list[BaseException]]:
    """Until the body ends; what `run` raises is in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            member.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        member.stop()
        thread.join(60)


ENDS = {f"readings/{partition}": len(story(partition, 0, 60)) for partition in range(PARTITIONS)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(tmp_path)
    make_topic(node.address, "readings", PARTITIONS)
    feed(node.address, blocks(0, 60))
    yield node
    node.kill()


@pytest.mark.timeout(120)
def test_outputs_of_an_aborted_transaction_are_said_again(node: KafkaNode) -> None:
    """Closing a consumer takes its partitions away, which is otherwise an occasion to commit positions."""
    member = Failing(new_settings(node, commit_every_ms=10_000), parse_rules([(RULES, "rules.toml")]), instance="a")
    with running(member) as raised:
        until(
            lambda: (
                bool(raised) or (member.status().get("restarts", 0) >= 1 and member.status().get("positions") == ENDS)
            ),
            "it is back, and has read everything",
        )
    assert not raised
    assert told(node.address) == expected(60)


@pytest.mark.timeout(120)
def test_a_log_that_has_lost_what_was_read_is_refused_with_the_way_out(node: KafkaNode) -> None:
    """Going on at its start, its readings would count twice in windows that hold what is gone."""
    rules = parse_rules([(RULES, "rules.toml")])
    member = GroupProcessor(new_settings(node), rules, instance="a")
    with running(member) as raised:
        until(lambda: bool(raised) or member.status().get("positions") == ENDS, "it has read everything")
    admin = AdminClient({"bootstrap.servers": node.address, "log_level": 0})
    admin.delete_topics(["readings"])["readings"].result(20)
    make_topic(node.address, "readings", PARTITIONS)
    feed(node.address, blocks(0, 10))
    with running(GroupProcessor(new_settings(node), rules, instance="a")) as raised:
        until(lambda: bool(raised), "it does not go on")
    assert isinstance(raised[0], UserError)
    assert f"this group has read up to {ENDS['readings/0']}" in str(raised[0])
    assert "--rebuild" in str(raised[0])


@pytest.mark.timeout(120)
def test_a_running_member_whose_topic_is_given_partitions_stops_with_the_way_out(
    node: KafkaNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "LOOK_EVERY_S", 0.2)
    member = GroupProcessor(new_settings(node), parse_rules([(RULES, "rules.toml")]), instance="a")
    with running(member) as raised:
        until(lambda: bool(raised) or member.status().get("positions") == ENDS, "it has read everything")
        assert not raised
        admin = AdminClient({"bootstrap.servers": node.address, "log_level": 0})
        admin.create_partitions([NewPartitions("readings", PARTITIONS + 2)])["readings"].result(10)
        until(lambda: bool(raised), "it stops")
    assert isinstance(raised[0], UserError)
    assert f"readings has {PARTITIONS + 2} partitions, and this group's state was made with {PARTITIONS}" in str(raised)
    assert "--rebuild" in raised[0].hint
    assert told(node.address) == expected(60)


@pytest.mark.timeout(120)
def test_a_member_held_up_for_longer_than_a_transaction_may_last_begins_again(node: KafkaNode) -> None:
    """The cluster fences it, as it would when another process came under its name: it is not told that one did."""
    settings = new_settings(node, transaction_timeout_ms=2_000)
    member = HeldUp(settings, parse_rules([(RULES, "rules.toml")]), instance="a")
    member.node = node
    with running(member) as raised:
        until(
            lambda: (
                bool(raised) or (member.status().get("restarts", 0) >= 1 and member.status().get("positions") == ENDS)
            ),
            "it is back, and has read everything",
        )
    assert not raised
    assert told(node.address) == expected(60)


@pytest.mark.long("process")
@pytest.mark.timeout(300)
def test_a_member_waits_for_a_cluster_that_is_gone(node: KafkaNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its first start it says that nothing answers, and ends: that may be a mistake in its file."""
    rules = parse_rules([(RULES, "rules.toml")])
    member = GroupProcessor(new_settings(node), rules, instance="a")
    with running(member) as raised:
        until(lambda: bool(raised) or member.status().get("positions") == ENDS, "it has read everything")
        node.kill()
        with monkeypatch.context() as gone:  # only while no answer can come, however long one waits
            for module in (driver, topics):
                gone.setattr(module, "ANSWER_S_MAX", 0.5)
            until(lambda: bool(raised) or "does not answer" in (member.status().get("error") or ""), "it says so")
            assert not raised
            with running(GroupProcessor(new_settings(node), rules, instance="b")) as refused:
                until(lambda: bool(refused), "another one does not begin")
        assert isinstance(refused[0], UserError)
        assert "does not answer" in str(refused[0])
        node.start()
        feed(node.address, blocks(60, 80))
        until(lambda: bool(raised) or told(node.address) == expected(80), "it has gone on")
    assert not raised
