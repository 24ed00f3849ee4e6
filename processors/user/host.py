"""What the two forms need of the partition that they work on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from gateway.consume.reader import Block
from headwater.errors import HeadwaterError
from processors.columns import Bools
from processors.user.settings import UserLimits

DEADLETTER = "deadletter"
Record = tuple[str, int, bytes, bytes]
"""(topic, event time, key, value) of an output"""


class Failure(HeadwaterError):  # noqa: N818 - an event that the engine deals with
    """The user's code raised, or was killed."""

    def __init__(self, reason: str, weight: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.weight = weight


class Stopped(HeadwaterError):  # noqa: N818 - an event that the partition deals with
    """Too many failures in a row; `offset` is where to go on."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Rows(NamedTuple):
    """A block, what its values say, its keys ("": not for this processor), and which rows are backfill."""

    block: Block
    documents: list[dict[str, Any]]
    keys: list[str]
    backfill: Bools | None


def call_of(whose: str, what: str, time_ms: int) -> int:
    """The name, for `Host.call`, of a call that is no reading's: a number below -1, the same each time."""
    return -2 - zlib.crc32(f"{whose}\0{what}\0{time_ms}".encode())


class Host(Protocol):
    """See `processors.user.partition.UserPartition`. A call is known by its reading's offset, else by `call_of`."""

    limits: UserLimits
    watermarks: dict[str, int]

    def call(self, first: int, last: int) -> AbstractContextManager[None]: ...
    def careful(self, offset: int) -> bool: ...
    def about(self, key: str, offset: int) -> Mapping[str, str]: ...
    def emitted(self, value: Any, topic: str, key: str, time_ms: Any) -> Record: ...
    def say(self, offset: int, said: list[Record]) -> None: ...
    def well(self, count: int = 1) -> None: ...
    def failed(self, failure: Failure, offset: int, time_ms: int, key: str, value: bytes, *, before: bool) -> None: ...
