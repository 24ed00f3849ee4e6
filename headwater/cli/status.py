"""`headwater status`: one screen about one node."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.cli import screen, words
from headwater.cli.find import find_node

if TYPE_CHECKING:
    from rich.console import Console

SOURCES_SHOWN = 8
NODES_SHOWN = 8
PROBLEMS_SHOWN = 5
NOTES_SHOWN = 3
_UNIT_COLUMNS = (
    "Modbus",
    "device",
    "last success",
    "polls",
    "no answer",
    "garbled",
    "exceptions",
    "next in",
)
_NUMBERS = ("readings", "backlog", "polls", "no answer", "garbled", "exceptions")
_COLOURS = {"good": "green", "degraded": "yellow", "down": "red"}
_EXIT = {"good": 0, "degraded": 1, "down": 2}


def show_status(config: str | None, *, as_json: bool) -> int:
    """Print the status; returns the exit status: 0 good, 1 degraded, 2 down."""
    from headwater.app.control import read_status

    ref = find_node(config)
    status = read_status(ref.data_dir)
    if status is None:
        problem = f"the node does not run (data in {ref.data_dir}); start it with `headwater run --config {ref.config}`"
        status = {"node": ref.node, "state": "down", "problems": [problem]}
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(status), indent=2).decode() + "\n")
    else:
        with screen.console() as console:
            _print(status, console)
    return _EXIT.get(str(status.get("state")), 2)


def _print(status: dict[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    state = status["state"]
    head = Text.assemble((status["node"], "bold"), "  ", (f" {state} ", f"bold reverse {_COLOURS.get(state, 'red')}"))
    if "pid" in status:
        head.append(f"  headwater {status['version']}, up {_up(status)}, pid {status['pid']}")
    console.print(head)
    for key, sign, style, shown in (
        ("problems", "!", _COLOURS.get(state, "red"), PROBLEMS_SHOWN),
        ("notes", "note:", "dim", NOTES_SHOWN),
    ):
        said = status.get(key, [])
        for line in said[:shown]:
            console.print(Text(f"  {sign} {words.printable(line)}", style=style))
        if len(said) > shown:
            more = words.count(len(said) - shown, f"more {key[:-1]}")
            console.print(Text(f"  and {more}; all of them with --json", style="dim"))
    if "pid" not in status:
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines(status):
        grid.add_row(words.printable(name), words.printable(value))
    console.print(grid)
    _print_table(console, "nodes", ("node", "last mark", "backlog", "version"), node_rows(status), NODES_SHOWN)
    columns = ("source", "state", "last reading", "readings")
    _print_table(console, "sources", columns, source_rows(status), SOURCES_SHOWN)
    _print_table(console, "Modbus units", _UNIT_COLUMNS, unit_rows(status), SOURCES_SHOWN)


def _print_table(
    console: Console, name: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], shown: int
) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for row in rows[:shown]:
        table.add_row(*map(words.printable, row))
    console.print(table)
    if len(rows) > shown:
        console.print(f"and {len(rows) - shown} more {name}; all of them with --json", style="dim")


def _up(status: dict[str, Any]) -> str:
    return words.duration(status["now_ms"] - status["started_ms"])


def lines(status: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines above the sources, as (name, text)."""
    now_ms = status["now_ms"]
    rows = [*_central_lines(status.get("central"), now_ms, role=status.get("role"))]
    if status.get("role") == "central" or status.get("alerts"):
        rows.append(("alerts", _alerts_line(status.get("alerts") or ())))
    if status.get("ingest"):
        rows.append(("ingest", _ingest_line(status["ingest"])))
    rows += [(f"broker {one['name']}", _broker_line(one, now_ms)) for one in status.get("brokers") or ()]
    rows.append(("records", _log_line(status.get("log") or {})))
    disk = status["disk"]
    free = f"{words.size(disk['free_bytes'])} of {words.size(disk['total_bytes'])} free"
    rows.append(("disk", f"{free}; data {words.size(disk['data_bytes'])}"))
    rows.append(("clock", _clock_line(status["clock"])))
    if status.get("work"):
        work = status["work"]
        rows.append(("work process", f"{work['state']}, {words.count(work['restarts'], 'restart')}"))
        report = work.get("report") or {}
        rows += _memory_lines((report.get("processors") or {}).get("memory"))
        rows += _sink_lines(report.get("sinks") or {}, now_ms)
        rows += [(f"decoder {name}", _decoder_line(one)) for name, one in (report.get("decoders") or {}).items()]
        mine = report.get("user_processors") or {}
        rows += [(f"processor {name}", _processor_line(one)) for name, one in mine.items()]
    addresses = {name: where for name, where in status["addresses"].items() if where}
    rows.append(("addresses", "  ".join(f"{name} {where}" for name, where in addresses.items())))
    return rows


def _memory_lines(memory: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the rules hold in memory, the largest first."""
    if not memory or not memory["bytes_max"]:
        return []
    largest = sorted(memory["rules"].items(), key=lambda item: -item[1])[:3]
    said = ", ".join(f"{name} {words.size(held)}" for name, held in largest)
    devices = words.count(memory["devices"], "device")
    return [("rules' memory", f"{words.size(memory['bytes'])} of {words.size(memory['bytes_max'])}; {devices}; {said}")]


def _decoder_line(one: dict[str, Any]) -> str:
    bad = one["rejected"] + one["failed"]
    return (
        f"{one['state']}, {words.count(one['lag_records'], 'record')} behind; {one['messages']:,} decoded, {bad:,} bad"
    )


def _processor_line(one: dict[str, Any]) -> str:
    if one.get("readings") is None:
        again = f", started again {words.count(one['restarts'], 'time')}" if one.get("restarts") else ""
        return f"{one['state']}{again}; it has not run long enough to say how far behind it is"
    lag, taken, said = (one.get(key) or 0 for key in ("lag_records", "readings", "outputs"))
    return (
        f"{one['state']}, {words.count(lag, 'record')} behind; {taken:,} readings, {said:,} out,"
        f" {one.get('failed') or 0:,} dead letters, {words.count(one.get('devices') or 0, 'device')}"
    )


def node_rows(status: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row per node that reports here, the longest silent first."""
    ordered = sorted(status.get("nodes") or (), key=lambda one: one["mark_ms"])
    return [
        (
            str(one["node"]),
            words.ago(one["mark_ms"], status["now_ms"]),
            words.count(one["backlog_records"], "record"),
            str(one.get("version") or "-"),
        )
        for one in ordered
    ]


def _alerts_line(alerts: Sequence[dict[str, Any]]) -> str:
    said = [f"{one['rule']} on {one['instance']} {one['state']}" for one in alerts[:3]]
    more = [f"and {len(alerts) - 3} more"] if len(alerts) > 3 else []
    return ", ".join(said + more) or "none"


def source_rows(status: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row per source, those with a problem first, then the longest silent."""
    sources = (status.get("ingest") or {}).get("sources", [])
    ordered = sorted(sources, key=lambda one: (not one.get("problem"), one.get("last_ms") or 0))
    return [
        (
            str(one["id"]),
            "connected" if one.get("connected") else "gone",
            words.ago(one.get("last_ms"), status["now_ms"]),
            f"{one.get('readings', 0):,}",
        )
        for one in ordered
    ]


def _broker_line(broker: dict[str, Any], now_ms: int) -> str:
    since = words.duration(now_ms - broker["since_ms"])
    if not broker["connected"]:
        return f"not connected for {since}, {broker['address']}"
    filters = words.count(len(broker["granted"]), "filter")
    text = f"connected for {since}, {broker['address']}, MQTT {broker['version']}, {filters}"
    if broker["refused"]:
        text += f" and {len(broker['refused'])} refused"
    if broker["sessions_lost"]:
        text += f", session lost {words.count(broker['sessions_lost'], 'time')}"
    return text


def unit_rows(status: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per unit of the Modbus buses, those with a problem first, of them those that do not answer."""
    units = [(bus["name"], unit) for bus in status.get("modbus") or () for unit in bus["units"]]
    units.sort(key=lambda one: (not one[1]["problem"], -one[1]["misses"]))
    return [
        (
            f"{bus} {unit['unit']}",
            str(unit["device"]),
            words.ago(unit["last_ms"], status["now_ms"]),
            f"{unit['polls']:,}",
            f"{unit['timeouts']:,}",
            f"{unit['garbled']:,}",
            f"{sum(unit['exceptions'].values()):,}",
            words.duration(unit["next_ms"]) if unit["misses"] else "",
        )
        for bus, unit in units
    ]


def _central_lines(central: dict[str, Any] | None, now_ms: int, *, role: str | None) -> list[tuple[str, str]]:
    if central is None and role == "central":
        return []
    if central is None:
        return [("link", "no central configured: everything stays on this node")]
    since = words.duration(now_ms - central["since_ms"]) if central.get("since_ms") else "some time"
    backlog = f"{words.count(central['backlog_records'], 'record')}, {words.size(central['backlog_bytes'])}"
    return [
        ("link", f"{central['state']} for {since}, central {central['bootstrap']}"),
        ("backlog", backlog),
        ("end to end", f"last success {words.ago(central.get('last_success_ms'), now_ms)}"),
    ]


def _sink_lines(sinks: dict[str, Any], now_ms: int) -> list[tuple[str, str]]:
    rows = []
    for name, sink in sinks.items():
        text = f"{sink['state']}, {words.count(sink['lag_records'], 'record')} behind"
        text += f", last success {words.ago(sink['last_success_ms'], now_ms)}"
        if sink["dead_letters"]:
            text += f", {words.count(sink['dead_letters'], 'dead letter')}"
        rows.append((name, f"{text}: {sink['error']}" if sink["error"] else text))
    return rows


def _ingest_line(ingest: dict[str, Any]) -> str:
    text = f"{ingest.get('received', 0):,} received, {ingest.get('stored', 0):,} stored"
    for key, one in (("repeats", "repeat"), ("dead_letters", "dead letter")):
        if ingest.get(key):
            text += f", {words.count(ingest[key], one)}"
    devices = ingest.get("devices") or {}
    more = [
        (ingest.get("suppressed"), "suppressed"),
        (ingest.get("undated_copies"), "retained copies without a time left out"),
        (ingest.get("refused_messages"), "refused for their topic"),
        (devices.get("refused"), "refused of unknown devices"),
        (ingest.get("refused"), "clients refused"),
    ]
    return text + "".join([f", {number:,} {what}" for number, what in more if number])


def _log_line(log: dict[str, Any]) -> str:
    parts = []
    for name, topic in (log.get("topics") or {}).items():
        if not name.startswith("__"):
            records = sum(one["end"] - one["start"] for one in topic["partitions"])
            parts.append(f"{name} {records:,}")
    return f"{', '.join(parts)} (health readings included)" if parts else "none"


def _clock_line(clock: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(clock["wall_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    trusted = clock.get("trusted")
    return when if trusted is None else f"{when}, {'synchronised' if trusted else 'not synchronised'}"
