"""A log that changes hands between a node and a real broker: the topics, the hand-over, what must be served."""

from __future__ import annotations

import shlex

from tests.support.kafka_node import KafkaNode
from tests.support.kafka_story import Story, read, write
from tests.support.peers import Kafka, kafka_kit, kafka_tool
from tests.support.processes import headwater

# More than one topic with more than one partition; a name that is another's with a partition's number behind it.
TOPICS = {"plant": 2, "plant-1": 1, "meter": 1}


def check(bootstrap: str, story: Story, *, tag: str) -> None:
    """Exactly what was committed is served, the aborted is there and hidden, and the log takes more."""
    assert read(bootstrap, TOPICS) == story.committed
    everything = read(bootstrap, TOPICS, committed=False)
    for place, values in everything.items():
        assert sorted(values) == sorted(story.committed[place] + story.aborted[place])
    story.add(write(bootstrap, TOPICS, rounds=1, tag=tag))
    assert read(bootstrap, TOPICS) == story.committed


def make_topics(kafka: Kafka, printed: str, topics: int = len(TOPICS)) -> None:
    """Run the commands that `to-kafka` printed, as a user would."""
    commands = [shlex.split(line) for line in printed.splitlines() if line.startswith("kafka-topics.sh ")]
    assert len(commands) == topics
    kafka_kit("start", str(kafka.directory), str(kafka.port))
    for words in commands:
        words[words.index("localhost:9092")] = kafka.bootstrap
        assert "Created topic" in kafka_tool("topics", *words[1:])
    kafka.stop()


def to_kafka(kafka: Kafka, node: KafkaNode) -> tuple[int, str]:
    done = headwater(["log", "to-kafka", str(kafka.directory / "data"), str(node.directory / "data")])
    return done.returncode, done.stdout + done.stderr
