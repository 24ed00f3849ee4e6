"""The readings of the `windows` benchmark, the topic that holds them, and what every engine must say of them.

One node with 1,000 devices, a reading a second from each, in an order of its own every second. Values are whole
thousandths, so that their decimal text and the number are the same. On a central's topic each record is the copy of
a node's: header `hw` with its place there, and a mark on the last record of every second; a node's own log has the
marks alone. Three more seconds close the last window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.consume.reader import Reader
from gateway.log.headers import NO_HEADERS, encode_headers
from gateway.log.records import Record
from headwater.net import RealNet

TOPIC = "readings"
NODE = "edge-1"
FIELD = "value"
WINDOW_S = 60
LATENESS_S = 2
SHARE = 0.95
SEED = 20_261_123


@dataclass(frozen=True)
class Load:
    """How much: `windows` of a minute of each of `devices`."""

    windows: int = 67
    devices: int = 1_000
    peer_windows: int = 17
    """What the slow peers read of it, from the beginning."""

    def readings(self, windows: int | None = None) -> int:
        """In the first so many windows, with what closes them."""
        return self.devices * self.seconds(self.windows if windows is None else windows)

    def seconds(self, windows: int) -> int:
        return windows * WINDOW_S + LATENESS_S + 1


class Story:
    """The readings of a load that begins at a minute `start_ms`; `values` in thousandths, a row a second."""

    def __init__(self, load: Load, start_ms: int) -> None:
        self.load = load
        self.start_ms = start_ms
        random = np.random.default_rng(SEED)
        shape = (load.seconds(load.windows), load.devices)
        self.values: npt.NDArray[np.int64] = np.round(random.normal(50_000, 9_000, shape)).astype(np.int64)

    def batches(self, *, copies: bool) -> Iterator[list[Record]]:
        """A batch a second."""
        devices = self.load.devices
        keys = [f"{NODE}/{name(device)}".encode() for device in range(devices)]
        random = np.random.default_rng(SEED + 1)
        spread = 1_000 / devices
        for second, row in enumerate(self.values.tolist()):
            base = self.start_ms + second * 1_000
            batch: list[Record] = []
            for place, device in enumerate(random.permutation(devices).tolist()):
                headers = NO_HEADERS
                last = place == devices - 1
                if copies or last:
                    headers = self._headers(second, second * devices + place, copies=copies, last=last)
                value = b'{"%s":%d.%03d}' % (FIELD.encode(), *divmod(row[device], 1_000))
                batch.append((base + int(place * spread), keys[device], value, headers))
            yield batch

    def _headers(self, second: int, offset: int, *, copies: bool, last: bool) -> bytes:
        pairs: list[tuple[str, bytes | None]] = []
        if copies:
            pairs.append(("hw", f"{NODE}/0/0/{offset}".encode()))
        if last:
            live = self.start_ms + (second - LATENESS_S + 1) * 1_000
            mark = {"v": 1, "node": NODE, "epoch": 0, "partition": 0, "k": 1, "n": second, "live": live}
            pairs.append(("hw-mark", msgspec.json.encode(mark | {"every_ms": 1_000})))
        return encode_headers(pairs)


def name(device: int) -> str:
    return f"d{device:04}"


def fill(host: str, port: int, story: Story, *, copies: bool) -> None:
    """Write the story to partition 0 of the topic, which is made here."""
    asyncio.run(_fill(host, port, story, copies=copies))


async def _fill(host: str, port: int, story: Story, *, copies: bool) -> None:
    writer = await Reader.connect(RealNet(), host, port, client_id="bench-fill", request_timeout_ms=30_000)
    try:
        await writer.ensure_topic(TOPIC, 1)
        while not await writer.partitions(TOPIC):  # noqa: ASYNC110 - only by asking is it known
            await asyncio.sleep(0.05)
        for batch in story.batches(copies=copies):
            await writer.produce(TOPIC, 0, batch)
    finally:
        await writer.close()


class Oracle:
    """What NumPy says of each window of each device."""

    def __init__(self, story: Story, windows: int) -> None:
        devices = story.load.devices
        exact = story.values[: windows * WINDOW_S].reshape(windows, WINDOW_S, devices) / 1_000.0
        ranked = np.sort(exact, axis=1)
        self._story = story
        self._windows = windows
        self._wanted = {
            "mean": exact.mean(axis=1),
            "min": ranked[:, 0],
            "max": ranked[:, -1],
            "p95": ranked[:, int(SHARE * (WINDOW_S - 1))],
        }
        self._number = {name(device): device for device in range(devices)}
        self._seen = np.zeros((windows, devices), dtype=np.int64)

    @property
    def wanted(self) -> int:
        """How many results."""
        return self._seen.size

    def check(self, device: str, start_ms: int, found: Mapping[str, Any], *, p95: bool) -> bool:
        """Take one result; False when it is of a window that is not asked for. Raises `SystemExit` for a wrong one."""
        window, off = divmod(start_ms - self._story.start_ms, WINDOW_S * 1_000)
        if off or not 0 <= window < self._windows:
            return False
        number = self._number[device]
        for what, error in (("mean", 1e-9), ("min", 0.0), ("max", 0.0), ("p95", 1 / 128)):
            wanted = float(self._wanted[what][window, number])
            if (what != "p95" or p95) and not abs(found[what] - wanted) <= error * abs(wanted):
                raise SystemExit(f"{device}, window {window}: {what} is {found[what]}, not {wanted}")
        if found["count"] != WINDOW_S:
            raise SystemExit(f"{device}, window {window}: {found['count']} readings, not {WINDOW_S}")
        self._seen[window, number] += 1
        return True

    def finish(self, who: str) -> None:
        """Each window once. Raises `SystemExit`."""
        if not (self._seen == 1).all():
            missing, twice = int((self._seen == 0).sum()), int((self._seen > 1).sum())
            raise SystemExit(f"{who}: of {self._seen.size} windows {missing} are missing and {twice} told twice")
