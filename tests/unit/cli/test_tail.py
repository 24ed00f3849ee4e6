"""`headwater tail` against a reader in memory: which records it shows, from where, and what it says on the way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS
from headwater.cli import tail as module
from headwater.cli.tail import LOOK_BACK_MAX, tail
from headwater.errors import UserError

HEALTH = b"n/$gateway"
Row = tuple[bytes, bytes]  # key, value


class MemoryReader:
    """The part of `Reader` that tail uses; batches of `batch` records, as the wire answers with whole ones."""

    def __init__(self, logs: list[list[Row]], *, batch: int = 3, start: int = 0) -> None:
        self.logs, self.batch, self.start = logs, batch, start
        self.read = 0
        self._positions: dict[tuple[str, int], int] = {}

    async def partitions(self, topic: str) -> int:
        return len(self.logs) if topic == "readings" else 0

    async def offset(self, topic: str, partition: int, at: str) -> int:
        return self.start if at == "earliest" else self.start + len(self.logs[partition])

    def assign(self, positions: dict[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    async def poll(self, *, max_wait_ms: int) -> list[Block]:
        blocks = []
        for (topic, partition), at in self._positions.items():
            log = self.logs[partition]
            begin, end = at - self.start, min(len(log), (at - self.start) // self.batch * self.batch + 1_000)
            if begin < len(log):
                rows = log[begin:end]
                offsets = [self.start + n for n in range(begin, end)]
                times = [1_000 * offset + partition for offset in offsets]
                keys: list[bytes | None] = [row[0] for row in rows]
                values: list[bytes | None] = [row[1] for row in rows]
                headers = [NO_HEADERS] * len(rows)
                blocks.append(Block(topic, partition, offsets, times, keys, values, headers, self.start + end))
                self._positions[topic, partition] = self.start + end
                self.read += len(rows)
        if not blocks:
            raise KeyboardInterrupt  # nothing comes any more: whoever waits, waits for ever
        return blocks

    async def close(self) -> None:
        pass


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs tail over logs; returns (values printed, what stderr says, whether it ended by itself)."""

    def run(reader: MemoryReader, *, start: str = "", number: int | None = None, as_json: bool = False) -> Any:
        async def connect(*_: Any, **__: Any) -> MemoryReader:
            return reader

        monkeypatch.setattr(module, "need_status", lambda _: {})
        monkeypatch.setattr(module, "kafka_address", lambda _: ("h", 1))
        monkeypatch.setattr("gateway.consume.reader.Reader.connect", connect)
        ended = True
        try:
            asyncio.run(tail(None, "readings", start=start, number=number, as_json=as_json, everything=False))
        except KeyboardInterrupt:
            ended = False
        printed = capsys.readouterr()
        out = printed.out.splitlines()
        return [line if as_json else line.split("  ")[2] for line in out], printed.err, ended

    return run


def readings(count: int, *, first: int = 0) -> list[Row]:
    return [(b"n/pump", b"%d" % value) for value in range(first, first + count)]


def test_a_number_means_the_last_ones(shown: Any) -> None:
    assert shown(MemoryReader([readings(25)]), number=1) == (["24"], "", True)
    assert shown(MemoryReader([readings(25)]), number=3) == (["22", "23", "24"], "", True)


def test_without_a_number_the_last_ten_come_and_it_stays(shown: Any) -> None:
    values, _, ended = shown(MemoryReader([readings(25)]))
    assert (values, ended) == ([str(value) for value in range(15, 25)], False)


def test_from_an_offset_a_number_counts_forward(shown: Any) -> None:
    assert shown(MemoryReader([readings(25)]), start="7", number=2)[0] == ["7", "8"]
    assert shown(MemoryReader([readings(25)]), start="start", number=2)[0] == ["0", "1"]
    assert shown(MemoryReader([readings(25)]), start="-4", number=2)[0] == ["21", "22"]


def test_readings_behind_many_health_readings_are_found(shown: Any) -> None:
    reader = MemoryReader([[*readings(2), *[(HEALTH, b"{}")] * 30_000]])
    assert shown(reader, number=1) == (["1"], "", True)
    far = MemoryReader([[*readings(1), *[(HEALTH, b"{}")] * LOOK_BACK_MAX]])
    values, said, ended = shown(far, number=1)
    assert (values, ended) == ([], False)
    assert far.read <= LOOK_BACK_MAX + 5 * 1_000  # a fetch brings more than was asked for, once a step
    assert "waiting" in said


def test_one_look_back_reads_nothing_twice(shown: Any) -> None:
    reader = MemoryReader([[*readings(1), *[(HEALTH, b"{}")] * 5_000]])
    shown(reader, number=1)
    assert reader.read <= 2 * 5_001


def test_the_last_of_several_partitions_go_by_time(shown: Any) -> None:
    reader = MemoryReader([readings(5), readings(5, first=100)])
    assert shown(reader, number=3)[0] == ["103", "4", "104"]


def test_an_empty_log_says_that_it_waits(shown: Any) -> None:
    values, said, ended = shown(MemoryReader([[]]), number=1)
    assert (values, ended) == ([], False)
    assert "waiting" in said


def test_an_offset_past_the_end_is_refused(shown: Any) -> None:
    with pytest.raises(UserError, match="--from 99999 is past the end of topic “readings”, 35") as caught:
        shown(MemoryReader([readings(25)], start=10), start="99999")
    assert "offsets 10 to 34" in caught.value.hint
    assert "begins at offset 10" in shown(MemoryReader([readings(25)], start=10), start="3", number=1)[1]


@pytest.mark.parametrize("value", [b"1e999", b'{"a":1e999}', b"NaN", b'{"a":-Infinity}', b"[" * 100_000])
def test_json_lines_are_json(shown: Any, value: bytes) -> None:
    [line], _, _ = shown(MemoryReader([[(b"n/odd", value)]]), number=1, as_json=True)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse)["value"] == value.decode()
