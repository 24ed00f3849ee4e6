"""Dead letters of a running node, for `headwater deadletter` and `headwater profiles test --live`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from headwater.cli.export import parse_time
from headwater.cli.find import kafka_address
from headwater.errors import UserError

if TYPE_CHECKING:
    from devices.profiles import Profile
    from gateway.consume.reader import Block, Reader
    from headwater.settings.model import Settings

TOPIC = "deadletter"
LOOK_BACK = 100_000
"""How many records back the last ones are sought; a filter by time or offset goes as far as it says."""
_END_OF_TIME_MS = 1 << 52


class DeadLetter(NamedTuple):
    """One record of topic `deadletter`; `headers` as texts."""

    partition: int
    offset: int
    time_ms: int
    key: str
    payload: bytes
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        return self.headers.get("reason", "")

    @property
    def source(self) -> str:
        return self.headers.get("source", self.key.partition("/")[2])

    @property
    def topic(self) -> str:
        return self.headers.get("topic", "")

    @property
    def arrival_ms(self) -> int:
        """When the message came; the record's own time where no header says it."""
        text = self.headers.get("time", "")
        return int(text) if text.isdecimal() and len(text) < 17 else self.time_ms


class Filter(NamedTuple):
    """Which ones: part of the reason (in any case), pattern of the source, arrival times, offsets (end exclusive)."""

    reason: str = ""
    source: str = ""
    since_ms: int = 0
    until_ms: int = _END_OF_TIME_MS
    first: int = 0
    end: int | None = None

    def takes(self, one: DeadLetter) -> bool:
        return (
            self.reason.lower() in one.reason.lower()
            and (not self.source or fnmatchcase(one.source, self.source))
            and self.since_ms <= one.arrival_ms < self.until_ms
            and one.offset >= self.first
            and (self.end is None or one.offset < self.end)
        )


def parse_filter(reason: str, source: str, since: str, until: str, offset: str) -> Filter:
    """From a command's options. Raises UserError."""
    first, dash, last = offset.partition("-")
    if offset and not (first.isdecimal() and (not dash or last.isdecimal())):
        raise UserError(f"--offset {offset} is no offset", hint="Write one, as 17, or a range, as 17-20.")
    end = None if not offset else int(last if dash else first) + 1
    times = (parse_time(since, "--since", 0), parse_time(until, "--until", _END_OF_TIME_MS))
    return Filter(reason, source, *times, int(first or 0), end)


def port_profiles(settings: Settings) -> dict[str, Profile | None]:
    """By source, the profile that each serial port's and each bus device's section names. Raises UserError."""
    from gateway.ingest.modbus.plan import bus_plan
    from gateway.ingest.serial import port_profile

    found = {f"serial:{port.source_name}": port_profile(port) for port in settings.serial}
    for plan in map(bus_plan, settings.modbus):
        found |= {plan.source_id(device): device.profile for device in plan.devices}
    return found


@asynccontextmanager
async def connected(status: dict[str, object]) -> AsyncIterator[Reader]:
    """A reader of the node's own log."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    reader = await Reader.connect(RealNet(), *kafka_address(status), client_id="headwater-deadletter", committed=True)
    try:
        yield reader
    finally:
        await reader.close()


async def dead_letters(reader: Reader, wanted: Filter, *, back: int | None = None) -> AsyncIterator[DeadLetter]:
    """Those that a filter takes, partition by partition, by offset; `back`: only among the last so many."""
    for partition in range(await reader.partitions(TOPIC)):
        where = (TOPIC, partition)
        end = await reader.offset(*where, "latest")
        position = max(await reader.offset(*where, "earliest"), wanted.first)
        if back is not None and not wanted.first and not wanted.since_ms:
            position = max(position, end - back)
        if wanted.end is not None:
            end = min(end, wanted.end)
        while position < end:
            reader.assign({where: position})
            for block in await reader.poll(max_wait_ms=500):
                for one in _of(block):
                    if position <= one.offset < end and wanted.takes(one):
                        yield one
                position = max(position, block.next_offset)


def _of(block: Block) -> list[DeadLetter]:
    from gateway.log.records import decode_headers

    return [
        DeadLetter(
            block.partition,
            offset,
            block.timestamps[at],
            (block.keys[at] or b"").decode("utf-8", "replace"),
            bytes(block.values[at] or b""),
            {name: (value or b"").decode("utf-8", "replace") for name, value in decode_headers(block.headers[at])},
        )
        for at, offset in enumerate(block.offsets)
    ]
