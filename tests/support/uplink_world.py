"""A hand-driven world: one replicator, an imaginary central, and a network and an edge that fail by a seed."""

from __future__ import annotations

from random import Random
from typing import Any

from gateway.log.records import Record, decode_headers
from gateway.replicate.actions import Ack, Action, Bury, Event, Failed, Send, Stop, Tick, Wait
from gateway.replicate.core import Replicator
from gateway.replicate.journal import RunJournal
from gateway.replicate.settings import UplinkSettings
from gateway.wire.schema import ApiKey
from headwater.disk import ForgetfulDisk
from tests.support.central import Central
from tests.support.edge import NaiveLog, reading

NODE = "edge-1"


class World:
    """`faults`: probability that something goes wrong with a request."""

    def __init__(self, seed: int, *, faults: float = 0.0, central: Central | None = None, **settings: Any) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.kinds = ["lost", "answer lost", "late", "twice", "refused", "long"]
        self.disk = ForgetfulDisk()
        self.central = central or Central(partitions=1 + seed % 3)
        self.logs: dict[str, Any] = {"readings/0": NaiveLog("readings"), "events/0": NaiveLog("events")}
        self.settings = UplinkSettings(bootstrap_servers="central:9092", **settings)
        self.now = 1000.0
        self.late: list[tuple[float, tuple[ApiKey, dict[str, Any]]]] = []
        self.number = 0
        self.told: list[str] = []
        self.buried: list[Bury] = []
        self.truth: dict[str, list[tuple[object, ...]]] = {"readings": [], "events": []}
        self._unsynced: dict[str, list[tuple[int, tuple[object, ...]]]] = {"readings": [], "events": []}
        self.kills = 0
        self.start()

    # --- the edge

    def start(self) -> None:
        self.journal = RunJournal.begin(
            self.disk,
            "/data",
            first={key: log.log_end_offset for key, log in self.logs.items()},
            random=self.random,
            boot_id="boot",
            wall_ms=int(self.now),
            monotonic_ms=self.now,
        )
        self.core = Replicator(
            node=NODE,
            version="0.1",
            log_id="log-1",
            settings=self.settings,
            journal=self.journal,
            sources=lambda: dict(self.logs),
            random=self.random,
            emit=lambda kind, **detail: self.told.append(kind),
            now=self.now,
        )
        self.action: Action = self.core.start(self.now, 0)

    def kill(self) -> None:
        """Power off and on again."""
        self.kills += 1
        self.cut_power()
        for topic, waiting in self._unsynced.items():
            end = self.logs[f"{topic}/0"].log_end_offset  # what recovery found counts as stored
            self.truth[topic] += [row for offset, row in waiting if offset < end]
            waiting.clear()
        self.start()

    def cut_power(self) -> None:
        self.disk.power_cut()
        for log in self.logs.values():
            log.power_cut()

    def ingest(self, count: int, topic: str = "readings") -> None:
        records = [reading(self.number + n) for n in range(count)]
        self.number += count
        base = self.append(f"{topic}/0", records)
        self._unsynced[topic] += [(base + n, row[:3]) for n, row in enumerate(records)]

    def append(self, key: str, records: list[Record]) -> int:
        base: int = self.logs[key].add(records)
        return base

    def ingest_aborted(self, count: int) -> None:
        self.logs["readings/0"].add_aborted([reading(-1 - n) for n in range(count)], producer_id=7 + self.number)

    def sync(self) -> None:
        self.flush()
        for topic, waiting in self._unsynced.items():
            self.truth[topic] += [row for _, row in waiting]
            waiting.clear()

    def flush(self) -> None:
        for log in self.logs.values():
            log.sync()

    # --- time and network

    def step(self) -> None:
        """Perform the action that is due, with a fault if the seed says so."""
        self.deliver_late()
        event = self._perform(self.action)
        self.action = self.core.handle(event, self.now, int(self.now))

    def deliver_late(self, *, everything: bool = False) -> None:
        for entry in [entry for entry in self.late if everything or entry[0] <= self.now]:
            self.late.remove(entry)
            self.central.handle(*entry[1], self.now)

    def _perform(self, action: Action) -> Event:
        if isinstance(action, Stop):
            raise AssertionError(f"replication stopped: {action.reason}")
        if isinstance(action, Wait):
            self.now = max(self.now, action.until_ms)
            return Tick()
        if isinstance(action, Bury):
            self.buried.append(action)
            return Ack()
        return self._send(action)

    def _send(self, action: Send) -> Event:
        bodies = []
        for request in action.requests:
            self.now += self.random.uniform(0.1, 2.0)
            call = (request.api, request.body)
            if self.random.random() >= self.faults:
                bodies.append(self.central.handle(*call, self.now))
                continue
            kind = self.random.choice(self.kinds)
            if kind == "twice" and request.api is ApiKey.END_TXN:
                # TCP repeats nothing and the uplink never asks twice in one epoch, which is why the first transaction
                # protocol can do without a mark against it (KIP-890 part 2 has one).
                kind = "answer lost"
            if kind in ("answer lost", "twice", "long"):
                bodies.append(self.central.handle(*call, self.now))
            if kind == "twice":
                self.late.append((self.now + self.random.choice([0, 50, 5_000, 40_000]), call))
                continue
            if kind == "late":
                self.late.append((self.now + self.random.choice([10, 4_000, 15_000, 60_000]), call))
            self.central.disconnect()
            if kind == "refused":
                return Failed("connection refused")
            self.now += 3_000 if kind != "long" else self.random.uniform(3_000, 30_000)
            return Failed("no answer within 3000 ms", timed_out=True)
        return Ack(tuple(bodies))

    # --- the end

    def settle(self, steps_max: int = 5_000) -> None:
        """No more faults: run until everything is replicated."""
        self.faults = 0.0
        self.sync()
        for _ in range(steps_max):
            if not self.core.backlog()[0] and isinstance(self.action, Wait) and self.core.link.state == "up":
                break
            self.step()
        else:
            raise AssertionError(f"not settled: {self.core.state} {self.core.link.state} {self.core.link.error}")
        self.deliver_late(everything=True)

    def check(self) -> None:
        """Exactly once, in order, under unique identities."""
        for topic, expected in self.truth.items():
            got = self.central.committed(topic)
            there = [record[:3] for record in got]
            assert there == expected, f"{topic}: {len(there)} at the central, {len(expected)} expected"
            identities = [dict(decode_headers(record[3]))["hw"] for record in got]
            assert len(set(identities)) == len(identities)
            offsets = [int((identity or b"").rpartition(b"/")[2]) for identity in identities]
            assert offsets == sorted(offsets)
