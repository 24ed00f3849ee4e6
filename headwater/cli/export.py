"""`headwater export`: a running node's records as CSV.

The log is read twice: once for the names of the columns, once for the rows, so that memory depends on neither the
length of the log nor that of the file. The file appears when it is whole.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import msgspec

from devices.reading import HEALTH_DEVICE
from headwater.cli import words
from headwater.cli.find import kafka_address, need_status
from headwater.errors import UNREADABLE, UserError

if TYPE_CHECKING:
    from gateway.consume.reader import Block, Reader

    Positions = dict[tuple[str, int], int]

COLUMNS_MAX = 2_000
POLL_BYTES_MAX = 1 << 20
TELL_EVERY_S = 0.5
OWN = ("time", "time_ms", "key")
"""The first columns of every file."""
VALUE = "value"
"""Where the value stands when it is no JSON object."""

_FOREVER_MS = 1 << 62
_HEALTH_KEY = f"/{HEALTH_DEVICE}".encode()


async def export(
    config: str | None, topic: str, *, file: str, start: str, end: str, columns: str, everything: bool, replace: bool
) -> None:
    """Write the records of a topic with from ≤ time < to; `-` is standard output. Raises UserError.

    `everything`: also what the gateways say of themselves; it lies between the readings because marks travel on it.
    """
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    span = parse_time(start, "--from", -_FOREVER_MS), parse_time(end, "--to", _FOREVER_MS)
    _check_free(file, replace=replace)
    address = kafka_address(need_status(config))
    reader = await Reader.connect(RealNet(), *address, client_id="headwater-export", committed=True)
    try:
        records = await _Range.find(reader, topic, span, everything=everything)
        progress = Progress(records.total, tell=sys.stderr.isatty())
        names = columns.split(",") if columns else await _names(records, progress)
        empty = set(names)
        with _whole_file(file, replace=replace) as out:
            rows = await _write(records, names, out, progress, empty)
        told = f"{words.count(rows, 'record')} of topic {topic} in {file if file != '-' else 'standard output'}"
        if columns and rows and empty:
            told += f"; none has {', '.join(name for name in names if name in empty)}"
        progress.end(told)
    finally:
        await reader.close()


def parse_time(text: str, option: str, default: int) -> int:
    """Milliseconds since the epoch from ISO 8601 (UTC unless it names an offset), or from a number of them."""
    if not text:
        return default
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{option} {text}: no time", hint="Write 2026-03-29, 2026-03-29T12:00, 2026-03-29T12:00+02:00 or ms."
        ) from None
    return round(when.replace(tzinfo=when.tzinfo or UTC).timestamp() * 1000)


def _check_free(file: str, *, replace: bool) -> None:
    if file != "-" and os.path.exists(file) and not replace:
        raise UserError(f"{file} is there already", hint="Name another file, or replace it with --replace.")


class _Range:
    """A topic's records as of now, in a span of event time."""

    def __init__(
        self, reader: Reader, first: Positions, ends: Positions, span: tuple[int, int], *, everything: bool
    ) -> None:
        self._everything = everything
        self._reader = reader
        self._first = first
        self._ends = ends
        self.span = span
        self.total = sum(max(0, ends[where] - offset) for where, offset in first.items())

    @classmethod
    async def find(cls, reader: Reader, topic: str, span: tuple[int, int], *, everything: bool) -> _Range:
        """From each partition's first record at or after the span's start to its present end.

        Late records stand behind later ones, so the span's end ends nothing.
        """
        partitions = await reader.partitions(topic)
        if not partitions:
            raise UserError(f"the node has no topic “{topic}”", hint="`headwater topics` lists them.")
        first, ends = {}, {}
        for one in range(partitions):
            at: str | int = "earliest" if span[0] <= 0 else span[0]
            first[topic, one] = await reader.offset(topic, one, at)
            ends[topic, one] = await reader.offset(topic, one, "latest")
        return cls(reader, first, ends, span, everything=everything)

    async def blocks(self, progress: Progress) -> AsyncIterator[tuple[Block, list[int]]]:
        """Blocks, each with the indices of the records that count."""
        left = {where: offset for where, offset in self._first.items() if offset < self._ends[where]}
        start, end = self.span
        progress.begin()
        while left:
            self._reader.assign(left)
            for block in await self._reader.poll(max_bytes=POLL_BYTES_MAX):
                where = (block.topic, block.partition)
                known_end = self._ends[where]
                chosen = [
                    at
                    for at, (offset, time_ms) in enumerate(zip(block.offsets, block.timestamps, strict=True))
                    if offset < known_end and start <= time_ms < end and self._takes(block.keys[at])
                ]
                progress.add(min(block.next_offset, known_end) - left[where])
                left[where] = block.next_offset
                yield block, chosen
            left = {where: offset for where, offset in left.items() if offset < self._ends[where]}

    def _takes(self, key: bytes | None) -> bool:
        return self._everything or key is None or not key.endswith(_HEALTH_KEY)


async def _names(records: _Range, progress: Progress) -> list[str]:
    """The members that any record has, sorted; `value` when one is no JSON object."""
    found: set[str] = set()
    progress.step, progress.steps = "finding columns", 2
    async for block, chosen in records.blocks(progress):
        for at in chosen:
            found.update(flat(block.values[at]))
        if len(found) > COLUMNS_MAX:
            raise UserError(
                f"the records have more than {COLUMNS_MAX:,} different members",
                hint="Choose a shorter time, or name what you want with --columns a,b,c.",
            )
    return sorted(found)


async def _write(records: _Range, names: list[str], out: IO[str], progress: Progress, empty: set[str]) -> int:
    """How many rows; `empty` keeps the names that no record has."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*OWN, *names])
    rows = 0
    progress.step = "writing"
    async for block, chosen in records.blocks(progress):
        for at in chosen:
            members = flat(block.values[at])
            if empty:
                empty.difference_update(members)
            key = block.keys[at]
            own = [iso(block.timestamps[at]), block.timestamps[at], "" if key is None else key.decode(errors="replace")]
            writer.writerow([*own, *(cell(members[name]) if name in members else "" for name in names)])
        rows += len(chosen)
    return rows


def flat(value: bytes | None) -> dict[str, Any]:
    """A record's members, those of objects in it as `outer.inner`."""
    if value is None:
        return {}
    try:
        decoded = msgspec.json.decode(value)
    except UNREADABLE:
        return {VALUE: value.decode(errors="backslashreplace")}
    if not isinstance(decoded, dict):
        return {VALUE: decoded}
    members: dict[str, Any] = {}
    waiting = list(decoded.items())
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend((f"{name}.{inner}", one) for inner, one in item.items())
        else:
            members[name] = item
    return members


def cell(item: Any) -> Any:
    """As JSON writes it; text without quotes, null as nothing."""
    if isinstance(item, str):
        return item
    return "" if item is None else msgspec.json.encode(item).decode()


def iso(time_ms: int) -> str:
    """UTC with milliseconds; "" for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03}Z"
    except (ValueError, OverflowError, OSError):
        return ""


@contextlib.contextmanager
def _whole_file(name: str, *, replace: bool) -> Iterator[IO[str]]:
    """A file that takes its name when all is written; what a failure leaves is removed."""
    if name == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    part = f"{name}.part"
    try:
        with open(part, "w", encoding="utf-8", newline="") as out:
            yield out
        if replace:
            os.replace(part, name)
        else:
            os.link(part, name)  # fails when somebody made it meanwhile
    except (ConnectionError, TimeoutError):
        raise  # the node's, not the file's
    except OSError as error:
        raise UserError(
            f"cannot write {name}: {error.strerror or error}", hint="Name a file that can be made."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


class Progress:
    """One line on a terminal's stderr, replaced twice a second; a sentence at the end in any case."""

    def __init__(self, total: int, *, tell: bool, now: Callable[[], float] = time.monotonic) -> None:
        self.step = ""
        self.steps = 1
        self._total = total
        self._tell = tell
        self._now = now
        self._done = 0
        self._began = self._told = now()
        self._width = 0

    def begin(self) -> None:
        """A pass begins."""
        self._done, self._began = 0, self._now()

    def add(self, records: int) -> None:
        """So many more were passed."""
        self._done += records
        now = self._now()
        if self._tell and now - self._told >= TELL_EVERY_S:
            self._told = now
            self._show(self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """For people: share, records, speed, time left."""
        share = self._done / self._total if self._total else 1.0
        text = f"{self.step}: {share:4.0%}  {words.count(self._done, 'record')}"
        if seconds > 0 and self._done:
            speed = self._done / seconds
            text += f"  {speed:,.0f}/s  {words.duration((self._total - self._done) / speed * 1000)} left"
        return text

    def end(self, text: str) -> None:
        """What has been done."""
        self._show(text) if self._tell else sys.stderr.write(text)
        sys.stderr.write("\n")

    def _show(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)
