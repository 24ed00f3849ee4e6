"""What those who only read a node's topics need of `gateway.consume.reader.Reader`; tests hand in one in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.consume.reader import Block


class ReadingLog(Protocol):
    """Partitions, offsets and records of a node's topics."""

    ends: dict[tuple[str, int], int]

    async def partitions(self, topic: str) -> int: ...
    async def offset(self, topic: str, partition: int, at: str | int) -> int: ...
    def assign(self, positions: Mapping[tuple[str, int], int]) -> None: ...
    async def poll(self, *, max_wait_ms: int = ..., max_bytes: int = ...) -> list[Block]: ...
    async def close(self) -> None: ...
