"""Long stories of one node: disorder and gaps at TSBS's rates, a fast device, three hours of outage and their backfill.

What is last said of each window equals a recomputation from the sorted readings; how the log is cut into blocks does
not show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from processors.aggregates.sketches import RELATIVE_ERROR
from processors.processor import Output, PartitionProcessor
from tests.support.river import Row, alert, block, mark, processor, values, window

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_735_689_600_000
GAP_MS = 25_000
COMMON: dict[str, Any] = {
    "size_s": None,
    "fields": {"t": ["count", "sum", "mean", "min", "max", "p95"]},
    "allowed_lateness_s": 6 * 3600,
}
HALF_HOURS = {f"n{n}": f"{n // 2:02}:{n % 2 * 30:02}" for n in range(48)}
RULES = {
    "tumbling": window(**COMMON | {"size_s": 60}),
    "hopping": window(**COMMON | {"kind": "hopping", "size_s": 300, "every_s": 60}),
    "session": window(**COMMON | {"kind": "session", "gap_s": GAP_MS / 1000}),
    # in Kolkata, half an hour beside the full hours of UTC, they begin with the half hours of UTC all the same
    "calendar": window(
        **COMMON | {"kind": "calendar", "calendar": "shifts", "zone": "Asia/Kolkata", "shifts": HALF_HOURS}
    ),
}
kinds = pytest.mark.parametrize("kind", RULES)
quick_and_long = pytest.mark.parametrize(
    "kind",
    [kind if kind == "tumbling" else pytest.param(kind, marks=pytest.mark.long("windows-disorder")) for kind in RULES],
)


def run(rows: Sequence[Row], sizes: Sequence[int], made: PartitionProcessor) -> list[Output]:
    outputs, at, turn = [], 0, 0
    while at < len(rows):
        size = sizes[turn % len(sizes)]
        outputs += made.process(block(rows[at : at + size], base=at))
        at, turn = at + size, turn + 1
    return outputs


def latest(outputs: Sequence[Output]) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The last revision of each window but of sessions that were taken back; no revision is left out."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for value in values(outputs):
        key = value["group"].partition("/")[2], value["start"]
        assert value["revision"] == (found[key]["revision"] + 1 if key in found else 0)
        found[key] = value
    return {(*key, value["end"]): value for key, value in found.items() if "merged_into" not in value}


def truth(kind: str, rows: Sequence[Row]) -> dict[tuple[str, int, int], list[float]]:
    """(device, start, end) -> the values of all readings in it, from the readings in the order of their times."""
    found: dict[tuple[str, int, int], list[float]] = {}
    sessions: dict[str, list[tuple[int, float]]] = {}
    for row in sorted(rows, key=lambda row: row.time):
        if row.device == "$gateway":
            continue
        time, value = row.time, row.fields["t"]
        match kind:
            case "tumbling":
                spans = [(time // MINUTE * MINUTE, MINUTE)]
            case "hopping":
                spans = [((time // MINUTE - n) * MINUTE, 5 * MINUTE) for n in range(5)]
            case "calendar":
                spans = [(time // (30 * MINUTE) * 30 * MINUTE, 30 * MINUTE)]
            case _:
                spans = []
                mine = sessions.setdefault(row.device, [])
                if mine and time - mine[-1][0] >= GAP_MS:
                    found[row.device, mine[0][0], mine[-1][0] + GAP_MS] = [one for _, one in mine]
                    mine.clear()
                mine.append((time, value))
        for start, size in spans:
            found.setdefault((row.device, start, start + size), []).append(value)
    last = {(device, mine[0][0], mine[-1][0] + GAP_MS): [one for _, one in mine] for device, mine in sessions.items()}
    return found | last


def check(kind: str, outputs: Sequence[Output], rows: Sequence[Row], before_ms: int) -> None:
    """Every window that ends by then, and no other, with what its readings say."""
    wanted = {key: numbers for key, numbers in truth(kind, rows).items() if key[2] <= before_ms}
    found = latest(outputs)
    assert found.keys() == wanted.keys()
    assert len(wanted) >= 4
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
@kinds
@pytest.mark.parametrize(("missing", "disordered", "repeated"), [(0.01, 0.05, 0.02), (0.10, 0.30, 0.02)])
def test_gaps_and_disorder_at_tsbs_rates(kind: str, missing: float, disordered: float, repeated: float) -> None:
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
    counted = processor(RULES[kind])
    outputs = run(rows, [997], counted)
    check(kind, outputs, rows, end)
    assert counted.counters()["late"] > 0.8 * disordered * len(arrivals)
    assert counted.counters()["too_late"] == 0
    for sizes in ([1, 250, 3], [len(rows)]):
        assert run(rows, sizes, processor(RULES[kind])) == outputs


@quick_and_long
def test_a_fast_device_beside_slow_ones(kind: str) -> None:
    """A thousand readings a second for two minutes from one, one a minute from others."""
    random, rows = Random(1), []
    for second in range(120):
        at = START + second * 1000
        rows += [Row("fast", at + ms, {"t": round(random.gauss(0, 1), 4)}) for ms in range(1000)]
        rows += [Row(f"slow{n}", at, {"t": float(n)}) for n in range(3) if second % 60 == 10 * n]
        rows.append(health(at + 999, at - 1001, second))
    rows.append(health(START + HOUR, START + HOUR, 120))
    outputs = run(rows, [10_000], processor(RULES[kind]))
    check(kind, outputs, rows, START + HOUR)
    assert run(rows, [777, 5, 12_345], processor(RULES[kind])) == outputs


def outage() -> list[Row]:
    """Five devices, a reading each five seconds but for half a minute now and then: copies by a live lane and, after
    three hours without a link, by a backfill lane that owes what came meanwhile. The marks say so, as marks of a node
    with two lanes will.
    """
    cut, back, end = START + HOUR, START + 4 * HOUR, START + 5 * HOUR
    random = Random(3)
    log = [
        Row(f"d{device}", at + device, {"t": round(random.gauss(20, 5), 3)}, None, "n1", (0, 0, offset * 5 + device))
        for offset, at in enumerate(range(START, end, 5_000))
        for device in range(5)
        if (at + device * MINUTE) % (7 * MINUTE) >= 30_000
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


@quick_and_long
def test_three_hours_of_outage_and_their_backfill(kind: str) -> None:
    rows = outage()
    hot = alert(window="w", field="t", fire_above=1e9, clear_below=0)

    def made() -> PartitionProcessor:
        return processor(RULES[kind], alerts=[hot])

    outputs = run(rows, [500], made())
    check(kind, outputs, rows, START + 5 * HOUR)
    told = [value for value in values(outputs) if "merged_into" not in value]
    cut, back = START + HOUR, START + 4 * HOUR
    reach = GAP_MS - 1 if kind == "session" else 0  # a reading so far before its start would belong to it
    assert not values(outputs, "alerts")
    for value in told:
        in_outage = value["end"] > cut and value["start"] - reach < back
        if not in_outage:
            assert value["revision"] == 0
            assert value["cause"] == "close"
        elif value["complete"]:
            assert value["cause"] == "backfill"
            assert value["retro"]
    complete = Counter((value["group"], value["start"]) for value in told if value["complete"])
    assert max(complete.values()) == 1, "complete once, when all of it was there"
    missed = [value for value in told if cut <= value["start"] < back and value["complete"]]
    assert kind != "tumbling" or len(missed) == 5 * 180
    assert run(rows, [1, 3_000, 7], made()) == outputs
