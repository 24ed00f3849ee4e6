"""A node's log in memory behind the reader's methods, with failures at any call: before it, after it, or much later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from gateway.consume import reader as reader_module
from gateway.consume.reader import Block
from gateway.log.records import Record
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.cli import export as export_module
from headwater.clock import ManualClock


class Killed(Exception):  # noqa: N818 - an event, not an error
    """The process died here."""


class MemoryNode:
    """Topics, idempotent producers, and what goes wrong. `fail_at`: the number of the call that fails, from 1."""

    def __init__(self, clock: ManualClock) -> None:
        self.topics: dict[str, list[list[Record]]] = {}
        self.starts: dict[tuple[str, int], int] = {}
        self.clock = clock
        self.calls = 0
        self.fail_at = 0
        self.how = "before"  # before | after | late (the effect comes `late_calls` later)
        self.late_calls = 1
        self.error: Exception = Killed()
        self.idle: Callable[[], None] = lambda: None
        self.records_per_poll = 5
        self.producers = 0
        self.duplicates = 0
        self._sequences: dict[tuple[str, int, int], list[tuple[int, int, int]]] = {}
        self._late: list[tuple[int, Callable[[], Any]]] = []

    async def connect(self) -> MemoryReader:
        self.step(lambda: None)
        return MemoryReader(self)

    def step(self, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls == self.fail_at:
            if self.how == "after":
                effect()
            elif self.how == "late":
                self._late.append((self.calls + self.late_calls, effect))
            raise self.error
        for due, old in self._late:
            if due == self.calls:
                with contextlib.suppress(KafkaError):  # its connection is gone: nobody hears the answer
                    old()
        return effect()

    def append(
        self, topic: str, partition: int, records: Sequence[Record], producer: tuple[int, int], sequence: int
    ) -> int:
        log = self.topics[topic][partition]
        if producer[0] >= 0:
            known = self._sequences.setdefault((topic, partition, producer[0]), [])
            for first, last, offset in known[-5:]:
                if (first, last) == (sequence, sequence + len(records) - 1):
                    self.duplicates += 1
                    return offset
            if known and sequence != known[-1][1] + 1:
                raise KafkaError(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, f"{topic}/{partition}")
            known.append((sequence, sequence + len(records) - 1, len(log)))
        log.extend(records)
        return len(log) - len(records)

    def feed(self, partition: int, block: Block, *, topic: str = "readings") -> None:
        rows = zip(block.timestamps, block.keys, block.values, block.headers, strict=True)
        self.topics[topic][partition].extend(rows)


class MemoryReader:
    """`gateway.consume.reader.Reader` over a `MemoryNode`."""

    def __init__(self, node: MemoryNode) -> None:
        self._node = node
        self._positions: dict[tuple[str, int], int] = {}
        self.ends: dict[tuple[str, int], int] = {}

    async def close(self) -> None:
        pass

    async def partitions(self, topic: str) -> int:
        return int(self._node.step(lambda: len(self._node.topics.get(topic, []))))

    async def ensure_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        self._node.step(lambda: self._node.topics.setdefault(name, [[] for _ in range(partitions)]))

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        node = self._node
        start = node.starts.get((topic, partition), 0)

        def found() -> int:
            log = node.topics[topic][partition]
            if isinstance(at, int):
                return next((offset for offset, record in enumerate(log) if record[0] >= at), len(log))
            return start if at == "earliest" else len(log)

        return int(node.step(found))

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    async def init_producer(self) -> tuple[int, int]:
        def effect() -> tuple[int, int]:
            self._node.producers += 1
            return self._node.producers, 0

        found: tuple[int, int] = self._node.step(effect)
        return found

    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]:
        self._node.clock.advance(7)
        blocks: list[Block] = self._node.step(self._read)
        if not blocks:
            self._node.idle()
        return blocks

    def _read(self) -> list[Block]:
        blocks = []
        for (topic, partition), position in self._positions.items():
            log = self._node.topics[topic][partition]
            self.ends[topic, partition] = len(log)
            if not self._node.starts.get((topic, partition), 0) <= position <= len(log):
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"reading {topic}/{partition}")
            rows = log[position : position + self._node.records_per_poll]
            if rows:
                offsets = list(range(position, position + len(rows)))
                times, keys, values, headers = (list(column) for column in zip(*rows, strict=True))
                block = Block(topic, partition, offsets, times, keys, values, headers, position + len(rows))
                blocks.append(block)
                self._positions[topic, partition] = block.next_offset
        return blocks

    async def produce(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        *,
        producer: tuple[int, int] = (-1, -1),
        base_sequence: int = -1,
    ) -> int:
        batch = list(records)
        return int(self._node.step(lambda: self._node.append(topic, partition, batch, producer, base_sequence)))


def export_from(monkeypatch: pytest.MonkeyPatch, reader: MemoryReader) -> None:
    """Have `headwater export` read from here, as if it had found a running node."""

    class Connected:
        @staticmethod
        async def connect(*_: Any, **__: Any) -> MemoryReader:
            return reader

    monkeypatch.setattr(reader_module, "Reader", Connected)
    monkeypatch.setattr(export_module, "need_status", lambda _: {"addresses": {"kafka": "127.0.0.1:1"}})
