"""What a member asks of its cluster's topics: nobody waits for a look at them, and why nothing answers is said once."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headwater.errors import UserError
from processors.group import clients, topics
from processors.group.settings import GroupSettings
from processors.group.topics import LOOK_EVERY_S, NoAnswerError, Topics
from tests.support.ports import reserved_port


class Cluster:
    """In place of librdkafka's client: a look at the topics lasts until it is let go on."""

    def __init__(self) -> None:
        self.partitions = 4
        self.looks = 0
        self.slow = False
        self.fails = False
        self.go_on, self.done = threading.Event(), threading.Event()

    def list_topics(self, *, timeout: float) -> Any:
        partitions = self.partitions
        if self.slow:
            self.looks += 1
            assert self.go_on.wait(20)
            self.go_on.clear()
            self.done.set()
        if self.fails:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={"readings": SimpleNamespace(partitions=dict.fromkeys(range(partitions)))})

    def poll(self, timeout: float) -> int:
        return 0

    def finish(self) -> None:
        self.go_on.set()
        assert self.done.wait(20)
        self.done.clear()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(clients, "AdminClient", lambda settings: cluster)
    return cluster


def found(cluster: Cluster) -> Topics:
    one = Topics(GroupSettings(name="g", bootstrap_servers="x:1", rules=("wind-farm",)), ["readings"], {}, {})
    one.look_up()
    cluster.slow = True
    return one


def checked(one: Topics, now_s: float) -> None:
    """Until the answer has been looked at, which the thread may give a moment later."""
    assert one._look is not None
    one._look.exception(20)
    one.check(now_s)


def test_a_cluster_that_is_slow_to_answer_holds_nobody_up(cluster: Cluster) -> None:
    one = found(cluster)
    cluster.partitions = 6
    for now_s in range(1000):  # nothing of this waits
        one.check(100.0 + now_s)
    cluster.finish()
    with pytest.raises(UserError, match="readings has 6 partitions, and this group's state was made with 4"):
        checked(one, 2000)
    assert cluster.looks == 1


def test_it_is_looked_at_again_and_a_cluster_that_does_not_answer_is_asked_another_time(cluster: Cluster) -> None:
    one = found(cluster)
    for turn, fails in enumerate((False, True, False)):
        cluster.fails = fails
        one.check(100.0 + turn * LOOK_EVERY_S)
        one.check(101.0 + turn * LOOK_EVERY_S)
        cluster.finish()
        checked(one, 102.0 + turn * LOOK_EVERY_S)
        one.check(103.0 + turn * LOOK_EVERY_S)
        assert cluster.looks == turn + 1


def test_what_an_earlier_look_finds_is_nothing_once_topics_were_looked_up(cluster: Cluster) -> None:
    one = found(cluster)
    one.check(100)
    cluster.slow, cluster.partitions = False, 6
    one.look_up()
    cluster.finish()
    one.check(101)
    assert one.partitions == {"readings": 6}


def test_why_no_cluster_answers_is_said_and_librdkafka_fills_no_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(topics, "ANSWER_S_MAX", 0.5)
    with reserved_port() as port:
        settings = GroupSettings(name="g", bootstrap_servers=f"127.0.0.1:{port}", rules=("wind-farm",))
        with pytest.raises(NoAnswerError) as refused:
            Topics(settings, ["readings"], {}, {}).look_up()
    assert refused.value.what == (
        f"127.0.0.1:{port} does not answer: Connect to ipv4#127.0.0.1:{port} failed: Connection refused"
    )
    assert capfd.readouterr() == ("", "")
