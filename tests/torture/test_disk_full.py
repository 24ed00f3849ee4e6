"""The disk fills up under load, slowly and at once; the node is killed, starts with zero bytes free; space returns.

What was acknowledged is there once, in order and at its offset, or its range is named as expired; what was not is
sent again by its producer until it is there. On a small file system of memory that really is full.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from gateway.log.reserve import START_BYTES, reserve_path, start_reserve_path
from tests.support.ports import reserved_port
from tests.torture.crashes import judge
from tests.torture.node import PARTITIONS, TOPIC, Load, Node, read_back
from tests.torture.simulated_os import Crash, SimulatedOs
from tests.torture.world import DATA, World

DISK_BYTES = 24 << 20
LOG_SETTINGS = "reserve_bytes = 4194304\nfree_floor_bytes = 1048576\n"


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[bool]:
    """A file system of `DISK_BYTES` at `path`; False where this user may not mount one."""
    path.mkdir()
    size = f"size={DISK_BYTES}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(path)], check=True)


class Filler:
    """A neighbour's file that takes the room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.path = str(path)

    def grow(self, size: int) -> bool:
        """Take so many bytes, or what there is; False when there was less."""
        with self._path.open("ab", buffering=0) as file:
            try:
                while size > 0:
                    size -= file.write(bytes(min(size, 65_536)))
            except OSError:  # the one there is here: no space left
                return False
        return True

    def grow_to_the_last_byte(self) -> None:
        while self.grow(1 << 20):
            pass

    def free(self) -> int:
        found = os.statvfs(os.path.dirname(self.path))
        return found.f_bavail * found.f_frsize

    def go(self) -> None:
        self._path.unlink(missing_ok=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def _more(load: Load, acked: int) -> bool:
    return len(load.acked) > acked


def expired(address: str) -> list[set[int]]:
    """Per partition the offsets that events name as expired."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "e", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition("events", 0, OFFSET_BEGINNING)])
    named: list[set[int]] = [set() for _ in range(PARTITIONS)]
    while (message := consumer.poll(5)) is not None and message.error() is None:
        event = msgspec.json.decode(message.value() or b"")
        if event.get("kind") == "expiry" and event["topic"] == TOPIC:
            named[event["partition"]] |= set(range(event["first"], event["end"]))
    consumer.close()
    return named


def full_and_back(node: Node, filler: Filler, count: int) -> str:
    random = Random(count)
    zero_starts = without = refused = 0
    node.start()
    admin = AdminClient({"bootstrap.servers": node.address})
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS)]).values():
        future.result(30)
    load = Load(node.address, size=500)
    try:
        for number in range(count):
            acked = len(load.acked)
            until(partial(_more, load, acked + 50), f"round {number}: nothing is taken")
            if number % 3 == 2:  # the neighbour comes while the node is down: its reserve is there
                node.kill()
                filler.grow_to_the_last_byte()
                assert filler.free() == 0
                node.start()
                zero_starts += 1
            elif number % 3 == 1:  # at once
                filler.grow_to_the_last_byte()
            else:
                while filler.grow(random.randint(100_000, 400_000)):
                    time.sleep(0.005)
            time.sleep(random.uniform(0.0, 0.3))
            filler.grow_to_the_last_byte()
            acked = len(load.acked)
            time.sleep(0.2)
            refused += len(load.acked) == acked
            if number % 2:  # with the reserve given up and not a byte free
                for _ in range(2):
                    node.kill()
                    filler.grow_to_the_last_byte()
                    node.start()
                    without += 1
            filler.go()
    finally:
        load.stop()
    assert not load.failed, load.failed[:5]
    assert refused, "the disk was never so full that nothing was taken"
    rows = read_back(node.address)
    gone = expired(node.address)
    for partition, found in enumerate(rows):
        numbers = [number for _, number in found]
        assert numbers == sorted(set(numbers)), f"{TOPIC}-{partition}: twice, or in another order"
        first = found[0][0]
        assert set(range(first)) <= gone[partition], f"{TOPIC}-{partition}: gone below {first} and not named"
        offsets = {number: offset for offset, number in found}
        for number, (where, offset) in load.acked.items():
            if where == partition and offset >= first:
                assert offsets.get(number) == offset, f"{TOPIC}-{partition}: {number} was acknowledged at {offset}"
    there = sum(map(len, rows))
    return (
        f"the disk full {count} times, {zero_starts} starts at zero bytes free with the reserve, "
        f"{without} without it, {refused} times nothing was taken; "
        f"{load.sent} records: 0 acknowledged lost, 0 twice, {there} there, the others named as expired"
    )


@pytest.mark.long("disk-full", count=12)
def test_the_disk_is_full_again_and_again(tmp_path: Path, count: int) -> None:
    with small_disk(tmp_path / "data") as mounted, reserved_port() as port:
        if not mounted:
            print("no file system may be mounted here: in memory, through the disk seam")
            for free in range(0, 40_000, 40_000 // (4 * count)):
                fills_up(free)
            return
        node = Node(tmp_path, port, LOG_SETTINGS)
        try:
            print(full_and_back(node, Filler(tmp_path / "data" / "filler"), count))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{node.said()[-3_000:]}") from error
        finally:
            node.close()


def fills_up(free_bytes: int) -> None:
    """A log on a disk with so much room: it is refused what does not fit, and goes on when there is room again."""
    simulated = SimulatedOs()
    world = World(simulated.disk())
    simulated.free_bytes = free_bytes
    for number in itertools.count():
        sent = world.append("t", producer=11)
        world.flush()
        world.clock.advance(1_500)
        if not sent.acked or number > 400:
            break
    assert not sent.acked
    judge(_with_room(simulated), world.ledger, world.clock.wall_ms())
    simulated.free_bytes = 1 << 40
    world.settle()
    world.check(settled=True)
    assert sent.acked


def _with_room(simulated: SimulatedOs) -> SimulatedOs:
    left = simulated.after_crash(Crash.FORGET)
    left.free_bytes = 1 << 40
    return left


def test_starts_at_zero_bytes_free_without_the_reserve() -> None:
    simulated = SimulatedOs()
    world = World(simulated.disk())
    for _ in range(20):
        world.append("t", producer=11)
        world.append("r")
        world.flush()
    world.turn()
    for _ in range(4):
        simulated = simulated.after_crash(Crash.KEEP)
        if reserve_path(f"{DATA}/node") in simulated.files():
            simulated.disk().remove(reserve_path(f"{DATA}/node"))
        simulated.free_bytes = 0  # a neighbour took what the last start had left
        world = World(simulated.disk(), world.ledger)
        world.check_start()
    simulated.free_bytes = 1 << 40
    world.turn()
    assert len(simulated.files()[start_reserve_path(f"{DATA}/node")]) == START_BYTES


@pytest.mark.parametrize("free_bytes", [0, 300, 5_000])
def test_a_log_on_a_full_disk(free_bytes: int) -> None:
    fills_up(free_bytes)
