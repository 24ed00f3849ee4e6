"""The status document: what a node says of itself, and the verdict good, degraded or down.

`headwater status`, the page, `/metrics` and `/readyz` all read this one document, so they never disagree. The keys of
the part documents are each part's own; this module names the parts and judges.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.log.recovery import Outcome

VERSION_DATE_MS = 1_760_000_000_000
"""A wall clock before this version was written is wrong, whatever the kernel believes."""

DISK_LOW_BYTES = 256 << 20
DISK_LOW_SHARE = 0.05
CONNECTING_GRACE_MS = 15_000
NODE_SILENT_MS = 30_000
WORK_SILENT_MS = 5_000
RECOVERED_SHOWN = 3
TRANSACTION_LONG_MS = 60_000
_LOSSES = frozenset({Outcome.QUARANTINED, Outcome.UNREADABLE, Outcome.RANGE_MISSING})
_DAY_MS = 24 * 3_600_000
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def judge(document: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The state and, worst first, one sentence for everything that is not well."""
    fatal = _disk_failures(document.get("ingest"))
    problems = [
        *fatal,
        *_listener_problems(document.get("listeners") or {}),
        *_central_problems(document.get("central"), document["now_ms"]),
        *_bus_problems(document.get("modbus") or ()),
        *_source_problems(document.get("ingest")),
        *_work_problems(document.get("work")),
        *_node_problems(document.get("nodes") or ()),
        *_disk_problems(document.get("disk") or {}),
        *_clock_problems(document.get("clock") or {}),
        *_upkeep_problems(document.get("upkeep"), document["now_ms"]),
        *_recovery_problems(document),
        *_transaction_problems((document.get("kafka") or {}).get("transactions") or {}),
    ]
    return ("down" if fatal else "degraded" if problems else "good"), problems


def notes(document: Mapping[str, Any]) -> list[str]:
    """What somebody should look at some time and what does not make the node less than good."""
    found = []
    if note := ((document.get("ingest") or {}).get("devices") or {}).get("note"):
        found.append(note)
    if damaged := (document.get("ingest") or {}).get("sessions_damaged"):
        found.append(damaged)
    for source in (document.get("ingest") or {}).get("sources", ()):
        if source.get("note"):
            found.append(f"{source['id']}: {source['note']}")
        elif source.get("last_error") and not source.get("problem"):
            ago_s = max(0, document["now_ms"] - source["last_error_ms"]) // 1000
            ago = f"{ago_s} s" if ago_s < 60 else f"{ago_s // 60} min"
            found.append(f"{source['id']}: last error {ago} ago: {source['last_error']}")
    found += _kafka_notes(document.get("kafka") or {}, document["now_ms"])
    for part in ("kafka", "mqtt"):
        found += (document.get(part) or {}).get("security_notes", ())
    processors = ((document.get("work") or {}).get("report") or {}).get("processors") or {}
    found += [f"since the last start: {change}" for change in processors.get("changes", ())]
    for rule, devices in processors.get("zones_unknown", {}).items():
        (device, zone), *more = devices.items()
        others = f" and {len(more)} more" if more else ""
        said = f"{device}{others} say" + ("s" if not more else "")
        found.append(f"window {rule}: {said} a zone that is none here (“{zone}”); default_zone is taken")
    # The last, for anybody can make two hundred of them, and the screen has room for a few.
    return found + _refusal_notes(document.get("ingest") or {}, document["now_ms"])


def recovery_line(found: Sequence[Mapping[str, Any]], *, clean: bool) -> str:
    """What the log of the start says of the last run's end and of what was found; "" when both are well."""
    said = [
        f"{one['topic']}/{one['partition']}: {one['outcome']} at offset {one['first_offset']}, {one['size_bytes']} B"
        for one in found[:RECOVERED_SHOWN]
    ]
    if len(found) > RECOVERED_SHOWN:
        said.append(f"and {len(found) - RECOVERED_SHOWN} more, in topic events")
    if clean and not found:
        return ""
    began = "the last run ended cleanly" if clean else "the last run was cut short (killed, or without power)"
    if not found:
        return f"{began}; the log is whole, nothing had to be mended"
    return f"{began}; mended in the log: {'; '.join(said)}"


def clock_trusted() -> bool | None:
    """Whether the kernel says that the wall clock is synchronised; None where it cannot be asked (no Linux libc)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(256))  # struct timex, all zero: read only
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def data_bytes(directory: str) -> int:
    """Bytes that the files under a directory hold; a file that vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _disk_failures(ingest: Mapping[str, Any] | None) -> list[str]:
    problem = (ingest or {}).get("problem")
    return [f"the disk failed, nothing is acknowledged: {problem}"] if problem else []


def _listener_problems(listeners: Mapping[str, str]) -> list[str]:
    return [f"{name}: {problem}" for name, problem in listeners.items()]


def _central_problems(central: Mapping[str, Any] | None, now_ms: int) -> list[str]:
    if central is None or central.get("state") == "up":
        return []
    since_ms = now_ms - (central.get("since_ms") or now_ms)
    state = central.get("state")
    if state == "connecting" and since_ms < CONNECTING_GRACE_MS:
        return []
    cause = f": {central['error']}" if central.get("error") else ""
    where = central.get("bootstrap", "")
    if state == "stopped":
        return [f"replication to the central {where} has stopped{cause}"]
    return [f"no link to the central {where} for {since_ms // 1000} s{cause}"]


def _source_problems(ingest: Mapping[str, Any] | None) -> list[str]:
    sources = (ingest or {}).get("sources", ())
    return [f"{source['id']}: {source['problem']}" for source in sources if source.get("problem")]


def _bus_problems(buses: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"Modbus {bus['name']}: {bus['problem']}" for bus in buses if bus["problem"]]


def _work_problems(work: Mapping[str, Any] | None) -> list[str]:
    if work is None or work.get("state") == "starting":
        return []
    if work.get("state") == "running":
        found = list((work.get("report") or {}).get("problems", ()))
        if (silent_ms := work.get("silent_ms", 0)) >= WORK_SILENT_MS:
            said = "windows, alerts, sinks and page are behind; readings are taken in all the while"
            found.insert(0, f"the work process has said nothing for {silent_ms // 1000} s: {said}")
        return found
    return [f"processors and page are not running: the work process {work.get('last_end') or 'has not started'}"]


def _node_problems(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    silent = [(node["node"], node["silent_ms"]) for node in nodes if node["silent_ms"] > NODE_SILENT_MS]
    return [f"node {name}: no mark for {silent_ms // 1000} s: cut off, or down" for name, silent_ms in silent]


def _disk_problems(disk: Mapping[str, Any]) -> list[str]:
    free, total = disk.get("free_bytes"), disk.get("total_bytes")
    if free is None or not total or free >= min(DISK_LOW_BYTES, total * DISK_LOW_SHARE):
        return []
    return [f"the disk is nearly full: {free >> 20} MiB of {total >> 20} MiB free"]


def _upkeep_problems(upkeep: Mapping[str, Any] | None, now_ms: int) -> list[str]:
    """What went within a day with nobody else having it, a full disk, and what does not work."""
    if upkeep is None:
        return []
    found = [
        f"{one['topic']}/{one['partition']}: records {one['owed_from']} to {one['end'] - 1} went before anybody else"
        f" had them ({one['cause']})"
        for one in upkeep["owed"]
        if now_ms - one["at_ms"] < _DAY_MS
    ]
    if upkeep["disk"] == "full":
        found.append("the disk is full: the oldest readings go, and the reserve is in use")
    return [*found, *(f"{name}: {what}" for name, what in upkeep["failures"].items())]


def _recovery_problems(document: Mapping[str, Any]) -> list[str]:
    """What the start found that is served no more; for a day, or until the next start."""
    if document["now_ms"] - document.get("started_ms", 0) >= _DAY_MS:
        return []
    return [
        f"{one['topic']}/{one['partition']}: {one['outcome']} at the start, {_offsets(one)};"
        " docs/durability.md says what can be done"
        for one in (document.get("log") or {}).get("recovered", ())
        if one["outcome"] in _LOSSES
    ]


def _offsets(found: Mapping[str, Any]) -> str:
    first, end = found["first_offset"], found["end_offset"]
    return f"offsets {first} to {end - 1}" if end > first else f"before offset {first}, and no offset is missing"


def _transaction_problems(transactions: Mapping[str, Any]) -> list[str]:
    """Who keeps readers of committed records waiting for long."""
    return [
        f"{row['topic']}/{row['partition']}: read_committed readers wait at offset {row['last_stable_offset']} of"
        f" {row['end']} for transaction {row['transactional_id'] or '(of no known id)'} of producer"
        f" {row['producer_id']}, open for {row['age_ms'] // 1000} s"
        for row in transactions.get("held_back", ())
        if row["age_ms"] >= TRANSACTION_LONG_MS
    ]


def _refusal_notes(ingest: Mapping[str, Any], now_ms: int) -> list[str]:
    """What clients asked for in vain in the last day, but those whose problem it is just now."""
    standing = {one["id"] for one in ingest.get("sources", ()) if one.get("problem")}
    found = []
    for row in ingest.get("refusals", ()):
        if now_ms - row["last_ms"] < _DAY_MS and f"mqtt:{row['client']}" not in standing:
            minutes = max(0, now_ms - row["last_ms"]) // 60_000
            found.append(
                f"mqtt:{row['client']} {row['does']} to “{row['what']}” in vain:"
                f" {row['count']} time{'s' * (row['count'] != 1)}, last {minutes} min ago"
            )
    return found


def _kafka_notes(kafka: Mapping[str, Any], now_ms: int) -> list[str]:
    transactions = kafka.get("transactions") or {}
    found = []
    if (last := transactions.get("last_aborted")) and now_ms - last["at_ms"] < _DAY_MS:
        found.append(f"transactional id {last['id']}: {last['why']} ({transactions['timed_out']} since the start)")
    if orphans := transactions.get("orphans"):
        found.append(f"{orphans} transactions were aborted at the start: no coordinator knew of them (see the log)")
    return found + [
        f"group {row['group']}: committed offset {row['offset']} of {row['topic']}/{row['partition']} lies past the"
        f" log's end {row['end']}; its consumers go on by their auto.offset.reset"
        for row in (kafka.get("groups") or {}).get("past_the_end", ())
    ]


def _clock_problems(clock: Mapping[str, Any]) -> list[str]:
    wall_ms = clock.get("wall_ms")
    if wall_ms is None or wall_ms >= VERSION_DATE_MS:
        return []
    return ["the wall clock stands before this version was written; event times are wrong until it is set"]
