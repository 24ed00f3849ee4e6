"""Results as they come out of an engine, checked one by one, and what the engine says of itself."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from benchmarks.windows_load import FIELD, NODE, WINDOW_S, Oracle

SILENT_S = 90.0
_CLIENT = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "fetch.queue.backoff.ms": 10,
    "log_level": 0,
}
Found = tuple[str, int, dict[str, Any]]
"""Device, start of the window, aggregates."""


class Watch:
    """Reads partition 0 of a topic of results from its present end on."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-watch", **_CLIENT})
        end = 0
        with contextlib.suppress(KafkaException):  # there is no such topic yet
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
        self._consumer.assign([TopicPartition(topic, 0, max(end, 0))])

    def close(self) -> None:
        self._consumer.close()

    def until_all(
        self, who: str, oracle: Oracle, read: Callable[[bytes, dict[str, Any]], Found], *, p95: bool
    ) -> dict[int, float]:
        """Until every window was told once; when each window's last result came, by `time.monotonic`."""
        missing, came_s = oracle.wanted, {}
        silent_s = time.monotonic()
        while missing:
            messages = self._consumer.consume(10_000, 0.05)
            now_s = time.monotonic()
            for message in messages:
                if (error := message.error()) is not None:
                    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                        continue
                    raise SystemExit(f"{who}: {error}")
                device, start_ms, found = read(message.key(), msgspec.json.decode(message.value()))
                if oracle.check(device, start_ms, found, p95=p95):
                    missing -= 1
                    came_s[start_ms] = now_s
                silent_s = now_s
            if now_s - silent_s > SILENT_S:
                raise SystemExit(f"{who}: {missing} of {oracle.wanted} windows, then nothing for {SILENT_S:.0f} s")
        oracle.finish(who)
        return came_s


def read_ours(key: bytes, value: dict[str, Any]) -> Found:
    """A result of a Headwater rule."""
    if value["revision"] or not value["complete"]:
        raise SystemExit(f"{key!r} is no first and complete result")
    return value["group"].removeprefix(f"{NODE}/"), value["start"], value["fields"][FIELD]


def read_theirs(key: bytes, value: dict[str, Any]) -> Found:
    """A result of one of our programs for the peers."""
    return key.decode().removeprefix(f"{NODE}/"), value["start"], value


def steady_rate(came_s: dict[int, float], devices: int) -> float:
    """Readings/s between the first window's last result and the last window's; a single window has no rate."""
    times = [came_s[start] for start in sorted(came_s)]
    return (len(times) - 1) * WINDOW_S * devices / max(times[-1] - times[0], 1e-3)


def wait_said(process: subprocess.Popen[bytes], output: Path, log: Path, what: str) -> dict[str, float]:
    """Until a peer's program has said `what`; the times of all that it said. Raises `SystemExit` with its log."""
    while True:
        words = [line.split() for line in output.read_text().splitlines()]
        said = {line[0]: float(line[1]) for line in words if len(line) == 2 and line[0] in ("first", "half", "last")}
        if what in said:
            return said
        if process.poll() is not None:
            raise SystemExit(f"it ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)
