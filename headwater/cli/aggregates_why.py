"""`headwater aggregates why`: what holds a window open, and why readings were late, from a running node's topics."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from headwater.cli import words
from headwater.cli.aggregates import JOB, LOOK_BACK, blocks, connect, group_file, iso, open_group
from headwater.cli.find import find_node, need_status
from headwater.errors import UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.consume.reader import Block
    from headwater.cli.aggregates import TopicReader
    from processors.rules.model import Rules, WindowRule
    from processors.why import Late, Trace, Window

BEFORE_MS = 120_000
"""How far before a window its marks are read: every source is named once in 60 marks."""


async def why(config: str | None, key: str, *, at: str, rule: str, as_json: bool) -> None:
    """Print what holds windows open and why readings of them were late. Raises UserError."""
    from headwater.cli.export import parse_time
    from headwater.settings.group import load_group
    from headwater.settings.load import load_settings
    from processors.rules.files import load_rules

    time_ms = parse_time(at, "--at", 0) if at else None
    reader: TopicReader
    if (path := group_file(config)) is not None:
        settings = load_group(path)
        rules, job = load_rules(settings.rules), settings.name
        reader = log = open_group(settings)
        from headwater.cli.group_log import group_status  # behind what says that a package is missing

        status = group_status(log, settings, rules)
    else:
        ref, status = find_node(config), need_status(config)
        rules, job = load_rules(load_settings(ref.config).settings.rules), JOB
        reader = await connect(status)
    now_ms = round(time.time() * 1000)
    try:
        found = await explain(reader, rules, key, time_ms, rule=rule, status=status, now_ms=now_ms, job=job)
    finally:
        await reader.close()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n\n".join(text(one) for one in found) + "\n")


async def explain(
    reader: TopicReader,
    rules: Rules,
    key: str,
    time_ms: int | None,
    *,
    rule: str,
    status: dict[str, Any],
    now_ms: int,
    job: str = JOB,
) -> list[dict[str, Any]]:
    """A document for each window that is meant: `key` is `<node>/<device>`, a group, or the whole key of a result."""
    from processors.facts import SAID_EVERY_MS
    from processors.why import GroupClose, Trace

    found = []
    for one, window in await _windows(reader, rules, key, time_ms, rule, job):
        group = (_report(status).get("groups") or {}).get(one.name, {})
        waits_for = dict(group.get("behind", ()))  # the nodes that are the furthest behind, as the processors say
        trace = Trace(window, one, waits_for, group.get("unread", ()))
        async for block in blocks(reader, "aggregates", since=window.start):
            trace.take_results(block.values)
        if trace.results:  # a session is as long as it was last told to be
            end = max(trace.window.end, trace.results[-1]["end"])
            trace.window = trace.window._replace(end=end)
        if one.group_by:
            close = GroupClose(trace.window, one, waits_for)
            async for block in _relayed(reader, job, one, window.group, since=max(0, window.start - BEFORE_MS)):
                close.take(block)
            trace.group_close = close.found
        before_ms = BEFORE_MS + (SAID_EVERY_MS if one.needs_facts else 0)
        async for block in blocks(reader, one.topic, since=max(0, window.start - before_ms)):
            trace.take(block)
        found.append(_document(trace, one.topic, status, now_ms))
    return found


def _report(status: dict[str, Any]) -> dict[str, Any]:
    return ((status.get("work") or {}).get("report") or {}).get("processors") or {}


async def _relayed(
    reader: TopicReader, job: str, rule: WindowRule, group: str, *, since: int | None = None, back: int | None = None
) -> AsyncIterator[Block]:
    """The partition of a rule's relay topic that has this group; nothing when there is no such topic."""
    from processors.repartition import partition_of, relay_topic

    topic = relay_topic(job, rule)
    if partitions := await reader.partitions(topic):
        only = partition_of(group.encode(), partitions)
        async for block in blocks(reader, topic, since=since, back=back, only=only):
            yield block


async def _windows(
    reader: TopicReader, rules: Rules, key: str, time_ms: int | None, rule: str, job: str
) -> list[tuple[WindowRule, Window]]:
    """The windows that are meant, with their rules."""
    from processors.rules.model import DEVICE_ZONE
    from processors.why import matches, window_at

    group, name, start = _parts(key, [one.name for one in rules.windows])
    if start is not None:
        time_ms, rule = start, name
    chosen = [one for one in rules.windows if matches(one, group) and rule in ("", one.name)]
    if not chosen:
        raise _nobodys(rules, group, rule)
    if not rule:  # site/north is a group here rather than a device of a node named site
        chosen = [one for one in chosen if one.group_by] or chosen
    found, nothing = [], []
    for one in chosen:
        try:
            at = time_ms if time_ms is not None else await _newest(reader, job, one, group)
        except UserError as error:  # another rule may take what this one's where leaves out
            nothing.append(error)
            continue
        zone = await _zone_of(reader, group) if one.zone == DEVICE_ZONE else ""
        found.append((one, window_at(one, group, at, zone)))
    if not found:
        raise nothing[-1]
    return found


def _nobodys(rules: Rules, group: str, rule: str) -> UserError:
    from processors.repartition import group_node

    said = f"no window rule{f' “{rule}”' if rule else ''} here is about {group}"
    of_groups = [one for one in rules.windows if one.group_by and rule in ("", one.name)]
    if of_groups:
        names = ", ".join(f"{one.name} ({group_node(one)}/…)" for one in of_groups)
        hint = f"These windows are over groups of devices: {names}. `headwater aggregates list` shows which there are."
        return UserError(said, hint=hint)
    names = ", ".join(one.name for one in rules.windows) or "none"
    return UserError(said, hint=f"The node's window rules: {names}. A key is <node>/<device>, as in `headwater tail`.")


def _parts(key: str, rules: list[str]) -> tuple[str, str, int | None]:
    group, _, start = key.rpartition("/")
    group, _, name = group.rpartition("/")
    if "/" in group and name in rules and start.lstrip("-").isdigit():
        return group, name, int(start)
    if "/" not in key.strip("/"):
        raise UserError(f"“{key}” is no key of a device", hint="For example edge-1/t01, as `headwater tail` shows it.")
    return key, "", None


async def _zone_of(reader: TopicReader, group: str) -> str:
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


async def _newest(reader: TopicReader, job: str, rule: WindowRule, group: str) -> int:
    from processors.why_taken import Taken

    newest = -1
    if rule.group_by:
        async for block in _relayed(reader, job, rule, group, back=LOOK_BACK):
            mine = (at for at, key in zip(block.timestamps, block.keys, strict=True) if key == group.encode())
            newest = max(newest, *mine, -1)
    else:
        taken = Taken(rule, group)
        async for block in blocks(reader, rule.topic, back=LOOK_BACK):
            rows, _ = taken.rows(block, 0, 1 << 62)
            newest = max(newest, *(block.timestamps[row] for row in rows), -1)
    if newest < 0:
        where = " that its rule's where lets through" if rule.where else ""
        raise UserError(
            f"no reading of {group}{where} among the last {LOOK_BACK:,} records of {rule.topic}",
            hint="Name a time: --at 2026-03-28T14:00 (UTC). `headwater tail` shows which keys there are.",
        )
    return newest


def _document(trace: Trace, topic: str, status: dict[str, Any], now_ms: int) -> dict[str, Any]:
    window, holder = trace.window, trace.holder(now_ms)
    last = trace.results[-1] if trace.results else None
    told = {name: last[name] for name in ("revision", "complete", "cause", "count")} if last else None
    return {
        "rule": window.rule,
        "group": window.group,
        "start": window.start,
        "end": window.end,
        "readings": trace.readings,
        "left_out": trace.left_out,
        "told": told,
        "held_by": holder,
        "reason": reason(trace, holder, topic),
        "processors": _processors(status, trace, holder, told),
        "late": [late._asdict() for late in trace.late],
        "late_count": trace.late_count,
        "late_reasons": [late_reason(late, topic, of_group=trace.is_of_group) for late in trace.late],
    }


def reason(trace: Trace, holder: dict[str, Any], topic: str) -> str:
    """What holds a window open, as a sentence."""
    end = iso(trace.window.end)
    if holder["kind"] == "no_marks":
        node = holder.get("node") or ("No node" if trace.is_of_group else trace.window.group.partition("/")[0])
        return f"{node} has put no mark into {topic}; what Kafka clients write closes foreign_lateness_s behind it."
    if holder["kind"] == "unread":
        where = ", ".join(f"{topic}/{one}" for one in holder["partitions"])
        return f"The processors have still to read what is in {where}, and have heard of no node there yet."
    node = holder["node"]
    if holder["kind"] == "never_heard":
        return f"{node} is waited for, and not all of its partitions have made a mark that the processors have read."
    if holder["kind"] == "partition":
        have = ", ".join(str(one) for one in holder["known"])
        return f"Only partition {have} of the {holder['expected']} of {node} has made a mark so far."
    if "offset" not in holder:
        return _of_old(holder, node, end)
    mark = f"mark {holder['n']} of {node} ({topic}/{holder['partition']}, offset {holder['offset']})"
    if holder["kind"] == "backfill":
        spans = ", ".join(f"{iso(first)} to {iso(last)}" for first, last in holder["owed"])
        return f"Backfill still owes data of {spans}, says {mark}: {node} was cut off then and is sending it."
    if holder["kind"] == "nothing":
        if holder["lost"]:
            spans = ", ".join(f"{iso(first)} to {iso(last)}" for first, last in holder["lost"])
            return f"Nothing: it has closed, but data of {spans} was given up."
        by = mark
        if closed := trace.closed:
            by = f"mark {closed.mark.n} of {closed.mark.node} ({topic}/{closed.partition}, offset {closed.offset})"
        return f"Nothing: {by} said that all {'nodes' if trace.is_of_group else 'of its sources'} had passed {end}."
    far = f"{mark} says {iso(holder['live'])}, {_short(holder['missing_ms'])} short of its end {end}"
    if holder["kind"] == "silent":
        ago = words.duration(holder["silent_ms"])
        said = f"{node} is silent: the last, {far}, and was made {ago} ago. The gateway is off, or its link is cut."
        central = trace.nodes[node].by_central
        if central is not None and central.mark.live is not None:
            place = f"{topic}/{central.partition}, offset {central.offset}"
            said += f" It was marked as silent at {iso(central.mark.live)} ({place})."
        return said
    if holder["kind"] == "source":
        return f"Source {holder['source']} of {node} is the furthest behind, at {iso(holder['source_time'])}: {far}."
    return f"Its time is not over: {far}."


def _of_old(holder: dict[str, Any], node: str, end: str) -> str:
    """A node whose last mark lies before what was read."""
    if holder["kind"] == "nothing":
        return f"Nothing: all nodes had passed {end}."
    return (
        f"{node} is silent, and the group waits for it: its last mark says {iso(holder['live'])},"
        f" {_short(holder['missing_ms'])} short of its end {end}. The gateway is off, or its link is cut; a node that"
        " will not come back is left out of the rule by `nodes`."
    )


def _short(missing_ms: int) -> str:
    return words.duration(missing_ms) if missing_ms >= 1000 else f"{missing_ms} ms"


def late_reason(late: Late, topic: str, *, of_group: bool = False) -> str:
    """Why a reading was late, as a sentence."""
    whose = f" ({late.key})" if of_group else ""
    said = f"{topic}/{late.partition} offset {late.offset}{whose}: its time {iso(late.time)} was"
    said += f" {_short(late.live - late.time)} behind what {late.key.partition('/')[0]} had said"
    if late.backfill:
        said += "; it is backfill, sent after a cut"
    else:
        said += "; it came live, so the device's clock is behind, or the device had kept it"
    return said + ("; the window had closed by then" if late.after_close else "; the window was still open")


def _processors(status: dict[str, Any], trace: Trace, holder: dict[str, Any], told: Any) -> str:
    """What the processors themselves have to do with it; "" when nothing."""
    found = _report(status)
    if not found:
        return "The node's processors do not run."
    if found.get("state") != "up":
        return f"The node's processors are {found.get('state')}: {found.get('error') or 'no error'}."
    if found.get("lag_records"):
        who = f"{found['who']} is" if "who" in found else "The node's processors are"
        return f"{who} {words.count(found['lag_records'], 'record')} behind the log."
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
    left_out = f"; where leaves out {found['left_out']:,} more" if found["left_out"] else ""
    rows = [
        ("window", f"{found['rule']} of {found['group']}, {iso(found['start'])} to {iso(found['end'])}"),
        ("readings", f"{found['readings']:,} in the log" + left_out),
        ("told", said),
        ("held by", found["reason"]),
    ]
    if found["processors"]:
        rows.append(("processors", found["processors"]))
    rows += [("late", one) for one in found["late_reasons"]]
    if found["late_count"] > len(found["late"]):
        rows.append(("late", f"and {found['late_count'] - len(found['late']):,} more"))
    return "\n".join(f"{name:<12}{value}" for name, value in rows)
