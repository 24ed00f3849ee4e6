"""`headwater tail` and `headwater topics`: look into a running node's log, as any Kafka client would."""

from __future__ import annotations

import json
import sys
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headwater.cli.find import kafka_address, need_status
from headwater.errors import UserError

if TYPE_CHECKING:
    from gateway.consume.reader import Block, Reader

    Positions = dict[tuple[str, int], int]

LAST = 10
"""What `tail` shows of the past when nothing else is asked for, as tail(1) does."""
LOOK_BACK = 2_000
"""How many offsets back it looks for them: a node's own health readings, one a second, are passed over."""
OWN_DEVICE = b"/$gateway"


class Printer:
    """Prints records, at most `number`; the past is held back until its last ones are known."""

    def __init__(self, *, number: int | None, as_json: bool, everything: bool, last: int | None) -> None:
        self.left = number
        self._as_json = as_json
        self._everything = everything
        self._held: deque[str] | None = deque(maxlen=last) if last is not None else None

    @property
    def done(self) -> bool:
        return self.left is not None and self.left <= 0

    def block(self, block: Block, first: int) -> None:
        """Print a block's records from offset `first` on: a fetch answers with the whole batch that holds it."""
        for at, (offset, key) in enumerate(zip(block.offsets, block.keys, strict=True)):
            if offset < first or not (self._everything or key is None or not key.endswith(OWN_DEVICE)):
                continue
            line = (_json_line if self._as_json else _text_line)(block, at)
            if self._held is not None:
                self._held.append(line)
            else:
                self._print(line)

    def past_is_read(self) -> None:
        """Print the last of the past; what comes from now on is printed at once."""
        held, self._held = self._held, None
        for line in held or ():
            self._print(line)
        sys.stdout.flush()

    def _print(self, line: str) -> None:
        if not self.done:
            sys.stdout.write(line + "\n")
            if self.left is not None:
                self.left -= 1


async def tail(
    config: str | None, topic: str, *, start: str, number: int | None, as_json: bool, everything: bool
) -> None:
    """Print records of a topic as they come; ends after `number` of them, else never. Raises UserError."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    last = LAST if not start else -int(start) if _is_back(start) else None
    address = kafka_address(need_status(config))
    reader = await Reader.connect(RealNet(), *address, client_id="headwater-tail", committed=True)
    try:
        partitions = await reader.partitions(topic)
        if not partitions:
            raise UserError(f"the node has no topic “{topic}”", hint="`headwater topics` lists them.")
        positions = {(topic, one): await _position(reader, topic, one, start) for one in range(partitions)}
        now = {where: await reader.offset(*where, "latest") for where in positions}
        printer = Printer(number=number, as_json=as_json, everything=everything, last=last)
        await _follow(reader, printer, positions, now)
    finally:
        await reader.close()


async def _follow(reader: Reader, printer: Printer, positions: Positions, now: Positions) -> None:
    first = dict(positions)
    waiting = {where for where, end in now.items() if positions[where] < end}
    if not waiting:
        printer.past_is_read()
    reader.assign(positions)
    while not printer.done:
        for block in await reader.poll(max_wait_ms=500):
            where = (block.topic, block.partition)
            printer.block(block, first[where])
            if where in waiting and block.next_offset >= now[where]:
                waiting.discard(where)
                if not waiting:
                    printer.past_is_read()
        sys.stdout.flush()


async def _position(reader: Reader, topic: str, partition: int, start: str) -> int:
    first = await reader.offset(topic, partition, "earliest")
    end = await reader.offset(topic, partition, "latest")
    if start == "start":
        return first
    if start == "end":
        return end
    if not start or _is_back(start):
        return max(first, end - LOOK_BACK)
    if not start.isdigit():
        raise UserError(
            f"--from {start}: neither start, end nor an offset", hint="For example --from start, --from 500."
        )
    return min(max(first, int(start)), end)


def _is_back(start: str) -> bool:
    return start.startswith("-") and start[1:].isdigit()


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
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _value(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return _text(data)


def topics(config: str | None, *, as_json: bool) -> None:
    """Print the topics of a running node with their offsets."""
    found = (need_status(config).get("log") or {}).get("topics") or {}
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("topic", "partition", "start", "end", "synced", "bytes"):
        table.add_column(name, justify="left" if name == "topic" else "right", no_wrap=True)
    for name, topic in sorted(found.items()):
        for index, one in enumerate(topic["partitions"]):
            numbers = [f"{one[key]:,}" for key in ("start", "end", "synced", "bytes")]
            table.add_row(name, str(index), *numbers)
    Console(highlight=False).print(table)
