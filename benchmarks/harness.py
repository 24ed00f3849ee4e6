"""How every benchmark is run and reported: ours and each peer in turn, at least three times, one JSON file.

`compare` takes one function per contestant; each call is one whole run on a fresh server and returns a `Run`. They take
turns (A B A B …), so that a machine that slows down slows both. A run in which a peer lost a message is void: it is
done again. The file `build/bench/<name>.json` holds

    {"name", "unit", "better": "higher" | "lower",
     "ours": {"min", "median", "max"}, "peers": {"mosquitto": {"min", "median", "max"}},
     "ratio": {"mosquitto": x},                   above 1: we are better, whatever `better` says
     "parameters": {…}, "machine": {…},
     "details": {"ours": {"p99_ms": …}, "mosquitto": {…}}}     medians of what else was measured
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench"
VOID_RUNS_MAX = 3


class Void(Exception):  # noqa: N818 - a run's outcome, not an error of the program
    """The peer lost something, so this run compares nothing."""


@dataclass(frozen=True)
class Run:
    """One run's result in the benchmark's unit, and what else was measured in it."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


Contestant = Callable[[], Run]


def compare(
    name: str,
    *,
    unit: str,
    better: Literal["higher", "lower"],
    ours: Contestant,
    peers: Mapping[str, Contestant],
    parameters: Mapping[str, Any],
    rounds: int = 3,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Run all, print the table, write the file; its content."""
    contestants = {"ours": ours, **peers}
    runs: dict[str, list[Run]] = {who: [] for who in contestants}
    for turn in range(1, rounds + 1):
        for who, contestant in contestants.items():
            run = _valid(who, contestant)
            runs[who].append(run)
            print(f"  round {turn}  {who:<12} {run.value:>12,.0f} {unit}", flush=True)
    report = _report(name, unit, better, runs, parameters)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    _print_table(report)
    return report


def _valid(who: str, contestant: Contestant) -> Run:
    for _ in range(VOID_RUNS_MAX):
        try:
            return contestant()
        except Void as void:
            print(f"  void run   {who:<12} {void}", flush=True)
    raise SystemExit(f"{who}: {VOID_RUNS_MAX} void runs in a row; nothing can be compared")


def _report(
    name: str,
    unit: str,
    better: Literal["higher", "lower"],
    runs: Mapping[str, list[Run]],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    spread = {who: _spread([run.value for run in done]) for who, done in runs.items()}
    ours = spread.pop("ours")
    ratio = {
        who: ours["median"] / theirs["median"] if better == "higher" else theirs["median"] / ours["median"]
        for who, theirs in spread.items()
    }
    details = {
        who: {key: statistics.median(run.details[key] for run in done) for key in done[0].details}
        for who, done in runs.items()
    }
    return {
        "name": name,
        "unit": unit,
        "better": better,
        "ours": ours,
        "peers": spread,
        "ratio": {who: round(value, 3) for who, value in ratio.items()},
        "parameters": dict(parameters),
        "machine": machine(),
        "details": details,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """What this ran on; other work on it shows in the load average."""
    model = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _print_table(report: Mapping[str, Any]) -> None:
    rows = {"ours": report["ours"], **report["peers"]}
    details = report["details"]
    columns = sorted({key for found in details.values() for key in found})
    heads = ["min", "median", "max", *columns]
    print(f"\n{report['name']}: {report['unit']}, {report['better']} is better")
    print(f"  {'':<12}" + "".join(f"  {head:>18}" for head in heads))
    for who, spread in rows.items():
        numbers = [*(spread[key] for key in ("min", "median", "max")), *(details[who].get(key) for key in columns)]
        print(f"  {who:<12}" + "".join(f"  {_short(number):>18}" for number in numbers))
    for who, ratio in report["ratio"].items():
        print(f"  against {who}: {ratio:.2f} (above 1: we are better)")
    sys.stdout.flush()


def _short(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
