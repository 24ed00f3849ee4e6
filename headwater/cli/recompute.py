"""`headwater aggregates recompute`: windows computed anew from the log of a node or a group, beside its processors."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.cli import words
from headwater.cli.aggregates import JOB, blocks, chosen, connect, group_file, iso, open_group
from headwater.cli.find import find_node, need_status
from headwater.errors import UserError
from headwater.settings.group import load_group

if TYPE_CHECKING:
    from gateway.consume.reader import Block
    from headwater.cli.aggregates import TopicReader
    from headwater.cli.group_log import GroupLog
    from processors.group.settings import GroupSettings
    from processors.outputs import Log
    from processors.recompute import Finding
    from processors.rules.model import WindowRule

WAIT_S = 60.0
NAMED = 10
_LEFT = {
    "open": "may still be revised by the processors themselves: their allowed lateness is not over",
    "owed": "wait for backfill that their node still owes",
    "readings expired": "cannot be made anew: readings of that time have left the log",
    "results expired": "cannot be numbered: results of that time have left topic aggregates",
}


async def recompute(config: str | None, *, since: str, until: str, rule: str, dry_run: bool, as_json: bool) -> None:
    """Compare windows with the log, and write a revision of those that differ. Raises UserError."""
    from headwater.cli.export import parse_time
    from headwater.settings.load import load_settings
    from processors.repartition import relay_topic
    from processors.rules.files import load_rules

    span = (parse_time(since, "--from", 0), parse_time(until, "--to", round(time.time() * 1000)))
    if span[0] >= span[1]:
        raise UserError(f"--from {since} is not before --to {until}", hint="--to is excluded.")
    if (path := group_file(config)) is not None:
        found, windows = await _of_group(load_group(path), span, rule, dry_run=dry_run)
        tell(found, windows, dry_run=dry_run, as_json=as_json)
        return
    ref, status = find_node(config), need_status(config)
    rules = chosen(load_rules(load_settings(ref.config).settings.rules), rule)
    reader = await connect(status)
    try:
        ends = await _ends(reader, sorted({one.topic for one in rules}))
        status = await _caught_up(config, ends)
        if relays := [relay_topic(JOB, one) for one in rules if one.group_by]:
            status = await _caught_up(config, await _ends(reader, relays))
        found, windows = await compare(reader, rules, span, _processors(status), ends)
        if not dry_run:
            await write(reader, found)
    finally:
        await reader.close()
    tell(found, windows, dry_run=dry_run, as_json=as_json)


async def _of_group(
    settings: GroupSettings, span: tuple[int, int], rule: str, *, dry_run: bool
) -> tuple[list[Finding], int]:
    """The same on a group's cluster: what its members have committed is what they are done with."""
    from processors.repartition import relay_topic
    from processors.rules.files import load_rules

    rules = chosen(load_rules(settings.rules), rule)
    log = open_group(settings)
    from headwater.cli.group_log import begins_of  # behind what says that a package is missing

    try:
        ends = await _read_by_group(log, settings, await _ends(log, sorted({one.topic for one in rules})))
        if relays := [relay_topic(settings.name, one) for one in rules if one.group_by]:
            await _read_by_group(log, settings, await _ends(log, relays))
        processors = {"begins": begins_of(settings, rules)}
        found, windows = await compare(log, rules, span, processors, ends, job=settings.name)
        if not dry_run:
            log.write("aggregates", [(one.partition, one.record) for one in found if one.record is not None])
    finally:
        await log.close()
    return found, windows


async def _read_by_group(
    log: GroupLog, settings: GroupSettings, ends: dict[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    """What of the topics up to these ends the members have read, once that is all of it but markers."""
    from processors.group.waiting import MARKERS_MAX

    until_s = time.monotonic() + WAIT_S
    while True:
        read = {where: min(end, at) for (where, end), at in zip(ends.items(), log.committed(ends), strict=True)}
        behind = sum(end - read[where] for where, end in ends.items() if end - read[where] > MARKERS_MAX)
        if not behind:
            return read
        if time.monotonic() > until_s:
            raise UserError(
                f"group {settings.group_id} is {words.count(behind, 'record')} behind the log",
                hint="Start its members (`headwater process`) or wait until they have caught up, and run this again.",
            )
        await asyncio.sleep(0.25)


async def _ends(reader: TopicReader, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    return {
        (topic, one): await reader.offset(topic, one, "latest")
        for topic in topics
        for one in range(await reader.partitions(topic))
    }


async def _caught_up(config: str | None, ends: dict[tuple[str, int], int]) -> dict[str, Any]:
    """The node's status as soon as its processors have passed these offsets: then they are done with old windows."""
    until_s = time.monotonic() + WAIT_S
    while True:
        status = need_status(config)
        found = _processors(status)
        if not found:
            hint = "Start the node, or see `headwater status` for what is wrong with its work process."
            raise UserError(
                "the node's processors do not run, so nobody knows which windows they are done with", hint=hint
            )
        positions = found.get("positions", {})
        behind = sum(max(0, end - positions.get(f"{topic}/{one}", 0)) for (topic, one), end in ends.items())
        if not behind:
            return status
        if time.monotonic() > until_s:
            raise UserError(
                f"the node's processors are {words.count(behind, 'record')} behind the log",
                hint="Wait until they have caught up (`headwater status`), and run this again.",
            )
        await asyncio.sleep(0.25)


def _processors(status: dict[str, Any]) -> dict[str, Any]:
    return ((status.get("work") or {}).get("report") or {}).get("processors") or {}


async def compare(
    reader: TopicReader,
    rules: Sequence[WindowRule],
    span: tuple[int, int],
    processors: dict[str, Any],
    ends: dict[tuple[str, int], int],
    *,
    job: str = JOB,
) -> tuple[list[Finding], int]:
    """What differs of the windows that begin in `span`, and how many were looked at. Raises UserError."""
    from processors.recompute import Places, Recomputation, Standings
    from processors.repartition import relay_topic

    standings = Standings()
    async for block in blocks(reader, "aggregates", since=span[0]):
        standings.take(block)
    outputs = await reader.partitions("aggregates")
    whole = not any([await reader.offset("aggregates", one, "earliest") for one in range(outputs)])
    relays = {one.name: await reader.partitions(relay_topic(job, one)) for one in rules if one.group_by}
    found: list[Finding] = []
    windows = 0
    for topic in sorted({one.topic for one in rules}):
        mine = [one for one in rules if one.topic == topic]
        work = Recomputation(mine, topic, begin=span[0], end=span[1])
        parts = sorted(one for name, one in ends if name == topic)
        expired = {one for one in parts if await reader.offset(topic, one, "earliest") > 0}
        # What is gone, and what was said of devices before, only the whole of the log tells.
        since = None if expired or work.facts else max(0, work.read_from)
        for one in parts:  # one after the other: what is put together across them is then the same each time
            async for block in blocks(reader, topic, since=since, ends=ends, only=one):
                work.take(_up_to(block, ends[topic, one]))
        if work.too_many:
            raise UserError("these are more windows than there is room for", hint="Choose a shorter span, or --rule.")
        told_by = {topic, *(relay_topic(job, one) for one in mine if one.group_by)}
        begins = {
            (rule, int(where.rpartition("/")[2])): begin
            for where, ones in processors.get("begins", {}).items()
            if where.rpartition("/")[0] in told_by
            for rule, begin in ones.items()
        }
        found += work.findings(standings.latest, Places(begins, relays, max(1, outputs), whole, expired))
        windows += work.windows
    return found, windows


def _up_to(block: Block, end: int) -> Block:
    """The records below an offset: how far the processors were when they were asked."""
    count = bisect_left(block.offsets, end)
    if count == len(block.offsets):
        return block
    return block._replace(
        offsets=block.offsets[:count],
        timestamps=block.timestamps[:count],
        keys=block.keys[:count],
        values=block.values[:count],
        headers=block.headers[:count],
        next_offset=end,
    )


async def write(reader: Log, found: Sequence[Finding]) -> None:
    """Write the revisions, in order; what is written before a failure stands, and is not written again."""
    from collections import defaultdict

    from processors import outputs
    from processors.checkpoint import Writer
    from processors.processor import AGGREGATES, Output

    made: dict[int, list[Output]] = {}
    for one in found:
        if one.record is not None:
            made.setdefault(one.partition, []).append(Output(AGGREGATES, one.record, "", 0))
    if not made:
        return
    writer = Writer(await reader.init_producer())
    ends: dict[str, int] = defaultdict(int)
    for partition, records in sorted(made.items()):
        await outputs.write(reader, ends, writer, records, partition)


def tell(found: Sequence[Finding], windows: int, *, dry_run: bool, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        for one in found:
            document = {name: value for name, value in one._asdict().items() if name not in ("record", "partition")}
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    counts = Counter(one.verdict for one in found)
    same = windows - len(found)
    done = "would be revised" if dry_run else "revised"
    lines = [f"{words.count(windows, 'window')}: {same:,} as the log says, {counts['revised']:,} {done}"]
    for verdict in ("revised", *_LEFT):
        mine = [one for one in found if one.verdict == verdict]
        if verdict != "revised" and mine:
            lines.append(f"{len(mine):,} {_LEFT[verdict]}")
        for one in mine[:NAMED]:
            was = f"{one.readings_before:,}" if one.readings_before is not None else "none"
            lines.append(
                f"  {one.rule} of {one.group}, {iso(one.start)} to {iso(one.end)}: {was} → {one.readings:,} readings"
            )
        if len(mine) > NAMED:
            lines.append(f"  and {len(mine) - NAMED:,} more (--json names all)")
    sys.stdout.write("\n".join(lines) + "\n")
