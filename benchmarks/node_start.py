"""node-start: how long from the command to a listener that answers, with 10 GB of segments; beside Apache Kafka.

`node-start-clean` after a clean stop, `node-start-kill` after a SIGKILL under load; nothing of the data is in the page
cache then, as after a power cut. Kafka starts on the same segments (those that it will append to are copies).
`node-partitions`: what 1,000 partitions with a record in each cost: open files, memory, and the next start.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.harness import RESULTS, Run, compare
from benchmarks.kafka_raw import Shape, produce
from benchmarks.kafka_servers import OURS, Server, create_topic, headwater, kafka, kafka_version, scratch
from gateway.log.records import NO_HEADERS, encode_batch
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import SystemClock
from headwater.disk import RealDisk

NAME = "node-start"
TOPIC = "filled"
MANY = "many"
_FLUSH_BYTES = 64 << 20
_LOAD_S = 1.0
_MANY = "partitions_max = 2000"
_COPIED = (".index", ".timeindex", ".snapshot")


@dataclass(frozen=True)
class Load:
    """What lies there at the start, and what batches it consists of."""

    size_bytes: int = 10_000_000_000
    partitions: int = 16
    records_a_batch: int = 150
    record_bytes: int = 100
    many: int = 1000


def fill(data: Path, load: Load) -> None:
    """Write the segments as the node would; one batch, with its offset patched each time. Ends with a clean stop."""
    value = (b"headwater-" * (load.record_bytes // 10 + 1))[: load.record_bytes]
    now_ms = int(time.time() * 1000)
    batch = bytes(encode_batch([(now_ms, None, value, NO_HEADERS)] * load.records_a_batch))
    store = LogStore.open(
        str(data),
        node="bench",
        settings=LogSettings(fsync_interval_ms=0),
        disk=RealDisk(),
        clock=SystemClock(),
        call_in_loop=lambda call: call(),
        flusher="manual",
    )
    try:
        logs = store.create_topic(TOPIC, partitions=load.partitions).partitions
        unsynced = 0
        for number in range(max(load.size_bytes // len(batch), load.partitions)):
            logs[number % load.partitions].append(batch, now_ms=now_ms, verify=False)
            unsynced += len(batch)
            if unsynced > _FLUSH_BYTES:
                store.flush_now()
                unsynced = 0
    finally:
        store.close()


def give_to_kafka(ours: Path, theirs: Path, partitions: int) -> None:
    """Put our segments into a stopped Kafka's directories; the last one of each, to which it will append, as a copy."""
    points = []
    for number in range(partitions):
        source, target = ours / "log" / f"{TOPIC}-{number}", theirs / f"{TOPIC}-{number}"
        for file in target.iterdir():
            if file.name != "partition.metadata":
                file.unlink()
        logs = sorted(source.glob("*.log"))
        for log in logs[:-1]:
            os.link(log, target / log.name)
        for file in [logs[-1], source / "leader-epoch-checkpoint", *source.iterdir()]:
            if file == logs[-1] or file.suffix in _COPIED or file.name == "leader-epoch-checkpoint":
                shutil.copy(file, target)
        points.append(f"{TOPIC} {number} {logs[-1].stem.lstrip('0') or '0'}")
    checkpoint = theirs / "recovery-point-offset-checkpoint"
    others = [line for line in checkpoint.read_text().splitlines()[2:] if not line.startswith(f"{TOPIC} ")]
    lines = ["0", str(len(others) + len(points)), *others, *points]
    checkpoint.write_text("\n".join(lines) + "\n")


def forget_cache(directory: Path) -> None:
    """What lies below is read from the disk next time, as after a power cut."""
    os.sync()
    for path in directory.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


@contextmanager
def bytecode() -> Iterator[None]:
    """Let the node keep its compiled modules, as an installed package does, even where the environment forbids it."""
    before = os.environ.copy()
    os.environ["PYTHONPYCACHEPREFIX"] = str(RESULTS / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def started(who: str, directory: Path, more: str = "") -> Iterator[tuple[float, Server]]:
    """A server on what is in its directory, and how long its start took, in ms."""
    forget_cache(directory / "data")
    began_s = time.perf_counter()
    with headwater(directory, more) if who == "ours" else kafka(directory) as server:
        yield (time.perf_counter() - began_s) * 1000, server


def start(who: str, directory: Path, *, killed: bool) -> Run:
    """One start after a clean stop, or after a kill while it was written to."""
    if killed:
        with suppress(ProcessLookupError), started(who, directory) as (_, server):
            produce(server.port, TOPIC, Shape(150, 2, 5), seconds=_LOAD_S)
            os.kill(server.pid, signal.SIGKILL)
            _wait_gone(server.pid)
    with started(who, directory) as (took_ms, server):
        return Run(took_ms, {"cpu_ms": server.cpu_s() * 1000, "rss_mib": server.rss_mib(), **_open_files(server)})


def _wait_gone(pid: int) -> None:
    while Path(f"/proc/{pid}/exe").exists():
        time.sleep(0.01)


def _open_files(server: Server) -> dict[str, float]:
    return {"open_files": len(os.listdir(f"/proc/{server.pid}/fd"))}


def partitions(who: str, directory: Path, load: Load) -> Run:
    """Make a topic of many partitions, write to each, stop, start again."""
    with headwater(directory, _MANY) if who == "ours" else kafka(directory) as server:
        before_mib = server.rss_mib()
        create_topic(server, MANY, load.many)
        producer = Producer({"bootstrap.servers": server.bootstrap, "acks": "all"})
        for number in range(load.many):
            producer.produce(MANY, b"one", partition=number)
        if producer.flush(60):
            raise SystemExit(f"{who}: not every partition took its record")
        del producer  # closes its connections before there is nobody to connect to
        details = {"before_mib": before_mib, "rss_mib": server.rss_mib()}
        files = _open_files(server)["open_files"]
    with started(who, directory, _MANY) as (took_ms, server):
        details |= {"start_ms": took_ms, "rss_started_mib": server.rss_mib(), **_open_files(server)}
    return Run(files, details)


def main(*, load: Load | None = None, rounds: int = 3, results: Path = RESULTS) -> dict[str, Any]:
    """Run the benchmark; what it wrote, by report."""
    load = load or Load()
    reports = {}
    print(f"{NAME}: {load.size_bytes / 1e9:.3g} GB in {load.partitions} partitions, cold; then {load.many} partitions")
    parameters: dict[str, Any] = {**asdict(load), "rounds": rounds, "ours": OURS, "kafka": kafka_version()}
    with scratch() as directory, bytecode():
        fill(directory / "ours" / "data", load)
        start("ours", directory / "ours", killed=False)  # compiles, and is not counted
        with kafka(directory / "kafka") as server:
            create_topic(server, TOPIC, load.partitions)
        give_to_kafka(directory / "ours" / "data", directory / "kafka" / "data", load.partitions)
        for name, killed in (("node-start-clean", False), ("node-start-kill", True)):
            reports[name] = compare(
                name,
                unit="ms",
                better="lower",
                ours=partial(start, "ours", directory / "ours", killed=killed),
                peers={"kafka": partial(start, "kafka", directory / "kafka", killed=killed)},
                parameters=parameters,
                rounds=rounds,
                results=results,
            )
        reports["node-partitions"] = compare(
            "node-partitions",
            unit="open files",
            better="lower",
            ours=partial(partitions, "ours", directory / "many-ours", load),
            peers={"kafka": partial(partitions, "kafka", directory / "many-kafka", load)},
            parameters=parameters,
            rounds=1,
            results=results,
        )
    return reports
