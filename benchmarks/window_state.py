"""window-state: what state costs, in memory, in time to the first output after a restart, and with overlapping windows.

`keys`: 100,000 devices in three windows each, in a process of its own: how much more memory it holds than before the
first reading, and how long a new process takes from a checkpoint's bytes (as the inline driver reads them) to the first
results. `panes`: the same readings through a window of an hour that hops every minute, 60 of which overlap, and through
one that does not; what both cost as CPU, outputs included, and as bytes of a snapshot. A reading goes into one pane
however many windows overlap; putting a window together costs its panes. `add` is the part of readings alone.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import RESULTS, Run, compare
from gateway.consume.reader import Block
from gateway.log.headers import NO_HEADERS, encode_headers
from processors.checkpoint import Checkpoint, InputState, Writer, decode_checkpoint, encode_checkpoint
from processors.processor import PartitionProcessor
from processors.rules.files import parse_rules
from processors.rules.model import Rules

NAMES = ("window-state-keys", "window-state-panes")
NODE = "edge-1"
RULE = """
[[window]]
name = "{name}"
kind = "{kind}"
size_s = {size_s}
{more}
every_field = []
fields = {{ value = ["count", "mean", "min", "max"] }}
windows_max = 1_000_000
"""
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Load:
    """`keys` devices for the three windows; `devices` with a reading every ten seconds for the panes."""

    keys: int = 100_000
    devices: int = 100
    hours: int = 3


def three(size_s: tuple[int, ...] = (60, 300, 3_600)) -> Rules:
    """Three windows over each device."""
    rules = "".join(RULE.format(name=f"w{size}", kind="tumbling", size_s=size, more="") for size in size_s)
    return parse_rules([(rules, "window-state")])


def one(size_s: int, every_s: int) -> Rules:
    more = f"every_s = {every_s}" if every_s != size_s else ""
    kind = "hopping" if more else "tumbling"
    return parse_rules([(RULE.format(name="w", kind=kind, size_s=size_s, more=more), "window-state")])


def turn(keys: list[bytes], at_ms: int, base: int, *, marked: bool) -> Block:
    """A reading of each device at one time; a mark behind them."""
    count = len(keys)
    mark = {"v": 1, "node": NODE, "epoch": 0, "partition": 0, "k": 1, "n": base, "live": max(0, at_ms - 2_000)}
    last = encode_headers([("hw-mark", msgspec.json.encode(mark))]) if marked else NO_HEADERS
    return Block(
        *("readings", 0),
        list(range(base, base + count)),
        [at_ms] * count,
        list(keys),
        [b'{"value":%d.5}' % (row % 97) for row in range(count)],
        [NO_HEADERS] * (count - 1) + [last],
        base + count,
    )


def names(count: int) -> list[bytes]:
    return [f"{NODE}/d{number}".encode() for number in range(count)]


def blocks(keys: list[bytes], times: Iterator[int]) -> Iterator[Block]:
    base = 0
    for at_ms in times:
        yield turn(keys, at_ms, base, marked=True)
        base += len(keys)


# keys: in a process of its own, whose memory is nobody else's


def fill(count: int, file: Path) -> dict[str, float]:
    """State of all keys, written to a checkpoint: MiB that it took, MiB of the file, seconds to write."""
    keys = names(count)
    processor = PartitionProcessor(three(), "readings", 0, place="central")
    processor.process(turn(keys[:10], MINUTE_MS, 0, marked=False))
    gc.collect()
    before = rss_mib()
    for begin in range(0, count, 10_000):
        processor.process(turn(keys[begin : begin + 10_000], MINUTE_MS + 1, 10 + begin, marked=False))
    gc.collect()
    held = rss_mib() - before
    began_s = time.perf_counter()
    checkpoint = Checkpoint(inputs={"readings/0": InputState(count, processor.snapshot(), Writer((0, 0)))})
    file.write_bytes(encode_checkpoint(checkpoint))
    return {"mib": held, "file_mib": file.stat().st_size / 2**20, "save_s": time.perf_counter() - began_s}


def restart(count: int, file: Path) -> dict[str, float]:
    """From the checkpoint's bytes to the first results, which close every minute's window."""
    keys, rules = names(count), three()
    block = turn(keys[:1], 2 * MINUTE_MS + 3_000, count + 10, marked=True)
    began_s = time.perf_counter()
    processor = PartitionProcessor(rules, "readings", 0, place="central")
    processor.restore(decode_checkpoint(file.read_bytes()).inputs["readings/0"].state)
    restored_s = time.perf_counter() - began_s
    told = len(processor.process(block))
    if told != count:
        raise SystemExit(f"after the restart {told} windows were told, not {count}")
    return {"restore_s": restored_s, "first_s": time.perf_counter() - began_s}


def rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process has")


def in_own_process(what: str, count: int, file: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.window_state", what, str(count), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_keys(load: Load, results: Path) -> Run:
    results.mkdir(parents=True, exist_ok=True)
    file = results / "window-state.checkpoint"
    try:
        details = in_own_process("fill", load.keys, file) | in_own_process("restart", load.keys, file)
    finally:
        file.unlink(missing_ok=True)
    details["bytes_per_window"] = details["mib"] * 2**20 / (3 * load.keys)
    return Run(details["first_s"], details)


# panes


def run_panes(load: Load, rules: Rules) -> Run:
    """CPU a reading, outputs included, over some hours of event time."""
    keys = names(load.devices)
    end_ms = load.hours * 60 * MINUTE_MS
    made = list(blocks(keys, iter(range(0, end_ms, 10_000))))
    processor = PartitionProcessor(rules, "readings", 0, place="central")
    told, began_s = 0, time.process_time()
    for block in made:
        told += len(processor.process(block))
    cpu_us = (time.process_time() - began_s) / (len(made) * load.devices) * 1e6
    windows = processor.snapshot()["windows"]
    size = len(msgspec.msgpack.encode(windows))
    if not told:
        raise SystemExit("no window was told")
    return Run(cpu_us, {"told": told, "cpu_us_per_output": cpu_us * len(made) * load.devices / told, "bytes": size})


def main(*, load: Load | None = None, rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Run the benchmark; what it wrote, by name."""
    load = load or Load()
    parameters = {**asdict(load), "rounds": rounds}
    print(f"{NAMES[0]}: {load.keys:,} keys × 3 windows; {NAMES[1]}: {load.devices} devices, {load.hours} hours")
    keys = compare(
        NAMES[0],
        unit="s to first output",
        better="lower",
        ours=lambda: run_keys(load, results),
        peers={},
        parameters=parameters,
        rounds=rounds,
        results=results,
    )
    hopping, tumbling, often = one(3_600, 60), one(3_600, 3_600), one(60, 60)
    panes = compare(
        NAMES[1],
        unit="µs a reading",
        better="lower",
        ours=lambda: run_panes(load, hopping),
        peers={"one-pane": lambda: run_panes(load, tumbling), "minutes": lambda: run_panes(load, often)},
        parameters=parameters,
        rounds=rounds,
        results=results,
    )
    return {NAMES[0]: keys, NAMES[1]: panes}


if __name__ == "__main__":
    work = {"fill": fill, "restart": restart}[sys.argv[1]]
    print(json.dumps(work(int(sys.argv[2]), Path(sys.argv[3]))))
