"""The benchmarks' convention: turns, void runs, and the file that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.harness import Run, Void, compare
from benchmarks.mqtt_load import packet, payload, percentile

FIELDS = ["name", "unit", "better", "ours", "peers", "ratio", "parameters", "machine", "details"]


@pytest.mark.parametrize(("better", "ratio"), [("higher", 0.5), ("lower", 2.0)])
def test_contestants_take_turns_and_a_ratio_above_one_means_ours(
    tmp_path: Path, better: Literal["higher", "lower"], ratio: float
) -> None:
    turns: list[str] = []

    def contestant(who: str, values: list[float]) -> Run:
        turns.append(who)
        return Run(values[turns.count(who) - 1], {"p99_ms": values[0]})

    report = compare(
        "demo",
        unit="s",
        better=better,
        ours=lambda: contestant("ours", [3, 5, 4]),
        peers={"peer": lambda: contestant("peer", [8, 8, 100])},
        parameters={"n": 1},
        results=tmp_path,
    )
    assert turns == ["ours", "peer"] * 3
    assert report["ours"] == {"min": 3, "median": 4, "max": 5}
    assert report["ratio"] == {"peer": ratio}
    assert json.loads((tmp_path / "demo.json").read_text()) == report
    assert list(report) == FIELDS
    assert report["details"] == {"ours": {"p99_ms": 3}, "peer": {"p99_ms": 8}}


def test_a_void_run_is_done_again_and_many_end_the_benchmark(tmp_path: Path) -> None:
    outcomes: list[Run | Void] = [Void("1 message lost"), Run(7)]

    def peer() -> Run:
        outcome = outcomes.pop(0) if outcomes else Void("always")
        if isinstance(outcome, Void):
            raise outcome
        return outcome

    def run(rounds: int) -> object:
        parameters: dict[str, object] = {}
        return compare(
            "demo",
            unit="s",
            better="higher",
            ours=lambda: Run(1),
            peers={"peer": peer},
            parameters=parameters,
            rounds=rounds,
            results=tmp_path,
        )["peers"]

    assert run(1) == {"peer": {"min": 7, "median": 7, "max": 7}}
    with pytest.raises(SystemExit, match="3 void runs"):
        run(1)


def test_percentiles_count_messages_not_blocks() -> None:
    assert percentile([(5.0, 1), (1.0, 98), (3.0, 1)], 0.50) == 1.0
    assert percentile([(5.0, 1), (1.0, 98), (3.0, 1)], 0.99) == 3.0
    assert percentile([(5.0, 1), (1.0, 98), (3.0, 1)], 1.0) == 5.0


def test_packets_are_as_long_as_they_say() -> None:
    assert packet(0x32, b"x" * 127)[:2] == b"\x32\x7f"
    # MQTT 3.1.1, section 2.2.3: 321 decimal is encoded as 0xC1 0x02
    assert packet(0x32, b"x" * 321)[:3] == b"\x32\xc1\x02"


def test_every_payload_is_json_of_the_size_asked_for() -> None:
    seen = {
        payload(connection, index, 100, 1_735_689_600_000 + index) for connection in (0, 99) for index in range(500)
    }
    assert {len(text) for text in seen} == {100}
    assert len(seen) == 1000
    assert all(json.loads(text)["seq"] >= 100_000_000 for text in seen)
