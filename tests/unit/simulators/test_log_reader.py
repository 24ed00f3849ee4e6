"""Reading a log to its end while others write into it."""

from __future__ import annotations

from typing import Any

import pytest

from simulators import verdict
from simulators.verdict import LogReader


class Record:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "readings"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


class Busy:
    """A consumer of a log that ended at 3 and takes a record for each fetch: its end is never told."""

    class Listed:
        topics = {"readings": type("Topic", (), {"partitions": {0: None}})}  # noqa: RUF012

    def __init__(self, _: Any) -> None:
        self.fetches = 0

    def list_topics(self, **_: Any) -> Listed:
        return self.Listed()

    def incremental_assign(self, _: Any) -> None:
        pass

    def get_watermark_offsets(self, _: Any, **__: Any) -> tuple[int, int]:
        return 0, 3

    def consume(self, *_: Any) -> list[Record]:
        if self.fetches > 50:
            raise AssertionError("reads for ever")
        self.fetches += 1
        return [Record(self.fetches - 1)]


def test_a_log_that_grows_all_the_time_is_read_to_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "Consumer", Busy)
    read: list[int] = []
    reader = LogReader("127.0.0.1:1", {"readings": lambda record: read.append(record.offset())})
    assert reader.read_to_end(1.0)
    assert read == [0, 1, 2]
