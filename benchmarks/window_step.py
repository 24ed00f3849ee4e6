"""window-step: readings per second through the columns of a window rule alone, on one core; beside `np.bincount`.

Columns as they come out of a block of 10,000 records of 1,000 devices, a mark at the end of each: cells are found,
count, sum, min and max accumulated, and windows told (as columns of results) and forgotten as time goes by. Windows
are a minute long; as `hours` an hour, where what a window costs is spread over 60 times as many readings. `decoded`
begins at record batches instead, as the inline driver does. The peer is the least that any NumPy code can do:
`np.bincount` for counts and sums of numbers that are ready, without min and max, without windows that close. (It may
not be used: the sums depend on how readings are split into blocks.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, Run, compare
from gateway.consume.reader import decode_fetched
from gateway.log.headers import NO_HEADERS
from gateway.log.records import encode_batch
from processors.columns import Columns, KeyTable
from processors.documents import FieldColumn
from processors.marks import Mark, NodeMarks
from processors.processor import PartitionProcessor
from processors.rules.files import parse_rules
from processors.rules.model import Rules
from processors.windows.kinds import window_state

NAME = "window-step"
NODE = "edge-1"
RULES = """\
[[window]]
name = "w"
size_s = {size_s}
every_field = []
fields = {{ value = ["count", "mean", "min", "max"] }}
allowed_lateness_s = {size_s}
"""


@dataclass(frozen=True)
class Load:
    """A reading a second from each device, so many blocks of so many rows."""

    devices: int = 1_000
    rows: int = 10_000
    blocks: int = 200

    @property
    def readings(self) -> int:
        return self.rows * self.blocks


def rows_of(load: Load) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Keys, times and values of each block."""
    random = np.random.default_rng(1)
    for block in range(load.blocks):
        turns = np.arange(block * load.rows, (block + 1) * load.rows)
        yield turns * 7 % load.devices, turns * 1_000 // load.devices, random.normal(50.0, 9.0, load.rows)


def step(load: Load, rules: Rules) -> Run:
    """Columns to results."""
    keys = KeyTable()
    keys.ids([f"{NODE}/d{device}".encode() for device in range(load.devices)])
    none = np.zeros(load.rows, dtype=np.bool_)
    blocks = [
        Columns(key, times, none, {"value": FieldColumn(None, values)}, [], 0) for key, times, values in rows_of(load)
    ]
    state = window_state(rules.windows[0], keys)
    told = 0
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for columns in blocks:
        state.add(columns, 0, load.rows)
        live = max(0, int(columns.time[-1]) - 2_000)
        told += len(state.close(Mark(node=NODE, live=live), NodeMarks(parts={0: live})))
    return _run(load, began_s, cpu_s, told)


def decoded(load: Load, rules: Rules) -> Run:
    """Record batches as a fetch brings them, to records of results."""
    batches, offset = [], 0
    keys = [f"{NODE}/d{device}".encode() for device in range(load.devices)]
    for key, times, values in rows_of(load):
        texts = [b'{"value":%.3f}' % value for value in values.tolist()]
        chosen = [keys[number] for number in key.tolist()]
        headers = [NO_HEADERS] * load.rows
        records = list(zip(times.tolist(), chosen, texts, headers, strict=True))
        encoded = b""
        for begin in range(0, load.rows, 500):
            piece = records[begin : begin + 500]
            encoded += bytes(encode_batch(piece, base_offset=offset + begin))
        batches.append(encoded)
        offset += load.rows
    processor = PartitionProcessor(rules, "readings", 0, place="central")
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for number, data in enumerate(batches):
        processor.process(decode_fetched("readings", 0, number * load.rows, data, ()))
    return _run(load, began_s, cpu_s, processor.counters()["late"])


def bincount(load: Load) -> Run:
    """Counts and sums per window and device, of indices that are there."""
    blocks = [(key + times // 60_000 * load.devices, values) for key, times, values in rows_of(load)]
    size = load.devices * (load.readings // load.devices // 60 + 2)
    counts, sums = np.zeros(size), np.zeros(size)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for cells, values in blocks:
        counts += np.bincount(cells, minlength=size)
        sums += np.bincount(cells, values, minlength=size)
    return _run(load, began_s, cpu_s, int((counts > 0).sum()))


def _run(load: Load, began_s: float, cpu_s: float, told: int) -> Run:
    elapsed_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return Run(load.readings / elapsed_s, {"cpu_us": used_s / load.readings * 1e6, "told": told})


def main(*, load: Load | None = None, rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Run the benchmark; what it wrote."""
    load = load or Load()
    rules, hours = (parse_rules([(RULES.format(size_s=size_s), "window-step")]) for size_s in (60, 3_600))
    print(f"{NAME}: {load.readings:,} readings of {load.devices:,} devices in blocks of {load.rows:,}, one core")
    return compare(
        NAME,
        unit="readings/s",
        better="higher",
        ours=lambda: step(load, rules),
        peers={
            "hours": lambda: step(load, hours),
            "decoded": lambda: decoded(load, rules),
            "bincount": lambda: bincount(load),
        },
        parameters={**asdict(load), "rounds": rounds},
        rounds=rounds,
        results=results,
    )
