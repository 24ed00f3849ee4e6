"""Users' processors in `headwater process`, on a node and a real Kafka: killed, hung and mended, each output once."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.consume.reader import Block
from processors.user.loading import load
from processors.user.partition import UserPartition
from processors.user.rule import ProcessorRule
from processors.user.settings import UserLimits
from tests.support import river
from tests.support.group_processing import Group, Said, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.peers import Kafka
from tests.support.river import Row

PARTITIONS = 3
START_MS = 1_735_689_600_000
CODE = """\
from __future__ import annotations
from headwater.api import Device, Mark, Processor, StoredReading, Timer

class Sums(Processor[dict[str, float]]):
    out = ("sums", "hours")
    deterministic = DETERMINISTIC

    def on_reading(self, reading: StoredReading, device: Device[dict[str, float]]) -> None:
        if "loop" in reading:
            while True:
                pass
        if "bad" in reading:
            raise ValueError("no good")
        state = device.state
        state["n"] = state.get("n", 0) + 1
        state["sum"] = state.get("sum", 0.0) + reading["t"]
        device.emit({"n": state["n"], "sum": state["sum"], "late": reading.late})
        if device.timer() is None:
            device.set_timer(reading.time_ms + 10_000)

    def on_timer(self, timer: Timer, device: Device[dict[str, float]]) -> None:
        device.emit({"n": device.state["n"]}, topic="hours")
"""
RULE = '[[processor]]\nname = "sums"\nfile = "sums.py"\n'
SETTINGS = """
rules = ["rules.toml"]
session_timeout_ms = 6000
snapshot_every_ms = 500
[user]
time_max_ms = 1500
failures_max = 8
pause_min_ms = 3_600_000
pause_max_ms = 3_600_000
"""


def story(partition: int, begin: int, end: int) -> list[Row]:
    rows = []
    for second in range(begin, end):
        node, at = f"n{partition}", START_MS + second * 1000
        rows.append(Row("a", at, {"t": second / 7}, None, node))
        if second % 17 == 16:
            rows.append(Row("b", at - 14_000, {"t": 51.5}, None, node))
        rows.append(Row("b", at + 500, {"t": 50}, river.mark(node, at - 2000), node))
    return rows


def blocks(begin: int, end: int) -> list[Block]:
    return [river.block(story(partition, begin, end), partition=partition) for partition in range(PARTITIONS)]


def write(folder: Path, code: str = CODE, *, deterministic: bool = True) -> None:
    (folder / "sums.py").write_text(code.replace("DETERMINISTIC", str(deterministic)))
    (folder / "rules.toml").write_text(RULE)


def expected(folder: Path, end: int) -> dict[str, list[list[Said]]]:
    """What one undisturbed processor says of each partition."""
    found: dict[str, list[list[Said]]] = {"sums": [], "hours": []}
    loaded = load(ProcessorRule(name="sums", file=str(folder / "sums.py")))
    for partition in range(PARTITIONS):
        made = UserPartition(loaded, partition, limits=UserLimits()).process(
            river.block(story(partition, 0, end), partition=partition)
        )
        for topic, lists in found.items():
            records = [one.record for one in made if one.topic == topic]
            lists.append([(record[1] or b"", record[2] or b"", record[0]) for record in records])
    return found


def told(bootstrap: str, topic: str) -> list[list[Said]]:
    found: list[list[Said]] = [[] for _ in range(PARTITIONS)]
    for records in said(bootstrap, topic):
        for record in records:
            found[int(record[0].split(b"/")[0][1:])].append(record)
    return found


def _has(bootstrap: str, topic: str, count: int) -> bool:
    return sum(map(len, told(bootstrap, topic))) >= count


def settled(group: Group, end: int, logs: dict[str, Path]) -> None:
    for topic, wanted in expected(group.folder, end).items():
        count = sum(map(len, wanted))
        until(partial(_has, group.bootstrap, topic, count), f"everything up to second {end} is said", logs)
        assert told(group.bootstrap, topic) == wanted


def children(text: str) -> list[int]:
    """Processes of users' processors whose parent's command line has `text`."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if "processor_child" in command and text in Path(f"/proc/{parent}/cmdline").read_text():
                found.append(pid)
        except (OSError, ValueError):
            continue
    return found


def storm(group: Group, count: int, random: Random) -> None:
    """Readings come while members, and the processors' own processes, are killed."""
    logs = {name: group.log_of(name) for name in "ab"}
    end = 0
    for name in "ab":
        group.start(name)
    for turn in range(count):
        feed(group.bootstrap, blocks(end, end + 5))
        end += 5
        time.sleep(random.uniform(0.2, 2.0))  # chance decides what a kill meets
        if turn % 3 == 0:
            name = random.choice("ab")
            group.kill(name)
            group.start(name)
        else:
            for pid in children(str(group.folder)):
                if random.random() < 0.6:
                    os.kill(pid, signal.SIGKILL)
    settled(group, end, logs)
    for name in "ab":
        assert group.stop(name) == 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(tmp_path)
    yield node
    node.kill()


def group_on(folder: Path, bootstrap: str) -> Group:
    make_topic(bootstrap, "readings", PARTITIONS)
    return Group(folder, bootstrap, SETTINGS)


@pytest.mark.long("user-processor", count=6)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("deterministic", [True, False])
def test_killed_again_and_again_each_output_is_there_once(
    node: KafkaNode, tmp_path: Path, count: int, *, deterministic: bool
) -> None:
    write(tmp_path, deterministic=deterministic)
    group = group_on(tmp_path, node.address)
    try:
        storm(group, count, Random(count))
    finally:
        group.close()


@pytest.mark.peer("kafka")
@pytest.mark.long("user-processor", count=6)
@pytest.mark.timeout(400)
def test_on_a_real_kafka_each_output_is_there_once(tmp_path: Path, count: int) -> None:
    write(tmp_path, deterministic=False)
    kafka = Kafka.start(tmp_path / "kafka")
    try:
        group = group_on(tmp_path, kafka.bootstrap)
        try:
            storm(group, count, Random(count + 1))
        finally:
            group.close()
    finally:
        kafka.stop()


@pytest.mark.long("user-processor")
@pytest.mark.timeout(200)
def test_what_hangs_or_raises_is_a_dead_letter_and_a_broken_one_is_paused_alone(
    node: KafkaNode, tmp_path: Path
) -> None:
    write(tmp_path)
    (tmp_path / "rules.toml").write_text(RULE + RULE.replace("sums", "other"))
    (tmp_path / "other.py").write_text(
        "from headwater.api import Processor\n\nclass Other(Processor[dict[str, int]]):\n"
        "    out = 'other'\n\n    def on_reading(self, reading, device):\n        device.emit(reading.fields)\n"
    )
    group = group_on(tmp_path, node.address)
    logs = {"a": group.log_of("a")}
    good, bad = {"t": 1.0}, {"bad": 1}

    def feed_rows(*fields: dict[str, Any]) -> None:
        rows = [Row("a", START_MS + at, one, None, "n0") for at, one in enumerate(fields)]
        feed(group.bootstrap, [river.block(rows, partition=0)])

    def count(topic: str) -> int:
        return sum(map(len, said(group.bootstrap, topic)))

    try:
        group.start("a")
        feed_rows(good, {"loop": 1}, bad, good)
        until(lambda: count("sums") == 2, "what is good is said", logs)
        reasons = [value for records in said(group.bootstrap, "deadletter") for _, value, _ in records]
        assert sorted(reasons) == [b'{"bad":1}', b'{"loop":1}']
        assert re.search(r"sums\.py, line 1[01]: still at it after 1\.5 s, so it was killed", logs["a"].read_text())
        feed_rows(*[bad] * 8, good)
        until(
            lambda: "processor sums: paused, its readings wait: sums.py, line 13: ValueError" in logs["a"].read_text(),
            "it is paused",
            logs,
        )
        until(lambda: count("other") == 13, "the other goes on", logs)
        assert count("sums") == 2
        letters = count("deadletter")
        write(tmp_path, CODE.replace('raise ValueError("no good")', "return"))
        until(lambda: count("sums") == 3, "it goes on once it is mended", logs)
        assert count("deadletter") == letters
        assert group.stop("a") == 0
    finally:
        group.close()
