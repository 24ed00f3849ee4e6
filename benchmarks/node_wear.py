"""node-wear: what is written to the disk per byte of payload, for intervals of 0, 50 and 1,000 ms; beside Apache Kafka.

Records of 100 bytes, one a request, at 100 and at 1,000 a second (reports `node-wear-100`, `node-wear-1000`). The value
is what the whole disk wrote (its sectors, from /sys, the file system's journal among them) until nothing was left to
write; run it on a machine where nobody else writes. Details: `file`, by how much the files grew; `pages`, what the
process dirtied (/proc/PID/io); all three per byte of payload. Kafka syncs nothing: the system writes when it likes.
"""

from __future__ import annotations

import os
import statistics
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_raw import Shape, produce
from benchmarks.kafka_servers import Server, create_topic, headwater, kafka, kafka_version, scratch

NAME = "node-wear"
TOPIC = "wear"
_SECTOR_BYTES = 512
_runs = count(1)


@dataclass(frozen=True)
class Load:
    """Records a second, for so long, on so many connections, for each of these sync intervals."""

    rates: tuple[int, ...] = (100, 1000)
    intervals_ms: tuple[int, ...] = (0, 50, 1000)
    seconds: float = 4.0
    size: int = 100
    connections: int = 10


def disk_bytes(directory: Path) -> int:
    """What the disk that holds `directory` has written since the system started (Documentation/block/stat)."""
    number = directory.stat().st_dev
    stat = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    return int(stat[6]) * _SECTOR_BYTES


def dirtied_bytes(server: Server) -> int:
    """What the process has caused to be written (proc(5), /proc/PID/io)."""
    lines = Path(f"/proc/{server.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def file_bytes(server: Server) -> int:
    """The length of the topic's batches."""
    return sum(path.stat().st_size for path in server.data.rglob(f"{TOPIC}-0/*.log"))


def run(made: AbstractContextManager[Server], rate: int, load: Load) -> Run:
    """One run on a fresh server."""
    with made as server:
        create_topic(server, TOPIC)
        shape = Shape(1, load.connections, 1, load.size)
        produce(server.port, TOPIC, shape, seconds=0.2, every_s=1 / rate)
        os.sync()
        before = file_bytes(server), dirtied_bytes(server), disk_bytes(server.data)
        sent = produce(server.port, TOPIC, shape, seconds=load.seconds, every_s=1 / rate)
        os.sync()
        after = file_bytes(server), dirtied_bytes(server), disk_bytes(server.data)
    payload = sent.requests * load.size
    file, pages, disk = ((now - then) / payload for then, now in zip(before, after, strict=True))
    return Run(disk, {"file": file, "pages": pages, "p50_ms": statistics.median(sent.latencies_ms)})


def main(*, load: Load | None = None, rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Run the benchmark; what it wrote, by report. Ours is the first interval, the others stand among the peers."""
    load = load or Load()
    reports = {}
    with scratch() as directory:

        def node(rate: int, interval_ms: int) -> Run:
            setting = f"[log]\nfsync_interval_ms = {interval_ms}\n"
            return run(headwater(directory / f"ours-{next(_runs)}", setting), rate, load)

        def broker(rate: int) -> Run:
            return run(kafka(directory / f"kafka-{next(_runs)}"), rate, load)

        for rate in load.rates:
            print(f"{NAME}-{rate}: {rate} records of {load.size} B a second, {load.seconds:g} s a run")
            first_ms, *more_ms = load.intervals_ms
            peers = {f"ours-{interval_ms}ms": partial(node, rate, interval_ms) for interval_ms in more_ms}
            peers["kafka"] = partial(broker, rate)
            reports[f"{NAME}-{rate}"] = compare(
                f"{NAME}-{rate}",
                unit="disk bytes per payload byte",
                better="lower",
                ours=partial(node, rate, first_ms),
                peers=peers,
                parameters={
                    **asdict(load),
                    "rounds": rounds,
                    "ours": f"headwater run, fsync_interval_ms {first_ms}",
                    "kafka": kafka_version(),
                },
                rounds=rounds,
                results=results,
            )
    return reports
