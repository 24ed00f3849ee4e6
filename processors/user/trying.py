"""A processor with a list of readings and nothing running: for users' tests, and for `headwater process test`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from devices.user_code import Reading, milliseconds
from gateway.consume.reader import Block
from gateway.log.records import encode_headers
from processors.user.loading import Loaded, of_instance
from processors.user.names import Base, Output
from processors.user.partition import UserPartition, Watch, decoded
from processors.user.say import encode_any
from processors.user.settings import UserLimits

NODE = "test"


class Given(NamedTuple):
    """One record of a trial's input: key, event time, JSON value, and the watermark of its node behind it, if any.

    `says`: what is known of its device, as JSON.
    """

    key: str
    time_ms: int
    value: bytes
    watermark_ms: int | None
    says: bytes | None = None


def block_of(rows: Iterable[Given], topic: str, offset: int) -> Block:
    """Rows as records from `offset` on."""
    rows = list(rows)
    headers = [encode_headers(_headers(row)) for row in rows]
    offsets = list(range(offset, offset + len(rows)))
    keys: list[bytes | None] = [row.key.encode() for row in rows]
    values: list[bytes | None] = [row.value for row in rows]
    return Block(topic, 0, offsets, [row.time_ms for row in rows], keys, values, headers, offset + len(rows))


def _headers(row: Given) -> list[tuple[str, bytes | None]]:
    said: list[tuple[str, bytes | None]] = [("hw-device", row.says)] if row.says is not None else []
    return [*said, ("hw-mark", _mark(row))] if row.watermark_ms is not None else said


def _mark(row: Given) -> bytes:
    return msgspec.json.encode({"v": 1, "node": row.key.partition("/")[0], "live": row.watermark_ms})


class Driver:
    """A processor step by step: feed it readings, let time pass, look at what it says and remembers.

    After each reading its node's watermark is the newest time that it has seen, less `lateness_ms`: timers up to there
    have been called. What the processor raises is raised here. `devices`: what is known of devices, by name:
    `{"pump-7": {"site": "north", "zone": "Europe/Berlin", "type": "pump", "labels": {"line": "3"}}}`.
    """

    def __init__(
        self,
        processor: Base,
        *,
        node: str = NODE,
        lateness_ms: int = 0,
        devices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._loaded = of_instance(processor)
        self._node = node
        self._lateness_ms = lateness_ms
        self._devices = devices or {}
        self._offset = 0
        self._newest: dict[str, int] = {}
        self._last_ms = -1000
        self._partition = self._fresh()
        self.outputs: list[Output] = []
        """All that it has emitted so far."""

    def _fresh(self) -> UserPartition:
        return UserPartition(self._loaded, 0, limits=UserLimits(), raises=True)

    def feed(self, *readings: Reading) -> list[Output]:
        """Hand it readings in this order; what it emits upon them.

        A reading without a time is one second after the one before; one without a device is of device `device`.
        """
        return [output for reading in readings for output in self._feed(reading)]

    def _feed(self, reading: Reading) -> list[Output]:
        time_ms = milliseconds(reading.time)
        time_ms = self._last_ms + 1000 if time_ms is None else time_ms
        if time_ms < 0:
            raise ValueError(f"a reading's time is {time_ms}; it should be milliseconds since 1970")
        self._last_ms = time_ms
        device = reading.device or "device"
        key = device if "/" in device else f"{self._node}/{device}"
        node = key.partition("/")[0]
        newest = self._newest[node] = max(self._newest.get(node, 0), time_ms)
        watermark_ms = max(0, newest - self._lateness_ms)
        known = self._devices.get(device)
        says = None if known is None else msgspec.json.encode(known)
        return self._take(Given(key, time_ms, encode_any(reading.fields), watermark_ms, says))

    def advance(self, to: float | datetime, *, node: str = "") -> list[Output]:
        """Let event time pass without a reading: the node is complete up to `to`; what is emitted upon it."""
        time_ms = milliseconds(to) or 0
        node = node or self._node
        self._newest[node] = max(self._newest.get(node, 0), time_ms)
        return self._take(Given(f"{node}/$gateway", time_ms, b"null", time_ms))

    def _take(self, row: Given) -> list[Output]:
        block = block_of([row], self._loaded.rule.topic, self._offset)
        self._offset += 1
        made = [Output(*decoded(output)) for output in self._partition.process(block)]
        self.outputs += made
        return made

    def restart(self) -> None:
        """As a restart of its node would: another object of its class goes on from what was kept."""
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(self._partition.snapshot()))
        self._partition = self._fresh()
        self._partition.restore(saved)

    def state(self, device: str) -> Any:
        """What it remembers of a device."""
        return self._partition.state_of(device if "/" in device else f"{self._node}/{device}")


def run(
    processor: Base,
    readings: Iterable[Reading],
    *,
    until: float | datetime | None = None,
    node: str = NODE,
    lateness_ms: int = 0,
    devices: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Output]:
    """What a processor emits upon readings, in order; nothing else has to run.

    `until`: let event time pass up to here after the last reading, so that timers become due. See `Driver`.
    """
    driver = Driver(processor, node=node, lateness_ms=lateness_ms, devices=devices)
    driver.feed(*readings)
    if until is not None:
        driver.advance(until, node=node)
    return driver.outputs


def whole(
    loaded: Loaded, rows: list[Given], cuts: list[int], *, restarts: bool, watch: Watch | None = None
) -> list[Output]:
    """What a processor says upon rows cut into blocks at `cuts`; dead letters too, with the reason in their value.

    `restarts`: between two blocks another object goes on from the snapshot.
    """
    limits = UserLimits(failures_max=1 << 30)
    partition = UserPartition(loaded, 0, limits=limits, watch=watch)
    made: list[Output] = []
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        block = block_of(rows[begin:end], loaded.rule.topic, begin)
        made += [Output(*decoded(output)) for output in partition.process(block)]
        if restarts:
            saved = msgspec.msgpack.decode(msgspec.msgpack.encode(partition.snapshot()))
            partition = UserPartition(loaded, 0, limits=limits, watch=watch)
            partition.restore(saved)
    return made
