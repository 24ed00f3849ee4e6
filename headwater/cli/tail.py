"""`headwater tail` and `headwater topics`: look into a running node's log, as any Kafka client would."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headwater.cli.find import kafka_address, need_status
from headwater.errors import UserError

if TYPE_CHECKING:
    from gateway.consume.reader import Block, Reader

LAST = 10
"""What `tail` shows of the past when nothing else is asked for, as tail(1) does."""


async def tail(config: str | None, topic: str, *, start: str, number: int | None, as_json: bool) -> None:
    """Print records of a topic as they come; ends after `number` of them, else never. Raises UserError."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    address = kafka_address(need_status(config))
    reader = await Reader.connect(RealNet(), *address, client_id="headwater-tail", committed=True)
    try:
        partitions = await reader.partitions(topic)
        if not partitions:
            raise UserError(f"the node has no topic “{topic}”", hint="`headwater topics` lists them.")
        positions = {(topic, one): await _position(reader, topic, one, start) for one in range(partitions)}
        reader.assign(positions)
        left = number
        while left is None or left > 0:
            for block in await reader.poll(max_wait_ms=500):
                left = _print_block(block, left, positions[block.topic, block.partition], as_json=as_json)
            sys.stdout.flush()
    finally:
        await reader.close()


async def _position(reader: Reader, topic: str, partition: int, start: str) -> int:
    first = await reader.offset(topic, partition, "earliest")
    end = await reader.offset(topic, partition, "latest")
    if start == "start":
        return first
    if start == "end":
        return end
    if start == "":
        return max(first, end - LAST)
    if not start.lstrip("-").isdigit():
        raise UserError(
            f"--from {start}: neither start, end nor an offset", hint="For example --from start, --from 500."
        )
    offset = int(start)
    return max(first, end + offset) if offset < 0 else min(max(first, offset), end)


def _print_block(block: Block, left: int | None, first: int, *, as_json: bool) -> int | None:
    for offset, time_ms, key, value in zip(block.offsets, block.timestamps, block.keys, block.values, strict=True):
        if offset < first:
            continue  # a fetch answers with the whole batch that holds the offset
        if left is not None:
            if left <= 0:
                return 0
            left -= 1
        sys.stdout.write(_line(block, offset, time_ms, key, value, as_json=as_json) + "\n")
    return left


def _line(block: Block, offset: int, time_ms: int, key: bytes | None, value: bytes | None, *, as_json: bool) -> str:
    if as_json:
        record = {"topic": block.topic, "partition": block.partition, "offset": offset, "time_ms": time_ms}
        return json.dumps(record | {"key": _text(key), "value": _value(value)}, ensure_ascii=False)
    when = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if time_ms >= 0 else "-"
    return f"{when}  {_text(key) or '-'}  {_text(value) if value is not None else '(deleted)'}"


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
