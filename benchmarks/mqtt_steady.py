"""An edge that is not at its limit: how long a PUBACK takes at half the load, and what a thousand connections weigh.

mqtt-puback: `mqtt-ingest` with `fsync_interval_ms = 0` finds the most this machine takes, then the same node gets half
of that at a steady rate, in the same blocks of 20; the value is the 99th percentile of the time from PUBLISH to PUBACK.
Beside it, in the same run: the 99th percentile of a 32 KiB append and its `fdatasync` on the same disk, right before.

mqtt-thousand: 5,000 messages a second from 1,000 connections, all settings at their defaults; the value is the core
process's peak memory.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.mqtt_ingest import Load, ours, scratch

_PROBE_BYTES = 32 << 10
STEADY_S = 8.0
CROWD = Load(connections=1_000, messages=100_000, rate=5_000.0, block=1)


def fdatasync_p99_ms(directory: Path, seconds: float = 2.0) -> float:
    """The 99th percentile of an append and its `fdatasync` on the disk of `directory`."""
    path = directory / "probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    times_ms = []
    try:
        until_s = time.perf_counter() + seconds
        while (began_s := time.perf_counter()) < until_s:
            os.write(handle, bytes(_PROBE_BYTES))
            os.fdatasync(handle)
            times_ms.append((time.perf_counter() - began_s) * 1000)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.quantiles(times_ms, n=100)[98]


def puback(load: Load, seconds: float) -> Run:
    """One run at full speed, then one at half of it."""
    most = ours(load, log="fsync_interval_ms = 0").value
    disk_ms = fdatasync_p99_ms(scratch(), seconds / 4)
    rate = most / 2
    steady = ours(replace(load, messages=int(rate * seconds), rate=rate), log="fsync_interval_ms = 0")
    details = {
        "fdatasync_p99_ms": disk_ms,
        "wanted_ms": 3 * disk_ms + 5,
        "rate": steady.value,
        **{key: steady.details[key] for key in ("puback_p50_ms", "cpu_us", "generator_busy")},
    }
    return Run(steady.details["puback_p99_ms"], details)


def crowd(load: Load) -> Run:
    """One run at a steady rate."""
    run = ours(load)
    details = {key: run.details[key] for key in ("puback_p50_ms", "puback_p99_ms", "cpu_us", "generator_busy")}
    return Run(run.details["rss_mib"], {"rate": run.value, **details})


def main(
    *,
    load: Load | None = None,
    many: Load = CROWD,
    seconds: float = STEADY_S,
    rounds: int = 3,
    results: Path = RESULTS,
) -> dict[str, dict[str, Any]]:
    """Run both; their reports by name."""
    load = load or Load(messages=200_000)
    found = {}
    for name, unit, contestant, given in (
        ("mqtt-puback", "ms", lambda: puback(load, seconds), load),
        ("mqtt-thousand", "MiB", lambda: crowd(many), many),
    ):
        print(f"{name}: {given.connections} connections, {given.inflight} in flight at most, {given.size} B")
        found[name] = compare(
            name,
            unit=unit,
            better="lower",
            ours=contestant,
            peers={},
            parameters={**asdict(given), "rounds": rounds},
            rounds=rounds,
            results=results,
        )
    return found
