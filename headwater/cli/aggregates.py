"""`headwater aggregates list|why`: results of windows, and what holds one open, from a running node's own topics."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from headwater.cli import words
from headwater.cli.find import find_node, kafka_address, need_status
from headwater.cli.screen import console
from headwater.errors import UserError

if TYPE_CHECKING:
    from gateway.consume.reader import Block
    from processors.outputs import Log
    from processors.rules.model import Rules
    from processors.why import Late, Trace, Window

LOOK_BACK = 50_000
"""How many records per partition are looked at for a device's newest reading, and for `list`."""
RECORDS_MAX = 2_000_000
"""How many records per partition `why` reads at most."""
BEFORE_MS = 120_000
"""How far before a window its marks are read: every source is named once in 60 marks."""


async def list_results(
    config: str | None, *, rule: str, group: str, number: int, incomplete: bool, as_json: bool
) -> None:
    """Print the newest results, of each window the latest revision. Raises UserError."""
    reader = await connect(need_status(config))
    try:
        found = await latest(reader, rule, group, incomplete=incomplete)
    finally:
        await reader.close()
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
            one["group"], one["rule"], iso(one["start"]), length, numbers[0], complete, one["cause"], numbers[1]
        )
    console().print(table)


async def latest(reader: Log, rule: str, group: str, *, incomplete: bool = False) -> list[dict[str, Any]]:
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


async def why(config: str | None, key: str, *, at: str, rule: str, as_json: bool) -> None:
    """Print what holds windows open and why readings of them were late. Raises UserError."""
    from headwater.cli.export import parse_time
    from headwater.settings.load import load_settings
    from processors.rules.files import load_rules

    ref, status = find_node(config), need_status(config)
    rules = load_rules(load_settings(ref.config).settings.rules)
    time_ms = parse_time(at, "--at", 0) if at else None
    reader = await connect(status)
    try:
        found = await explain(reader, rules, key, time_ms, rule=rule, status=status, now_ms=round(time.time() * 1000))
    finally:
        await reader.close()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n\n".join(text(one) for one in found) + "\n")


async def explain(
    reader: Log, rules: Rules, key: str, time_ms: int | None, *, rule: str, status: dict[str, Any], now_ms: int
) -> list[dict[str, Any]]:
    """A document for each window that is meant: `key` is `<node>/<device>` or the whole key of a result."""
    from processors.why import Trace

    group, windows = await _windows(reader, rules, key, time_ms, rule)
    found = []
    for topic, window in windows:
        trace = Trace(window)
        async for block in blocks(reader, "aggregates", since=window.start):
            trace.take_results(block.values)
        if trace.results:  # a session is as long as it was last told to be
            end = max(trace.window.end, trace.results[-1]["end"])
            trace.window = trace.window._replace(end=end)
        async for block in blocks(reader, topic, since=max(0, window.start - BEFORE_MS)):
            trace.take(block)
        found.append(_document(trace, topic, group, status, now_ms))
    return found


async def _windows(
    reader: Log, rules: Rules, key: str, time_ms: int | None, rule: str
) -> tuple[str, list[tuple[str, Window]]]:
    """The device that a key names, and the windows that are meant with the topics that they are over."""
    from processors.rules.model import DEVICE_ZONE
    from processors.why import matches, window_at

    group, name, start = _parts(key, [one.name for one in rules.windows])
    if start is not None:
        time_ms, rule = start, name
    chosen = [one for one in rules.windows if matches(one, group) and rule in ("", one.name)]
    if not chosen:
        names = ", ".join(one.name for one in rules.windows) or "none"
        said = f"no window rule{f' “{rule}”' if rule else ''} here is about {group}"
        raise UserError(
            said, hint=f"The node's window rules: {names}. A key is <node>/<device>, as in `headwater tail`."
        )
    found = []
    for one in chosen:
        at = time_ms if time_ms is not None else await _newest(reader, one.topic, group)
        zone = await _zone_of(reader, group) if one.zone == DEVICE_ZONE else ""
        found.append((one.topic, window_at(one, group, at, zone)))
    return group, found


def _parts(key: str, rules: list[str]) -> tuple[str, str, int | None]:
    group, _, start = key.rpartition("/")
    group, _, name = group.rpartition("/")
    if "/" in group and name in rules and start.lstrip("-").isdigit():
        return group, name, int(start)
    if "/" not in key.strip("/"):
        raise UserError(f"“{key}” is no key of a device", hint="For example edge-1/t01, as `headwater tail` shows it.")
    return key, "", None


async def _zone_of(reader: Log, group: str) -> str:
    """The zone that a device has now; "" when it has none."""
    zone = ""
    async for block in blocks(reader, "devices"):
        for key, value in zip(block.keys, block.values, strict=True):
            if key == group.encode():
                zone = _said_zone(value)
    return zone


def _said_zone(value: bytes | None) -> str:
    try:
        return str(json.loads(value or b"{}").get("zone") or "")
    except (ValueError, AttributeError, RecursionError):
        return ""  # somebody else's record


async def _newest(reader: Log, topic: str, group: str) -> int:
    newest = None
    async for block in blocks(reader, topic, back=LOOK_BACK):
        for at, key in zip(block.timestamps, block.keys, strict=True):
            if key == group.encode():
                newest = at if newest is None else max(newest, at)
    if newest is None:
        raise UserError(
            f"no reading of {group} among the last {LOOK_BACK:,} records of {topic}",
            hint="Name a time: --at 2026-03-28T14:00 (UTC). `headwater tail` shows which keys there are.",
        )
    return newest


async def connect(status: dict[str, Any]) -> Log:
    """The running node's topics, as committed."""
    from gateway.consume.reader import Reader
    from headwater.net import RealNet

    return await Reader.connect(RealNet(), *kafka_address(status), client_id="headwater-aggregates", committed=True)


async def blocks(
    reader: Log,
    topic: str,
    *,
    since: int | None = None,
    back: int | None = None,
    ends: Mapping[tuple[str, int], int] | None = None,
) -> AsyncIterator[Block]:
    """A topic's records as of now: from the first at or after a time on, or the last `back` of each partition.

    With `ends`, up to about there instead, however many these are.
    """
    left, until = {}, {}
    for one in range(await reader.partitions(topic)):
        until[topic, one] = end = ends[topic, one] if ends is not None else await reader.offset(topic, one, "latest")
        first = await reader.offset(topic, one, "earliest")
        begin = await reader.offset(topic, one, since) if since is not None else first
        begin = max(first, begin, 0 if ends is not None else end - (back or RECORDS_MAX))
        if begin < end:
            left[topic, one] = begin
    while left:
        reader.assign(left)
        for block in await reader.poll(max_wait_ms=500, max_bytes=4 << 20):
            left[block.topic, block.partition] = block.next_offset
            yield block
        left = {where: offset for where, offset in left.items() if offset < until[where]}


# what is found


def _document(trace: Trace, topic: str, group: str, status: dict[str, Any], now_ms: int) -> dict[str, Any]:
    window, holder = trace.window, trace.holder(now_ms)
    last = trace.results[-1] if trace.results else None
    told = {name: last[name] for name in ("revision", "complete", "cause", "count")} if last else None
    return {
        "rule": window.rule,
        "group": group,
        "start": window.start,
        "end": window.end,
        "readings": trace.readings,
        "told": told,
        "held_by": holder,
        "reason": reason(trace, holder, topic),
        "processors": _processors(status, trace, holder, told),
        "late": [late._asdict() for late in trace.late],
        "late_count": trace.late_count,
        "late_reasons": [late_reason(late, trace.node, topic) for late in trace.late],
    }


def reason(trace: Trace, holder: dict[str, Any], topic: str) -> str:
    """What holds a window open, as a sentence."""
    node, end = trace.node, iso(trace.window.end)
    if holder["kind"] == "no_marks":
        return f"{node} has put no mark into {topic}; windows over what foreign producers write do not close."
    if holder["kind"] == "partition":
        have = ", ".join(str(one) for one in holder["known"])
        return f"Only partition {have} of the {holder['expected']} of {node} has made a mark so far."
    mark = f"mark {holder['n']} of {node} ({topic}/{holder['partition']}, offset {holder['offset']})"
    if holder["kind"] == "backfill":
        spans = ", ".join(f"{iso(first)} to {iso(last)}" for first, last in holder["owed"])
        return f"Backfill still owes data of {spans}, says {mark}: {node} was cut off then and is sending it."
    if holder["kind"] == "nothing":
        if holder["lost"]:
            spans = ", ".join(f"{iso(first)} to {iso(last)}" for first, last in holder["lost"])
            return f"Nothing: it has closed, but data of {spans} was given up."
        closed = trace.closed
        by = f"mark {closed.mark.n} of {node} ({topic}/{closed.partition}, offset {closed.offset})" if closed else mark
        return f"Nothing: {by} said that all of its sources had passed {end}."
    short = (
        f"{words.duration(holder['missing_ms'])} short of its end {end}"
        if holder["missing_ms"] >= 1000
        else (f"{holder['missing_ms']} ms short of its end {end}")
    )
    far = f"{mark} says {iso(holder['live'])}, {short}"
    if holder["kind"] == "silent":
        ago = words.duration(holder["silent_ms"])
        said = f"{node} is silent: the last, {far}, and was made {ago} ago. The gateway is off, or its link is cut."
        central = trace.by_central
        if central is not None and central.mark.live is not None:
            place = f"{topic}/{central.partition}, offset {central.offset}"
            said += f" It was marked as silent at {iso(central.mark.live)} ({place})."
        return said
    if holder["kind"] == "source":
        return f"Source {holder['source']} of {node} is the furthest behind, at {iso(holder['source_time'])}: {far}."
    return f"Its time is not over: {far}."


def late_reason(late: Late, node: str, topic: str) -> str:
    """Why a reading was late, as a sentence."""
    behind = words.duration(late.live - late.time) if late.live - late.time >= 1000 else f"{late.live - late.time} ms"
    said = f"{topic}/{late.partition} offset {late.offset}: its time {iso(late.time)} was {behind} "
    said += f"behind what {node} had said"
    if late.backfill:
        said += "; it is backfill, sent after a cut"
    else:
        said += "; it came live, so the device's clock is behind, or the device had kept it"
    return said + ("; the window had closed by then" if late.after_close else "; the window was still open")


def _processors(status: dict[str, Any], trace: Trace, holder: dict[str, Any], told: Any) -> str:
    """What the processors themselves have to do with it; "" when nothing."""
    found = ((status.get("work") or {}).get("report") or {}).get("processors")
    if found is None:
        return "The node's processors do not run."
    if found.get("state") != "up":
        return f"The node's processors are {found.get('state')}: {found.get('error') or 'no error'}."
    if found.get("lag_records"):
        return f"The node's processors are {words.count(found['lag_records'], 'record')} behind the log."
    if holder["kind"] == "nothing" and told is None and trace.readings:
        return "It was not told: its readings came too late for it, or the rule began after it."
    return ""


def text(found: dict[str, Any]) -> str:
    """A document of `explain` for people."""
    told = found["told"]
    said = "not yet"
    if told:
        complete = "complete" if told["complete"] else "incomplete"
        count = words.count(told["count"], "reading")
        said = f"revision {told['revision']}, {complete}, cause {told['cause']}, {count}"
    rows = [
        ("window", f"{found['rule']} of {found['group']}, {iso(found['start'])} to {iso(found['end'])}"),
        ("readings", f"{found['readings']:,} in the log"),
        ("told", said),
        ("held by", found["reason"]),
    ]
    if found["processors"]:
        rows.append(("processors", found["processors"]))
    rows += [("late", one) for one in found["late_reasons"]]
    if found["late_count"] > len(found["late"]):
        rows.append(("late", f"and {found['late_count'] - len(found['late']):,} more"))
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def iso(time_ms: int) -> str:
    """UTC, with milliseconds only where there are some."""
    from headwater.cli.export import iso as whole

    return whole(time_ms).replace(".000Z", "Z") or f"{time_ms} ms"
