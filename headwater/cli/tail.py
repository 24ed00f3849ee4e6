"""`headwater tail` and `headwater topics`: look into a running node's log, as any Kafka client would."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from devices.reading import HEALTH_DEVICE
from headwater.cli.find import kafka_address, need_status
from headwater.cli.screen import console
from headwater.errors import UserError
from headwater.printable import printable

if TYPE_CHECKING:
    from gateway.consume.reader import Block, Reader

    Positions = dict[tuple[str, int], int]

LAST = 10
"""What `tail` shows of the past when nothing else is asked for, as tail(1) does."""
LOOK_BACK = 2_000
LOOK_BACK_MAX = 200_000
"""How many offsets back it looks for them, at first and at most: a node's own health readings, one a second, are
passed over, and a node may have been idle for days."""
_HEALTH_KEY = f"/{HEALTH_DEVICE}".encode()


class Line(NamedTuple):
    """One record as it is printed; lines sort by time, and within a partition by offset."""

    time_ms: int
    partition: int
    offset: int
    text: str


class Printer:
    """Turns records into lines and prints them, at most `number`."""

    def __init__(self, *, number: int | None, as_json: bool, everything: bool) -> None:
        self.left = number
        self.printed = 0
        self._as_json = as_json
        self._everything = everything

    @property
    def done(self) -> bool:
        return self.left is not None and self.left <= 0

    def lines(self, block: Block, first: int, end: int | None = None) -> list[Line]:
        """A block's records from offset `first` to `end`: a fetch answers with the whole batches that hold them."""
        show = _json_line if self._as_json else _text_line
        return [
            Line(block.timestamps[at], block.partition, offset, show(block, at))
            for at, (offset, key) in enumerate(zip(block.offsets, block.keys, strict=True))
            if offset >= first
            and (end is None or offset < end)
            and (self._everything or key is None or not key.endswith(_HEALTH_KEY))
        ]

    def show(self, lines: Iterable[Line]) -> None:
        """Print them, as far as they are still wanted."""
        for line in lines:
            if self.done:
                break
            sys.stdout.write(line.text + "\n")
            self.printed += 1
            if self.left is not None:
                self.left -= 1
        sys.stdout.flush()


async def tail(
    config: str | None, topic: str, *, start: str, number: int | None, as_json: bool, everything: bool
) -> None:
    """Print records of a topic as they come; ends after `number` of them, else never. Raises UserError.

    Without `start` the past's last ones come first: `number`, or 10. With it, `number` counts from there.
    """
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    address = kafka_address(need_status(config))
    reader = await Reader.connect(RealNet(), *address, client_id="headwater-tail", committed=True)
    try:
        partitions = await reader.partitions(topic)
        if not partitions:
            raise UserError(f"the node has no topic “{topic}”", hint="`headwater topics` lists them.")
        printer = Printer(number=number, as_json=as_json, everything=everything)
        where = [(topic, one) for one in range(partitions)]
        now = {one: await reader.offset(*one, "latest") for one in where}
        if not start or _is_back(start):
            await _last(reader, printer, now, -int(start) if start else number or LAST)
            positions = now
        else:
            positions = {one: await _position(reader, one, start, now[one], partitions) for one in where}
        await _follow(reader, printer, positions, now)
    finally:
        await reader.close()


async def _last(reader: Reader, printer: Printer, now: Positions, wanted: int) -> None:
    """Print the last `wanted` records before `now`, over all partitions, by time."""
    found: list[Line] = []
    for where, end in now.items():
        found += await _last_of(reader, printer, where, end, wanted)
    found.sort()
    printer.show(found[-wanted:])


async def _last_of(reader: Reader, printer: Printer, where: tuple[str, int], end: int, wanted: int) -> Iterable[Line]:
    """The last `wanted` of one partition, sought backwards in growing steps."""
    found: deque[Line] = deque(maxlen=wanted)
    first = max(await reader.offset(*where, "earliest"), end - LOOK_BACK_MAX)
    step = LOOK_BACK
    while end > first and len(found) < wanted:
        begin = max(first, end - step)
        reader.assign({where: begin})
        older: deque[Line] = deque(maxlen=wanted - len(found))
        while (at := reader.position(*where)) < end:
            for block in await reader.poll(max_wait_ms=500):
                older.extend(printer.lines(block, at, end))
        found.extendleft(reversed(older))
        end, step = begin, step * 4
    return found


async def _follow(reader: Reader, printer: Printer, positions: Positions, now: Positions) -> None:
    first = dict(positions)
    reader.assign(positions)
    waiting = False
    while not printer.done:
        if not waiting and all(reader.position(*where) >= end for where, end in now.items()):
            waiting = True
            if not printer.printed:
                sys.stderr.write("no records there yet; waiting for the first one (Ctrl-C ends)\n")
        for block in await reader.poll(max_wait_ms=500):
            printer.show(printer.lines(block, first[block.topic, block.partition]))


async def _position(reader: Reader, where: tuple[str, int], start: str, end: int, partitions: int) -> int:
    first = await reader.offset(*where, "earliest")
    if start == "start":
        return first
    if start == "end":
        return end
    if not start.isdigit():
        raise UserError(
            f"--from {start}: neither start, end nor an offset", hint="For example --from start, --from 500, --from -5."
        )
    if int(start) > end and partitions == 1:
        hint = f"The log holds offsets {first} to {end - 1}." if end > first else "The log is empty."
        raise UserError(f"--from {start} is past the end of topic “{where[0]}”, {end}", hint=hint)
    if int(start) < first:
        sys.stderr.write(f"partition {where[1]} begins at offset {first}; what was before it has expired\n")
    return min(max(first, int(start)), end)


def _is_back(start: str) -> bool:
    return start.startswith("-") and start[1:].isdigit() and int(start) < 0


def _json_line(block: Block, at: int) -> str:
    record = {
        "topic": block.topic,
        "partition": block.partition,
        "offset": block.offsets[at],
        "time_ms": block.timestamps[at],
        "key": _text(block.keys[at]),
        "value": _value(block.values[at]),
        "headers": _headers(block.headers[at]),
    }
    return json.dumps(record, ensure_ascii=False)


def _text_line(block: Block, at: int) -> str:
    time_ms, value = block.timestamps[at], block.values[at]
    when = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if time_ms >= 0 else "-"
    line = f"{when}  {_text(block.keys[at]) or '-'}  {_text(value) if value is not None else '(deleted)'}"
    # a dead letter's headers say why it is one; hw- headers are between nodes
    told = [f"{name}: {text}" for name, text in _headers(block.headers[at]).items() if not name.startswith("hw")]
    return f"{line}  [{'; '.join(told)}]" if told else line


def _headers(section: bytes) -> dict[str, str | None]:
    from gateway.log.records import decode_headers

    return {name: _text(value) for name, value in decode_headers(section)}


def _text(data: bytes | None) -> str | None:
    """Bytes for a terminal: what is no text, and control characters, as escapes."""
    if data is None:
        return None
    return printable(data.decode("utf-8", errors="backslashreplace"))


def _value(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return _text(data)


def _finite(text: str) -> float:
    """JSON knows no NaN and no Infinity, though Python's parser and 1e999 bring them: such a value is shown as text."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def topics(config: str | None, *, as_json: bool) -> None:
    """Print the topics of a running node with their offsets."""
    found = (need_status(config).get("log") or {}).get("topics") or {}
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("topic", "partition", "start", "end", "synced", "bytes"):
        table.add_column(name, justify="left" if name == "topic" else "right", no_wrap=True)
    for name, topic in sorted(found.items()):
        for index, one in enumerate(topic["partitions"]):
            numbers = [f"{one[key]:,}" for key in ("start", "end", "synced", "bytes")]
            table.add_row(name, str(index), *numbers)
    with console() as screen:
        screen.print(table)
