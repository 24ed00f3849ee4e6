"""Plays a recording (CSV) as MQTT devices, with its own timestamps, at a chosen speed.

    headwater simulate replay weather.csv --time-column time_hour --device-column origin --speed max

Rows are sent in the order of their times, whatever the file's order; rows of one time keep the file's order. Gaps
stay: at speed 3600 an hour without rows is a second without messages. Each row becomes one QoS 1 message on
`recording/<device>/telemetry`: its time as `ts` (Unix milliseconds) and its columns; a cell that says nothing (empty,
`NA`) is left out. Memory does not depend on the recording: rows are sorted by SQLite in a temporary file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from headwater.clock import Clock, SystemClock
from headwater.errors import UserError
from headwater.net import parse_address
from simulators.control import Console
from simulators.ledger import Ledger, begin_ledger
from simulators.options import check_answered, make_parser, parse_speed
from simulators.publisher import Publisher, Token, wait_for

ABSENT = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"})
TICK_MS = 100.0
REPORT_MS = 1_000.0
STUCK_MS_MAX = 60_000.0


class Row(NamedTuple):
    """One row of a recording, ready to be sent."""

    ts: int
    device: str
    payload: bytes


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns mean what. All rows are of `device`, or `device_columns` name the device of each.

    `time_format`: `iso8601`, `s`, `ms`, or a strptime pattern; times without a zone are in `zone`.
    `columns`: those to send; none: every other column.
    """

    time_column: str
    device_columns: tuple[str, ...] = ()
    device: str = ""
    time_format: str = "iso8601"
    zone: str = "UTC"
    columns: tuple[str, ...] = ()


def parse_time(text: str, time_format: str, zone: tzinfo) -> int:
    """Unix milliseconds. Raises ValueError."""
    if time_format in ("s", "ms"):
        return round(float(text) * (1000 if time_format == "s" else 1))
    iso = time_format == "iso8601"
    when = datetime.fromisoformat(text) if iso else datetime.strptime(text, time_format)  # noqa: DTZ007 - zoned below
    return round((when if when.tzinfo else when.replace(tzinfo=zone)).timestamp() * 1000)


def parse_cell(text: str) -> float | int | str:
    """A number where it is one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) != float("inf") else text


def rows_of(file: TextIO, name: str, layout: Layout) -> Iterator[Row]:
    """The rows in the file's order. Raises `UserError` naming file and line."""
    reader = csv.DictReader(file)
    columns = reader.fieldnames or []
    for needed in (layout.time_column, *layout.device_columns, *layout.columns):
        if needed not in columns:
            raise UserError(f"{name}: there is no column “{needed}”", hint=f"Its columns: {', '.join(columns)}")
    try:
        zone: tzinfo = UTC if layout.zone == "UTC" else ZoneInfo(layout.zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise UserError(f"“{layout.zone}” is no time zone", hint="Write an IANA name, such as Europe/Berlin.") from None
    named = {layout.time_column, *layout.device_columns}
    wanted = layout.columns or tuple(column for column in columns if column not in named)
    for cells in reader:
        try:
            ts = parse_time(cells[layout.time_column] or "", layout.time_format, zone)
        except ValueError as error:
            hint = "Say how times are written with --time-format (iso8601, s, ms, or a pattern such as %d.%m.%Y %H:%M)."
            raise UserError(f"{name}:{reader.line_num}: {layout.time_column}: {error}", hint=hint) from None
        values: dict[str, Any] = {"ts": ts}
        values.update((column, parse_cell(cells[column])) for column in wanted if (cells[column] or "") not in ABSENT)
        device = layout.device or "-".join((cells[column] or "").strip() for column in layout.device_columns)
        yield Row(ts, device, msgspec.json.encode(values))


class Recording:
    """A recording's rows, sorted by time in a temporary file that vanishes with it."""

    def __init__(self, path: str, layout: Layout) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a private file on disk, unlinked already
        self._db.execute("CREATE TABLE row(ts INTEGER, n INTEGER PRIMARY KEY, device TEXT, payload BLOB)")
        try:
            self.count = self._fill(path, layout)
        except BaseException:
            self.close()
            raise

    def _fill(self, path: str, layout: Layout) -> int:
        try:
            with contextlib.closing(_open(path)) as file:
                self._db.execute("BEGIN")
                rows = ((row.ts, n, row.device, row.payload) for n, row in enumerate(rows_of(file, path, layout)))
                count = self._db.executemany("INSERT INTO row VALUES(?,?,?,?)", rows).rowcount
                self._db.execute("COMMIT")
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        self._db.execute("CREATE INDEX by_time ON row(ts, n)")
        return count

    def __iter__(self) -> Iterator[Row]:
        for row in self._db.execute("SELECT ts, device, payload FROM row ORDER BY ts, n"):
            yield Row(*row)

    def close(self) -> None:
        self._db.close()


def _open(path: str) -> TextIO:
    if path.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


class Player:
    """Sends rows in time; `speed` is recorded time per time, None: as fast as they are acknowledged."""

    def __init__(
        self,
        publisher_of: Any,
        *,
        topic: str,
        speed: float | None,
        clock: Clock,
        ledger: Ledger | None,
        address: tuple[str, int] | None = None,
    ) -> None:
        self.sent = self.acknowledged = 0
        self._topic, self._speed, self._clock, self._ledger = topic, speed, clock, ledger
        self._seqs: dict[str, int] = {}
        self._rows: dict[Token, Row] = {}
        self._tick_ms = self._report_ms = 0.0
        self._said: dict[str, Any] = {}
        self._address, self._started_ms = address, clock.monotonic_ms()
        self._publisher: Publisher = publisher_of(self._on_sent, self._on_acked)

    def _on_sent(self, token: Token) -> None:
        self.sent += 1
        if self._ledger is not None:
            row = self._rows[token]
            self._ledger.sent(row.device, token[2], row.ts, row.payload)

    def _on_acked(self, token: Token) -> None:
        self.acknowledged += 1
        del self._rows[token]
        if self._ledger is not None:
            self._ledger.acked(token[1], token[2], self._clock.wall_ms())

    def play(self, recording: Recording, say: Any) -> None:
        """Send everything and wait for its acknowledgements. Raises `UserError` when the gateway stays away."""
        start_ms: float | None = None
        first_ts = 0
        for row in recording:
            now_ms = self._clock.monotonic_ms()
            if start_ms is None:
                start_ms, first_ts = now_ms, row.ts
            due_ms = start_ms + (row.ts - first_ts) / self._speed if self._speed else now_ms
            while self._clock.monotonic_ms() < due_ms:
                self._turn(due_ms - self._clock.monotonic_ms(), say)
            seq = self._seqs[row.device] = self._seqs.get(row.device, 0) + 1
            self._rows["row", row.device, seq] = row
            self._until(lambda: self._publisher.queued == 0, say)
            self._publisher.publish(self._topic.replace("{device}", row.device), row.payload, ("row", row.device, seq))
        self._until(lambda: self._publisher.queued == self._publisher.inflight == 0, say)
        self._publisher.disconnect()

    def _until(self, done: Any, say: Any) -> None:
        moved_ms, before = self._clock.monotonic_ms(), self.acknowledged
        while not done():
            self._turn(TICK_MS, say)
            if self.acknowledged != before:
                moved_ms, before = self._clock.monotonic_ms(), self.acknowledged
            if self._clock.monotonic_ms() - moved_ms > STUCK_MS_MAX:
                problem = self._publisher.problem or "it does not answer"
                hint = "Is the node running? Its MQTT address goes into --mqtt."
                raise UserError(f"the gateway has acknowledged nothing for a minute: {problem}", hint=hint)

    def _turn(self, timeout_ms: float, say: Any) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._tick_ms:
            self._tick_ms = now_ms + TICK_MS
            self._publisher.tick(now_ms)
            if self._ledger is not None:
                self._ledger.commit()
            self._report(now_ms, say)
            if self._address is not None:
                check_answered([self._publisher], self._address, now_ms - self._started_ms)
        wait_for([self._publisher], [], min(timeout_ms, TICK_MS))

    def _report(self, now_ms: float, say: Any) -> None:
        """Counters once a second, where there is anything new: who waits for a gateway is not told so 300 times."""
        publisher = self._publisher
        members: dict[str, Any] = {"sent": self.sent, "acknowledged": self.acknowledged}
        members |= {"resent": publisher.resent, "problem": publisher.problem}
        if now_ms >= self._report_ms and members != self._said:
            self._report_ms, self._said = now_ms + REPORT_MS, members
            say("counters", members)


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    parser = make_parser(
        "headwater simulate replay",
        "Play a recording (CSV) with its own timestamps: rows merged by time, gaps kept, one QoS 1 message a row."
        " A node that takes recordings needs the profile recorded-weather, or one like it (recorded = true).",
        [
            "headwater simulate replay weather.csv --time-column time_hour --device-column origin",
            "headwater simulate replay pump.csv.gz --time-column t --time-format s --device pump-7 --speed 3600",
            "headwater simulate replay log.csv --time-column when --time-format '%d.%m.%Y %H:%M' \\",
            "      --time-zone Europe/Berlin --device-column site --device-column unit --columns flow,level",
        ],
    )
    add = parser.add_argument
    add("file", help="the recording: .csv or .csv.gz, with a header row")
    add("--time-column", required=True, metavar="NAME", help="the column that holds the time")
    add("--time-format", default="iso8601", metavar="FORMAT", help="iso8601, s, ms, or a strptime pattern")
    add("--time-zone", default="UTC", metavar="ZONE", help="zone of times that name none, such as Europe/Berlin")
    devices = parser.add_mutually_exclusive_group(required=True)
    devices.add_argument("--device-column", action="append", metavar="NAME", help="names the device; may be repeated")
    devices.add_argument("--device", default="", metavar="NAME", help="the device, where all rows are of one")
    add("--columns", default="", metavar="A,B", help="columns to send; every other one if left out")
    add("--topic", default="recording/{device}/telemetry", metavar="TOPIC", help="where rows go")
    add("--speed", default="max", metavar="N", help="recorded seconds per second, or max")
    add("--mqtt", default="127.0.0.1:1883", metavar="HOST:PORT", help="the gateway's MQTT address")
    add("--client-id", default="replay", metavar="ID", help="its MQTT client id")
    add("--ledger", metavar="FILE", help="SQLite file that keeps what was sent and acknowledged")
    options = parser.parse_args(arguments)
    layout = Layout(
        time_column=options.time_column,
        device_columns=tuple(options.device_column or ()),
        device=options.device,
        time_format=options.time_format,
        zone=options.time_zone,
        columns=tuple(name for name in options.columns.split(",") if name),
    )
    host, port = parse_address(options.mqtt, default_port=1883)
    speed = parse_speed(options.speed)
    if options.ledger:
        begin_ledger(options.ledger)
    console = Console()
    with contextlib.ExitStack() as stack:
        recording = stack.enter_context(contextlib.closing(Recording(options.file, layout)))
        ledger = stack.enter_context(Ledger(options.ledger)) if options.ledger else None
        console.say("ready", {"rows": recording.count})

        def publisher_of(on_sent: Any, on_acked: Any) -> Publisher:
            return Publisher(options.client_id, host, port, on_sent=on_sent, on_acked=on_acked, inflight_max=200)

        player = Player(
            publisher_of,
            topic=options.topic,
            speed=speed,
            clock=SystemClock(),
            ledger=ledger,
            address=(host, port),
        )
        player.play(recording, console.say)
        console.say("done", {"rows": recording.count, "sent": player.sent, "acknowledged": player.acknowledged})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
