"""`headwater devices list`: what topic `devices` says of each, and what topic `readings` says of its last days."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from devices.reading import HEALTH_DEVICE
from gateway.ingest.intervals import BURST_MS, SILENT_AFTER, Interval
from gateway.ingest.sources import SILENT_MS
from headwater.cli import words
from headwater.cli.find import kafka_address, need_status
from headwater.cli.screen import console
from headwater.errors import UNREADABLE, UserError

if TYPE_CHECKING:
    from gateway.consume.reader import Block, Reader

DEVICES, READINGS = "devices", "readings"
LOOK_BACK = 200_000


class Seen:
    """What the last readings say of one device. `last_ms` is event time, `interval` how often it speaks by it."""

    __slots__ = ("interval", "last_ms", "readings")

    def __init__(self) -> None:
        self.last_ms = self.readings = 0
        self.interval = Interval()

    def spoke(self, time_ms: int) -> None:
        self.readings += 1
        if time_ms - self.last_ms > BURST_MS:
            self.interval.spoke(time_ms, self.last_ms)
        self.last_ms = max(self.last_ms, time_ms)


class Row(msgspec.Struct, kw_only=True):
    """A device as it is listed; `stale` None: nothing says how often it should speak."""

    device: str
    name: str | None = None
    site: str | None = None
    zone: str | None = None
    type: str | None = None
    profile: str | None = None
    expected_interval_ms: int | None = None
    learnt_interval_ms: int | None = None
    last_ms: int | None = None
    readings: int = 0
    stale: bool | None = None


async def show(config: str | None, pattern: str, *, stale: bool, as_json: bool) -> None:
    """Print them, the longest silent first. Raises UserError."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    status = need_status(config)
    reader = await Reader.connect(RealNet(), *kafka_address(status), client_id="headwater-devices", committed=True)
    try:
        described = await descriptions(reader)
        seen = await last_seen(reader)
    finally:
        await reader.close()
    known = rows_of(described, seen, status["now_ms"])
    rows = [row for row in known if fnmatchcase(row.device, pattern) and (row.stale or not stale)]
    if as_json:
        sys.stdout.write("".join(json.dumps(msgspec.to_builtins(row), ensure_ascii=False) + "\n" for row in rows))
        return
    if not rows:
        raise UserError("no such device", hint="`headwater devices list` lists all; `headwater status` the sources.")
    _print(rows, status["now_ms"])


def _print(rows: list[Row], now_ms: int) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("device", "name", "site", "type", "profile", "last seen", "readings"):
        table.add_column(column, justify="right" if column == "readings" else "left", no_wrap=True)
    for row in rows:
        last = f"{words.ago(row.last_ms, now_ms)}{', stale' if row.stale else ''}"
        told = [words.printable(text or "-") for text in (row.device, row.name, row.site, row.type, row.profile)]
        table.add_row(*told, last, f"{row.readings:,}")
    with console() as screen:
        screen.print(table)


def rows_of(described: dict[str, dict[str, Any]], seen: dict[str, Seen], now_ms: int) -> list[Row]:
    """Both put together; what speaks without being described (another node's version) is listed too."""
    rows = []
    for device in described.keys() | seen.keys():
        told = described.get(device, {})
        found = seen.get(device)
        try:
            row = msgspec.convert({**told, "device": device}, Row)
        except msgspec.ValidationError:  # another version's
            row = Row(device=device)
        if found is not None:
            row.last_ms, row.readings = found.last_ms, found.readings
            row.learnt_interval_ms = found.interval.learnt_ms
        interval_ms = row.expected_interval_ms or row.learnt_interval_ms
        if interval_ms:
            silent_ms = max(SILENT_AFTER * interval_ms, SILENT_MS)
            row.stale = row.last_ms is None or now_ms - row.last_ms > silent_ms
        rows.append(row)
    return sorted(rows, key=lambda row: (row.last_ms or 0, row.device))


async def descriptions(reader: Reader) -> dict[str, dict[str, Any]]:
    """What topic `devices` says, by `<node>/<device>`."""
    found: dict[str, dict[str, Any]] = {}
    for partition in range(await reader.partitions(DEVICES)):
        async for block in _blocks(reader, (DEVICES, partition), None):
            for key, value in zip(block.keys, block.values, strict=True):
                name = (key or b"").decode("utf-8", "replace")
                try:
                    found[name] = msgspec.json.decode(value or b"", type=dict[str, Any])
                except UNREADABLE:
                    found.pop(name, None)  # taken back, or none of ours
    return found


async def last_seen(reader: Reader) -> dict[str, Seen]:
    """Of the last records of each partition of `readings`."""
    found: dict[str, Seen] = {}
    for partition in range(await reader.partitions(READINGS)):
        async for block in _blocks(reader, (READINGS, partition), LOOK_BACK):
            for key, time_ms in zip(block.keys, block.timestamps, strict=True):
                name = (key or b"").decode("utf-8", "replace")
                if name.endswith(f"/{HEALTH_DEVICE}"):
                    continue
                found.setdefault(name, Seen()).spoke(time_ms)
    return found


async def _blocks(reader: Reader, where: tuple[str, int], back: int | None) -> AsyncIterator[Block]:
    end, position = await reader.offset(*where, "latest"), await reader.offset(*where, "earliest")
    if back is not None:
        position = max(position, end - back)
    reader.assign({where: position})
    while position < end:
        for block in await reader.poll(max_wait_ms=500):
            yield block
            position = block.next_offset
