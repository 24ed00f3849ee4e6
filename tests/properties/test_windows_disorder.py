"""Long stories of one node: disorder and gaps at TSBS's rates, a fast device, three hours of outage and their backfill.

What is last said of each window equals a recomputation from the sorted readings; how the log is cut into blocks does
not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from processors.aggregates.sketches import RELATIVE_ERROR
from processors.processor import Output, PartitionProcessor
from tests.support.river import Row, alert, block, mark, processor, values, window

MINUTE = 60_000
HOUR = 60 * MINUTE
RULE = window(size_s=60, fields={"t": ["count", "sum", "mean", "min", "max", "p95"]}, allowed_lateness_s=6 * 3600)
START = 1_735_689_600_000


def run(rows: Sequence[Row], sizes: Sequence[int], made: PartitionProcessor | None = None) -> list[Output]:
    made = made or processor(RULE)
    outputs, at, turn = [], 0, 0
    while at < len(rows):
        size = sizes[turn % len(sizes)]
        outputs += made.process(block(rows[at : at + size], base=at))
        at, turn = at + size, turn + 1
    return outputs


def latest(outputs: Sequence[Output]) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for value in values(outputs):
        key = value["group"].partition("/")[2], value["start"]
        assert value["revision"] == (found[key]["revision"] + 1 if key in found else 0)
        found[key] = value
    return found


def check(outputs: Sequence[Output], rows: Sequence[Row], before_ms: int) -> None:
    """Every window that ends by then, and no other, with what its readings say."""
    wanted: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row.device != "$gateway" and (start := row.time // MINUTE * MINUTE) + MINUTE <= before_ms:
            wanted.setdefault((row.device, start), []).append(row.fields["t"])
    found = latest(outputs)
    assert found.keys() == wanted.keys()
    for key, numbers in wanted.items():
        told = found[key]["fields"]["t"]
        assert found[key]["complete"] is True
        assert found[key]["count"] == told["count"] == len(numbers)
        assert (told["min"], told["max"]) == (min(numbers), max(numbers))
        assert math.isclose(told["sum"], math.fsum(numbers), rel_tol=1e-12)
        assert math.isclose(told["mean"], math.fsum(numbers) / len(numbers), rel_tol=1e-12)
        ranked = sorted(numbers)[math.floor(0.95 * (len(numbers) - 1))]
        assert abs(told["p95"] - ranked) <= RELATIVE_ERROR * abs(ranked)


def health(at_ms: int, live: int, number: int, **more: Any) -> Row:
    return Row("$gateway", at_ms, {"disk": 1}, mark("n1", live, n=number, **more))


@pytest.mark.long("windows-disorder")
@pytest.mark.parametrize(("missing", "disordered"), [(0.01, 0.05), (0.10, 0.30)])
@pytest.mark.parametrize("repeated", [0.0, 0.02])
def test_gaps_and_disorder_at_tsbs_rates(missing: float, disordered: float, repeated: float) -> None:
    """Ten devices, a reading each ten seconds for three hours; late ones come up to half an hour after their time."""
    random = Random(f"{missing} {disordered} {repeated}")
    arrivals: list[tuple[float, Row]] = []
    for at in range(START, START + 3 * HOUR, 10_000):
        for device in range(10):
            if random.random() < missing:
                continue
            row = Row(f"d{device}", at + device, {"t": round(random.gauss(20, 5), 3)})
            late_ms = random.randrange(30 * MINUTE) if random.random() < disordered else 0
            arrivals.append((at + late_ms, row))
            if random.random() < repeated:  # what no natural key recognised counts as another reading
                arrivals.append((at + late_ms + random.randrange(MINUTE), row))
    arrivals.sort(key=lambda item: item[0])
    rows: list[Row] = []
    next_mark = START + 1_000
    for at_ms, row in arrivals:
        while at_ms >= next_mark:
            rows.append(health(next_mark, next_mark - 2_000, len(rows)))
            next_mark += 1_000
        rows.append(row)
    end = START + 4 * HOUR
    rows.append(health(end, end, len(rows)))
    outputs = run(rows, [997])
    check(outputs, rows, end)
    counted = processor(RULE)
    run(rows, [997], counted)
    assert counted.counters()["late"] > 0.8 * disordered * len(arrivals)
    assert counted.counters()["too_late"] == 0
    assert run(rows, [1, 250, 3]) == outputs == run(rows, [len(rows)])


def test_a_fast_device_beside_slow_ones() -> None:
    """A thousand readings a second for two minutes from one, one a minute from others."""
    random, rows = Random(1), []
    for second in range(120):
        at = START + second * 1000
        rows += [Row("fast", at + ms, {"t": round(random.gauss(0, 1), 4)}) for ms in range(1000)]
        rows += [Row(f"slow{n}", at, {"t": float(n)}) for n in range(3) if second % 60 == 10 * n]
        rows.append(health(at + 999, at - 1001, second))
    rows.append(health(START + 3 * MINUTE, START + 2 * MINUTE, 120))
    outputs = run(rows, [10_000])
    check(outputs, rows, START + 2 * MINUTE)
    assert run(rows, [777, 5, 12_345]) == outputs


def outage() -> list[Row]:
    """Five devices, a reading each five seconds: copies by a live lane and, after three hours without a link, by a
    backfill lane that owes what came meanwhile. The marks say so, as marks of a node with two lanes will.
    """
    cut, back, end = START + HOUR, START + 4 * HOUR, START + 5 * HOUR
    random = Random(3)
    log = [
        Row(f"d{device}", at + device, {"t": round(random.gauss(20, 5), 3)}, None, "n1", (0, 0, offset * 5 + device))
        for offset, at in enumerate(range(START, end, 5_000))
        for device in range(5)
    ]
    before = [row for row in log if row.time < cut]
    owed = [row for row in log if cut <= row.time < back]
    live = [row for row in log if row.time >= back]
    rows: list[Row] = []

    def say(row: Row, open_from: int | None = None) -> None:
        rows.append(row)
        if row.device == "d4":
            owes = {} if open_from is None else {"open": [[open_from, back - 1]]}
            told = mark("n1", row.time - 2_000, n=len(rows), **owes)
            rows.append(Row("$gateway", row.time, {"disk": 1}, told, "n1", row.hw))

    for row in before:
        say(row)
    taken = 0
    for number, row in enumerate(live):  # eight of the past for one of now
        say(row, owed[taken].time if taken < len(owed) else None)
        if number % 5 == 4:
            rows += owed[taken : taken + 40]
            taken += 40
    assert taken >= len(owed)
    return [*rows, health(end, end, len(rows))]


def test_three_hours_of_outage_and_their_backfill() -> None:
    rows = outage()
    rule = alert(window="w", field="t", fire_above=1e9, clear_below=0)
    outputs = run(rows, [500], processor(RULE, alerts=[rule]))
    check(outputs, rows, START + 5 * HOUR)
    told = values(outputs)
    cut, back = START + HOUR, START + 4 * HOUR
    assert not values(outputs, "alerts")
    for value in told:
        in_outage = value["start"] + MINUTE > cut and value["start"] < back
        if not in_outage:
            assert value["revision"] == 0
            assert value["cause"] == "close"
        elif value["complete"]:
            assert value["cause"] == "backfill"
            assert value["retro"]
    missed = [value for value in told if cut <= value["start"] < back and value["complete"]]
    assert len(missed) == 5 * 180  # once each, when all of it was there
    assert run(rows, [1, 3_000, 7], processor(RULE, alerts=[rule])) == outputs
