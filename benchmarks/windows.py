"""windows: readings per second through 60 s tumbling windows of 1,000 devices, exactly once; beside other engines.

All read the same topic of one Apache Kafka. Ours twice, with marks and a 95th percentile beside count, mean, min, max:
`headwater process`, whose results count once they are committed, from its first window's results to its last's; and the
processors of a node over its own log, filled before, likewise. The peers compute no percentile, and are timed by their
own clock between the first reading they have and the last. Every result is checked against NumPy. CPU and memory are
those of the whole process from its start, the node's core included.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT, Contestant, Run, compare
from benchmarks.kafka_servers import headwater, kafka, kafka_version, scratch, settle, wait_serving
from benchmarks.processes import cpu_s, peak_rss_bytes, running
from benchmarks.windows_load import FIELD, TOPIC, WINDOW_S, Load, Oracle, Story, fill
from benchmarks.windows_watch import Watch, read_ours, read_theirs, steady_rate, wait_said
from headwater.net import free_port
from tests.support.peers import BUILT, missing

NAME = "windows"
HEADWATER = Path(sys.executable).with_name("headwater")
PROGRAMS = ROOT / "benchmarks" / "window_peers"
AGGREGATES = "aggregates"
RULES = f"""\
[[window]]
name = "{{name}}"
size_s = {WINDOW_S}
every_field = []
fields = {{{{ {FIELD} = ["count", "mean", "min", "max", "p95"] }}}}
windows_max = {{windows_max}}
"""
GROUP = """\
name = "{name}"
bootstrap_servers = "{bootstrap}"
rules = ["rules.toml"]
"""
AIMS = {"quix": 10.0, "bytewax": 5.0, "kafka-streams": 1.5}


@dataclass(frozen=True)
class World:
    """Where everything is: a Kafka with the filled topic, a story, a folder for what runs."""

    load: Load
    story: Story
    host: str
    port: int
    folder: Path

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def new_folder(self, who: str) -> Path:
        found = self.folder / f"{who}-{time.time_ns()}"
        found.mkdir()
        return found


def rules(folder: Path, name: str, load: Load) -> Path:
    file = folder / "rules.toml"
    file.write_text(RULES.format(name=name, windows_max=max(50_000, 2 * load.devices)))
    return file


def run_group(world: World) -> Run:
    """`headwater process`, from nothing to its last result."""
    settle()
    folder = world.new_folder("group")
    rules(folder, "minute", world.load)
    config, log = folder / "process.toml", folder / "process.log"
    config.write_text(GROUP.format(name=folder.name, bootstrap=world.bootstrap))
    watch = Watch(world.bootstrap, AGGREGATES)
    try:
        with running([str(HEADWATER), "process", "--config", str(config), "--instance", "bench"], log) as process:
            oracle = Oracle(world.story, world.load.windows)
            came_s = watch.until_all("group", oracle, read_ours, p95=True)
            return _measured(steady_rate(came_s, world.load.devices), [process.pid], world.load.readings())
    finally:
        watch.close()


def _measured(rate: float, pids: list[int], readings: int, **more: float) -> Run:
    cpu_us = cpu_s(pids) / readings * 1e6  # µs a reading = CPU-seconds a million
    return Run(rate, {"cpu_s_per_million": cpu_us, "rss_mib": peak_rss_bytes(pids) / 2**20, **more})


class Inline:
    """A node whose log holds the story; each run computes all of it again under a rule of another name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._folder = world.new_folder("inline")
        self._runs = 0
        with headwater(self._folder) as node:
            fill("127.0.0.1", node.port, world.story, copies=False)
        self._config = self._folder / "node.toml"

    def run(self) -> Run:
        settle()
        self._runs += 1
        shutil.rmtree(self._folder / "data" / "work", ignore_errors=True)
        rules(self._folder, f"minute-{self._runs}", self._world.load)
        port, log = free_port(), self._folder / "inline.log"
        text = self._config.read_text().splitlines()
        text = [f'listen = "127.0.0.1:{port}"' if line.startswith("listen") else line for line in text]
        text = [line for line in text if not line.startswith("rules")]
        self._config.write_text("\n".join(['rules = ["rules.toml"]', *text]) + "\n")
        with running([str(HEADWATER), "run", "--config", str(self._config)], log) as process:
            wait_serving(process, port, log)
            watch = Watch(f"127.0.0.1:{port}", AGGREGATES)
            try:
                oracle = Oracle(self._world.story, self._world.load.windows)
                came_s = watch.until_all("inline", oracle, read_ours, p95=True)
                [work] = children(process.pid)
                rate = steady_rate(came_s, self._world.load.devices)
                core_us = cpu_s([process.pid]) / self._world.load.readings() * 1e6
                return _measured(rate, [work, process.pid], self._world.load.readings(), core_cpu=core_us)
            finally:
                watch.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue  # gone meanwhile
    return found


@dataclass(frozen=True)
class Peer:
    """How a peer's program is started, and how many windows of the topic it is given."""

    name: str
    command: tuple[str, ...]
    windows: int


def peers(load: Load) -> list[Peer]:
    """Kafka Streams has the whole topic, so that its machine is warm; the others need no warming and longer."""
    quix, bytewax = (str(BUILT / name / "bin" / "python") for name in ("quix", "bytewax"))
    return [
        Peer("kafka-streams", (str(BUILT / "kafka-streams" / "run"),), load.windows),
        Peer("bytewax", (bytewax, str(PROGRAMS / "bytewax_flow.py")), load.peer_windows),
        Peer("quix", (quix, str(PROGRAMS / "quix.py")), load.peer_windows),
    ]


def run_peer(world: World, peer: Peer) -> Run:
    """A peer's program on the first windows of the topic."""
    settle()
    folder = world.new_folder(peer.name)
    output, log, target = folder / "said", folder / "log", f"out-{folder.name}"
    readings = world.load.readings(peer.windows)
    more = [world.bootstrap, TOPIC, target, folder.name, str(readings), str(folder / "state")]
    watch = Watch(world.bootstrap, target)
    try:
        with output.open("wb") as said, running([*peer.command, *more], log, output=said) as process:
            times = wait_said(process, output, log, "last")
            run = _measured(
                (readings - 1) / max(times["last"] - times["first"], 1e-3),
                *([process.pid], readings),
                warm=readings / 2 / max(times["last"] - times["half"], 1e-3) if "half" in times else 0.0,
            )
            watch.until_all(peer.name, Oracle(world.story, peer.windows), read_theirs, p95=False)
            return run
    finally:
        watch.close()


def once(contestant: Contestant) -> Contestant:
    """The same run for every round: a peer takes as long as all of our rounds together."""
    runs: list[Run] = []

    def first() -> Run:
        if not runs:
            runs.append(contestant())
        return runs[0]

    return first


@contextmanager
def prepared(load: Load, node: tuple[str, int] | None) -> Iterator[World]:
    """A Kafka, one's own or the one at `node`, whose topic holds the load's readings."""
    minute_ms = WINDOW_S * 1_000
    # An hour ago at the latest reading: a Kafka refuses what lies in the future, and would expire what is old.
    start_ms = int(time.time() * 1_000) // minute_ms * minute_ms - (load.windows + 61) * minute_ms
    story = Story(load, start_ms)
    with scratch() as folder:
        if node is not None:
            world = World(load, story, *node, folder)
            fill(*node, story, copies=True)
            yield world
            return
        with kafka(folder / "kafka") as server:
            fill("127.0.0.1", server.port, story, copies=True)
            yield World(load, story, "127.0.0.1", server.port, folder)


def main(
    *,
    load: Load | None = None,
    rounds: int = 3,
    results: Path = RESULTS,
    node: tuple[str, int] | None = None,
    only: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Run the benchmark; what it wrote. `only`: these peers."""
    load = load or Load()
    chosen = [peer for peer in peers(load) if only is None or peer.name in only]
    for peer in (*(peer.name for peer in chosen), "kafka"):
        if (reason := missing(peer)) is not None:
            raise SystemExit(reason)
    print(f"{NAME}: {load.readings():,} readings of {load.devices:,} devices, a reading a second from each")
    for peer_with in chosen:
        print(f"  {peer_with.name}: once, on {load.readings(peer_with.windows):,} of them, without p95")
    with prepared(load, node) as world:
        inline = Inline(world)
        contestants: Mapping[str, Contestant] = {
            "inline": inline.run,
            **{peer.name: once(_runner(world, peer)) for peer in chosen},
        }
        report = compare(
            NAME,
            unit="readings/s",
            better="higher",
            ours=lambda: run_group(world),
            peers=contestants,
            parameters={**asdict(load), "readings": load.readings(), "rounds": rounds, "kafka": kafka_version()},
            rounds=rounds,
            results=results,
        )
    _judge(report)
    return report


def _runner(world: World, peer: Peer) -> Contestant:
    return lambda: run_peer(world, peer)


def _judge(report: Mapping[str, Any]) -> None:
    """The aims, and whether they were met."""
    details = report["details"]
    ratios = report["ratio"]
    lines = [
        (f"at least {aim:g} × {who}", ratios[who], ratios[who] >= aim) for who, aim in AIMS.items() if who in ratios
    ]
    for who, driver in (("ours", "group"), ("inline", "inline")):
        cpu, rss = details[who]["cpu_s_per_million"], details[who]["rss_mib"]
        lines.append((f"{driver}: at most 5 CPU-s a million", cpu, cpu <= 5))
        lines.append((f"{driver}: at most 300 MiB", rss, rss <= 300))
    rate, inline = report["ours"]["median"], report["peers"]["inline"]["median"]
    lines += [("group: 400,000/s", rate, rate >= 400_000), ("inline: 1,000,000/s", inline, inline >= 1_000_000)]
    for what, value, met in lines:
        print(f"  {'met' if met else 'not met':<8} {what}: {value:,.2f}")
    sys.stdout.flush()
