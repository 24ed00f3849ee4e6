"""A transactional client that a test moves step by step."""

from __future__ import annotations

from typing import Any

from gateway.wire.peer import Peer
from gateway.wire.schema import ApiKey
from tests.support.broker_world import Asked, World, answer_of

NAME = "headwater.edge-7"
TIMEOUT_MS = 10_000


class Producer:
    """A transactional client that does nothing on its own."""

    def __init__(self, world: World, name: str = NAME, *, peer: Peer | None = None) -> None:
        self.world = world
        self.name = name
        self.peer = peer
        self.id = self.epoch = -1
        self.sequence = 0

    def init(self, *, version: int = 4, given: tuple[int, int] = (-1, -1), timeout_ms: int = TIMEOUT_MS) -> int:
        body = {
            "transactional_id": self.name,
            "transaction_timeout_ms": timeout_ms,
            "producer_id": given[0],
            "producer_epoch": given[1],
        }
        found = self.world.call(ApiKey.INIT_PRODUCER_ID, body, version=version, peer=self.peer)
        if not found["error_code"]:
            self.id, self.epoch, self.sequence = found["producer_id"], found["producer_epoch"], 0
        code: int = found["error_code"]
        return code

    @property
    def who(self) -> dict[str, Any]:
        return {"transactional_id": self.name, "producer_id": self.id, "producer_epoch": self.epoch}

    def add(self, topic: str = "t", partition: int = 0, *, version: int = 3) -> int:
        body = {**self.who, "topics": [{"name": topic, "partitions": [partition]}]}
        found = self.world.call(ApiKey.ADD_PARTITIONS_TO_TXN, body, version=version, peer=self.peer)
        code: int = found["results_by_topic"][0]["results_by_partition"][0]["partition_error_code"]
        return code

    def send(self, values: list[bytes], topic: str = "t", partition: int = 0) -> int:
        asked = self.world.produce(
            topic,
            values,
            partition=partition,
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=self.sequence,
            transactional=True,
            transactional_id=self.name,
            peer=self.peer,
        )
        self.world.settle()
        self.sequence += len(values)
        code: int = answer_of(asked)["error_code"]
        return code

    def ask_end(self, *, commit: bool = True, version: int = 3) -> Asked:
        body = {**self.who, "committed": commit}
        return self.world.send(ApiKey.END_TXN, body, version=version, peer=self.peer)

    def end(self, *, commit: bool = True, version: int = 3) -> int:
        asked = self.ask_end(commit=commit, version=version)
        self.world.settle()
        code: int = asked.body["error_code"]
        return code

    def begin(self, values: list[bytes]) -> None:
        """Everything up to the end of a transaction."""
        assert self.init() == 0
        assert self.add() == 0
        assert self.send(values) == 0


def counters(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.broker.status()["transactions"]
    return found


def stable(world: World) -> int:
    log = world.store.partition("t", 0)
    assert log is not None
    return log.last_stable_offset
