"""The verdict: is every acknowledged reading at the central, once, and does every window say the truth?

An outside judge: it reads the edge's and the central's logs with librdkafka at `read_committed`, compares them with
the simulator's own ledger, and works the windows out for itself. Nothing of the gateway's or the processors' code
is used here.

Run: `python -m simulators.verdict --ledger FILE --edge HOST:PORT --central HOST:PORT --node NAME`. It waits for the
drain and for the last windows, `--wait` seconds at most, and prints one JSON line with `report`, `failures` (a
sentence for each rule that is broken) and `left_out` (windows that no mark has passed yet).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from simulators.books import AlertsBook, ReadingsBook, WindowsBook
from simulators.control import Console
from simulators.ledger import LedgerView
from simulators.truth import WINDOW_MS, DeviceTruth, WindowTruth, differences

ACKNOWLEDGED_MIN = 5000
TURBINE_FIELDS = frozenset({"wind_speed", "wind_direction", "power", "rotor_rpm", "gearbox_temperature"})
EXAMPLES_MAX = 5
SETTLE_S = 0.5
CHUNK, CHUNK_S = 5000, 0.3
_decode = msgspec.json.decode


class Report(msgspec.Struct, kw_only=True):
    """The verdict in numbers; readings are the turbines' unless said.

    `acknowledged`: PUBACKed; `missing`: of those, not in the central log; `edge_log`, `central_log`: readings of all
    devices there; `duplicates`: the same identity, or the same device and sequence number, twice in the central log;
    `resent`: PUBLISH packets with DUP; `suppressed`: repeats that the gateway says it dropped; `premature`: windows
    whose revision 0 said complete and was not.
    """

    sent: int = 0
    acknowledged: int = 0
    edge_log: int = 0
    central_log: int = 0
    missing: int = 0
    duplicates: int = 0
    resent: int = 0
    suppressed: int = 0
    dead_lettered: int = 0
    windows_compared: int = 0
    windows_different: int = 0
    premature: int = 0
    alerts_raised: int = 0
    alerts_resolved: int = 0
    uplink_outages: int = 0
    edge_kills: int = 0
    seconds: int = 0


class Facts(msgspec.Struct, kw_only=True, frozen=True):
    """What only the one who ran the story knows: what was planned and what happened."""

    suppressed: int = 0
    uplink_outages: int = 0
    edge_kills: int = 0
    seconds: int = 0
    outages_planned: int = 0
    kills_planned: int = 0
    alerts_planned: int = 0
    acknowledged_min: int = ACKNOWLEDGED_MIN


def failures(report: Report, facts: Facts, garbage_sent: int) -> list[str]:
    """A sentence for each rule of the verdict that is broken; none: all is well."""
    broken = [
        (report.missing, f"{report.missing} acknowledged readings are not in the central log"),
        (report.duplicates, f"{report.duplicates} readings are in the central log twice"),
        (report.windows_different, f"{report.windows_different} windows differ from the truth"),
        (report.premature, f"{report.premature} windows were called complete too early"),
        (
            report.acknowledged < facts.acknowledged_min,
            f"only {report.acknowledged} readings were acknowledged, fewer than {facts.acknowledged_min}",
        ),
        (report.windows_compared == 0, "no window was compared"),
        (report.uplink_outages < facts.outages_planned, "the planned outage of the uplink did not happen"),
        (report.edge_kills < facts.kills_planned, "the planned kill of the edge did not happen"),
        (report.alerts_raised < facts.alerts_planned, "the planned alert was not raised"),
        (report.alerts_resolved < facts.alerts_planned, "the planned alert was not resolved"),
        (
            report.dead_lettered != garbage_sent,
            f"{report.dead_lettered} dead letters, but {garbage_sent} undecodable messages were sent",
        ),
    ]
    return [sentence for wrong, sentence in broken if wrong]


class LogSource(Protocol):
    """One node's log, as far as the judge needs it."""

    def read_to_end(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


Topics = dict[str, Callable[[Any], None]]


class LogReader:
    """Reads topics of one node from their start to their present end, again and again, at `read_committed`."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._topics = topics
        self._assigned: set[tuple[str, int]] = set()
        self._unread: dict[tuple[str, int], int] = {}  # where they ended when they were found, not reached yet
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headwater-verdict",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 10,
                "socket.timeout.ms": 5000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
            }
        )

    def read_to_end(self, timeout_s: float) -> bool:
        """Hand over what is new; False when nothing came for `timeout_s` although the end was not reached."""
        try:
            self._assign_new(timeout_s)
        except KafkaException:
            return False
        deadline = time.monotonic() + timeout_s
        while True:
            messages = self._consumer.consume(CHUNK, CHUNK_S)
            for message in messages:
                error = message.error()
                at = message.topic(), message.partition()
                if error is None:
                    self._topics[at[0]](message)
                    # on a node that takes readings all the time, each fetch finds some and librdkafka tells of no end
                    if message.offset() + 1 >= self._unread.get(at, 0):
                        self._unread.pop(at, None)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._unread.pop(at, None)
            # An end that has been reached once moves on, and librdkafka tells of it only after something new.
            if not self._unread and len(messages) < CHUNK:
                return True
            if messages:
                deadline = time.monotonic() + timeout_s
            elif time.monotonic() >= deadline:
                return False

    def _assign_new(self, timeout_s: float) -> None:
        listed = self._consumer.list_topics(timeout=timeout_s).topics
        new = [
            (topic, partition)
            for topic in self._topics
            if topic in listed
            for partition in listed[topic].partitions
            if (topic, partition) not in self._assigned
        ]
        if new:
            ends = [self._consumer.get_watermark_offsets(TopicPartition(*at), timeout=timeout_s)[1] for at in new]
            self._consumer.incremental_assign([TopicPartition(*at, OFFSET_BEGINNING) for at in new])
            self._assigned.update(new)
            self._unread.update(zip(new, ends, strict=True))

    def close(self) -> None:
        self._consumer.close()


class Judge:
    """Reads both logs and weighs them against the ledger."""

    def __init__(
        self,
        ledger: LedgerView,
        edge: str,
        central: str,
        *,
        node: str,
        timed_by_log: list[str],
        readings_only: bool = False,
        source: Callable[[str, Topics], LogSource] = LogReader,
    ) -> None:
        self._ledger, self._node, self._timed_by_log = ledger, node, timed_by_log
        self._readings_only = readings_only
        known = list(ledger.devices())
        self._edge_book = ReadingsBook(known)
        self._book = ReadingsBook(known, timed_by_log)
        self._windows, self._alerts = WindowsBook(), AlertsBook()
        self.dead_lettered = 0
        self.left_out = 0
        self.examples: list[str] = []
        self.silent: list[str] = []  # the nodes that did not answer when last asked
        self._edge = source(edge, {"readings": self._reading_of(self._edge_book)})
        topics = {"readings": self._reading_of(self._book), "deadletter": self._dead_letter}
        if not readings_only:
            topics["aggregates"] = lambda message: self._windows.add(message.value())
            topics["alerts"] = lambda message: self._alerts.add(message.value())
        self._central = source(central, topics)

    @staticmethod
    def _reading_of(book: ReadingsBook) -> Callable[[Any], None]:
        def add(message: Any) -> None:
            book.add(message.key(), message.value(), message.timestamp()[1], message.headers())

        return add

    def _dead_letter(self, message: Any) -> None:
        self.dead_lettered += 1

    def read(self, timeout_s: float) -> bool:
        """Catch up with both logs; False when one of them did not answer."""
        self.silent = [] if self._central.read_to_end(timeout_s) else ["central"]
        if not self._readings_only and not self._edge.read_to_end(timeout_s):
            self.silent.append("edge")
        return not self.silent

    def missing(self) -> int:
        """Acknowledged readings that the central log does not hold."""
        has, ledger = self._book.has, self._ledger
        return sum(not has(device, seq) for device in ledger.devices() for seq in ledger.acked_seqs(device))

    def wait(self, seconds: float) -> Report:
        """Read until everything is there and every window has closed and agrees, `seconds` at most; the numbers."""
        deadline = time.monotonic() + seconds
        while True:
            remaining = max(1.0, deadline - time.monotonic())
            self.read(min(10.0, remaining))
            last = time.monotonic() >= deadline
            if last or self._is_drained():
                report = self.weigh()
                agreed = report.windows_compared and not (report.windows_different or self.left_out)
                agreed = agreed and report.edge_log == report.central_log
                if last or (not report.missing and (agreed or self._readings_only)):
                    return report
            time.sleep(SETTLE_S)

    def _is_drained(self) -> bool:
        return self.dead_lettered >= self._ledger.garbage_sent and self.missing() == 0

    def weigh(self) -> Report:
        """The numbers as of now."""
        ledger = self._ledger
        report = Report(
            sent=ledger.sent,
            acknowledged=ledger.acknowledged,
            edge_log=self._edge_book.readings,
            central_log=self._book.readings,
            missing=self.missing(),
            duplicates=self._book.duplicates,
            resent=ledger.total("resent"),
            dead_lettered=self.dead_lettered,
            alerts_raised=self._alerts.states["firing"],
            alerts_resolved=self._alerts.states["resolved"],
        )
        self.left_out = 0
        self.examples = []
        for device in () if self._readings_only else ledger.devices():
            if device not in self._timed_by_log:
                self._compare(device, self._truth(device), report, TURBINE_FIELDS, judged_early=True)
        for device, truth in () if self._readings_only else self._book.truths.items():
            required = TURBINE_FIELDS if device in self._timed_by_log else frozenset[str]()
            self._compare(device, truth, report, required, judged_early=False)
        return report

    def _truth(self, device: str) -> DeviceTruth:
        """From the ledger: what was acknowledged, and what arrived although its acknowledgement was lost."""
        truth = DeviceTruth()
        for reading in self._ledger.readings(device):
            if reading.acked or self._book.has(device, reading.seq):
                truth.add(reading.ts, _decode(reading.fields))
        return truth

    def _compare(
        self, device: str, truth: DeviceTruth, report: Report, required: frozenset[str], *, judged_early: bool
    ) -> None:
        group = self._book.groups.get(device, f"{self._node}/{device}")
        live = self._book.live.get(self._node, 0)
        results = self._windows.of(group)
        for start in sorted(truth.windows.keys() | results.keys()):
            window, rules = truth.windows.get(start), results.get(start, [])
            if start + WINDOW_MS > live:
                self.left_out += 1
                continue
            if window is None or not rules:
                report.windows_compared += 1
                report.windows_different += 1
                self._example(group, start, "nothing was computed" if window else "nothing was measured")
                continue
            for last, first in rules:
                report.windows_compared += 1
                report.windows_different += self._differs(group, start, window, last, required)
                if judged_early and first is not None and first.get("complete"):
                    report.premature += any(differences(window, first, required))

    def _differs(
        self, group: str, start: int, window: WindowTruth, claimed: Mapping[str, Any], required: frozenset[str]
    ) -> bool:
        first = next(differences(window, claimed, required), None)
        if first is not None:
            self._example(group, start, f"revision {claimed.get('revision')}: {first}")
        return first is not None

    def _example(self, group: str, start: int, text: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{group} [{start}, {start + WINDOW_MS}): {text}")

    def close(self) -> None:
        self._edge.close()
        self._central.close()


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring. 1: a rule is broken."""
    parser = argparse.ArgumentParser(prog="python -m simulators.verdict", description="the judge of a demo run")
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--edge", required=True, help="Kafka address of the edge")
    parser.add_argument("--central", required=True, help="Kafka address of the central")
    parser.add_argument("--node", required=True, help="name of the edge")
    parser.add_argument("--timed-by-log", action="append", default=[], help="device whose own clock is not trusted")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the drain and the last windows")
    parser.add_argument("--readings-only", action="store_true", help="do not wait for windows and do not judge them")
    parser.add_argument("--facts", default="{}", help="JSON: what was planned and what happened")
    options = parser.parse_args(arguments)
    facts = _decode(options.facts, type=Facts)
    ledger = LedgerView(options.ledger)
    judge = Judge(
        ledger,
        options.edge,
        options.central,
        node=options.node,
        timed_by_log=options.timed_by_log,
        readings_only=options.readings_only,
    )
    report = judge.wait(options.wait)
    for name in ("suppressed", "uplink_outages", "edge_kills", "seconds"):
        setattr(report, name, getattr(facts, name))
    broken = failures(report, facts, ledger.garbage_sent)
    broken += [f"the {name} did not answer the judge" for name in judge.silent]
    members = {
        "report": report,
        "failures": broken,
        "left_out": judge.left_out,
        "examples": judge.examples,
        "silent": judge.silent,
    }
    Console().say("verdict", members)
    judge.close()
    ledger.close()
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
