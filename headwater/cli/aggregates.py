"""`headwater aggregates list`: results of windows from a running node's own topics; and how those are read."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from headwater.cli import words
from headwater.cli.config_group import is_group_file
from headwater.cli.find import config_file, find_node, kafka_address, need_status
from headwater.cli.screen import console
from headwater.errors import UserError
from headwater.settings.group import load_group

if TYPE_CHECKING:
    from gateway.consume.reader import Block
    from headwater.cli.group_log import GroupLog
    from processors.group.settings import GroupSettings
    from processors.outputs import Log
    from processors.rules.model import Rules, WindowRule

JOB = "processors"
"""What a node's own processors are called in the names of their topics."""
LOOK_BACK = 50_000
"""How many records per partition are looked at for a device's newest reading, and for `list`."""


class TopicReader(Protocol):
    """The part of `outputs.Log` that reads, of a node (`Reader`) or a cluster (`GroupLog`)."""

    async def partitions(self, topic: str) -> int: ...
    async def offset(self, topic: str, partition: int, at: str | int) -> int: ...
    def assign(self, positions: Mapping[tuple[str, int], int]) -> None: ...
    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]: ...
    async def close(self) -> None: ...


async def list_results(
    config: str | None, *, rule: str, group: str, number: int, incomplete: bool, as_json: bool
) -> None:
    """Print the newest results, of each window the latest revision. Raises UserError."""
    reader = await connect_to(config)
    try:
        found = await latest(reader, rule, group, incomplete=incomplete)
    finally:
        await reader.close()
    if rule and not found:
        _need_rule(config, rule)
    shown = found[-number:]
    if as_json:
        sys.stdout.write("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in shown))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("group", "rule", "start", "length", "rev", "complete", "cause", "count"):
        table.add_column(name, justify="right" if name in ("length", "rev", "count") else "left", no_wrap=True)
    for one in shown:
        length, numbers = words.duration(one["end"] - one["start"]), (str(one["revision"]), f"{one['count']:,}")
        complete = "yes" if one["complete"] else "no"
        table.add_row(
            words.printable(one["group"]),
            one["rule"],
            iso(one["start"]),
            length,
            numbers[0],
            complete,
            one["cause"],
            numbers[1],
        )
    with console() as screen:
        screen.print(table)


def _need_rule(config: str | None, rule: str) -> None:
    """Nothing was found of a rule: raises UserError unless there is one of that name, which told nothing yet."""
    from headwater.settings.load import load_settings
    from processors.rules.files import load_rules

    path = group_file(config)
    files = load_settings(find_node(config).config).settings.rules if path is None else load_group(path).rules
    chosen(load_rules(files), rule)


def chosen(rules: Rules, name: str) -> list[WindowRule]:
    """The window rules that are meant. Raises UserError."""
    found = [one for one in rules.windows if name in ("", one.name)]
    if not found:
        names = ", ".join(one.name for one in rules.windows) or "none"
        raise UserError(f"there is no window rule{f' “{name}”' if name else ''} here", hint=f"The node's: {names}.")
    return found


async def latest(reader: TopicReader, rule: str, group: str, *, incomplete: bool = False) -> list[dict[str, Any]]:
    """The latest revision of each window among the last records of topic `aggregates`, by the ends of the windows."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    async for block in blocks(reader, "aggregates", back=LOOK_BACK):
        for value in block.values:
            try:
                one = json.loads(value or b"null")
            except ValueError:
                continue
            if isinstance(one, dict) and {"rule", "group", "start", "end", "revision"} <= one.keys():
                found[one["group"], one["rule"], one["start"]] = one
    return sorted(
        (
            one
            for one in found.values()
            if (not rule or one["rule"] == rule)
            and (not group or fnmatchcase(one["group"], group))
            and not (incomplete and one["complete"])
        ),
        key=lambda one: (one["end"], one["group"], one["rule"]),
    )


def group_file(config: str | None) -> str | None:
    """The file of `headwater process` that a command means; None when it means a node."""
    path = config_file(config)
    return path if path is not None and is_group_file(path) else None


async def connect_to(config: str | None) -> TopicReader:
    """The topics of the node or of the group that a command means. Raises UserError."""
    if (path := group_file(config)) is None:
        return await connect(need_status(config))
    return open_group(load_group(path))


def open_group(settings: GroupSettings) -> GroupLog:
    """The topics of a group's cluster. Raises UserError where what that needs is not installed."""
    try:
        from headwater.cli.group_log import GroupLog
    except ModuleNotFoundError as error:
        hint = "pip install 'headwater[process]'"
        raise UserError(f"to read a group's topics, the package {error.name} is needed", hint=hint) from None
    return GroupLog(settings)


async def connect(status: dict[str, Any]) -> Log:
    """The running node's topics, as committed."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    return await Reader.connect(RealNet(), *kafka_address(status), client_id="headwater-aggregates", committed=True)


async def blocks(
    reader: TopicReader,
    topic: str,
    *,
    since: int | None = None,
    back: int | None = None,
    ends: Mapping[tuple[str, int], int] | None = None,
    only: int | None = None,
) -> AsyncIterator[Block]:
    """A topic's records as of now: all, from the first at or after a time on, or the last `back` of each partition.

    With `ends`, up to about there instead, however many these are. `only`: of one partition.
    """
    left, until = {}, {}
    for one in range(await reader.partitions(topic)) if only is None else (only,):
        until[topic, one] = end = ends[topic, one] if ends is not None else await reader.offset(topic, one, "latest")
        first = await reader.offset(topic, one, "earliest")
        begin = await reader.offset(topic, one, since) if since is not None else first
        begin = max(first, begin, end - back if back is not None else 0)
        if begin < end:
            left[topic, one] = begin
    while left:
        reader.assign(left)
        for block in await reader.poll(max_wait_ms=500, max_bytes=4 << 20):
            left[block.topic, block.partition] = block.next_offset
            if block.offsets:
                yield block
        left = {where: offset for where, offset in left.items() if offset < until[where]}


def iso(time_ms: int) -> str:
    """UTC, with milliseconds only where there are some."""
    from headwater.cli.export import iso as whole

    return whole(time_ms).replace(".000Z", "Z") or f"{time_ms} ms"
