"""The demo in a terminal: a live panel on a tty, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headwater.demo.figures import Figures

PLAIN_EVERY_S = 5.0
ENDING = "ending: waiting until what was acknowledged is at the central; Ctrl-C once more does not wait"
KEYS = "keys: c cut the link for 15 s · k kill the edge · g send garbage · Ctrl-C end"
_STATE_STYLES = {"good": "green", "up": "green", "degraded": "yellow", "connecting": "yellow", "down": "red bold"}
_ALERT_STYLES = {"firing": "red bold", "pending": "yellow", "recovering": "yellow", "resolved": "green"}


def human_bytes(count: int) -> str:
    """`512 B`, `3.4 kB`, …: powers of 1,000, as `headwater status` says them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def plain_line(figures: Figures) -> str:
    """One line of progress."""
    alerts = ", ".join(f"{name} {state}" for name, state in figures.alerts.items()) or "none"
    return (
        f"{figures.seconds:6.1f} s  sent {figures.sent:,}  acknowledged {figures.acknowledged:,}"
        f"  stored {figures.stored:,}  replicated {figures.replicated:,}  windows {figures.windows:,}"
        f"  backlog {figures.backlog_records:,} ({human_bytes(figures.backlog_bytes)})"
        f"  link {figures.link}  alerts: {alerts}"
    )


class Plain:
    """Lines for a file, a pipe or a log."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def line(self, text: str) -> None:
        """Say something now."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def happened(self, figures: Figures, text: str) -> None:
        figures.happened(text)
        self.line(figures.happenings[-1])

    def show(self, figures: Figures) -> None:
        """Progress, every few seconds."""
        if figures.seconds >= self._next_s:
            self._next_s = figures.seconds + PLAIN_EVERY_S
            self.line(plain_line(figures))

    def close(self) -> None:
        """Nothing but lines from now on."""


class Panelled(Plain):
    """A panel that redraws itself in place, and is gone after `close`: what is said then stands last."""

    def __init__(self, introduction: Sequence[str], console: Console | None = None) -> None:
        super().__init__()
        self._introduction = introduction
        self._last: Figures | None = None
        self._live = Live(console=console or Console(), auto_refresh=False, transient=True)
        self._live.start()

    def line(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def happened(self, figures: Figures, text: str) -> None:
        figures.happened(text)
        self.show(figures)

    def show(self, figures: Figures) -> None:
        self._last = figures
        if self._live.is_started:
            self._live.update(self._picture(figures), refresh=True)

    def close(self) -> None:
        if not self._live.is_started:
            return
        self._live.stop()
        if self._last is not None:
            for line in (*self._last.happenings, plain_line(self._last)):
                self.line(line)

    def _picture(self, figures: Figures) -> Panel:
        table = Table.grid(padding=(0, 2))
        for _ in range(4):
            table.add_column()
        for name, value, other, more in _rows(figures):
            table.add_row(Text(name, style="dim"), value, Text(other, style="dim"), more)
        body = Group(
            *(Text(line, style="cyan") for line in self._introduction),
            Text(),
            table,
            *(Text(f"! {problem}", style="yellow", no_wrap=True, overflow="ellipsis") for problem in figures.problems),
            Text(),
            *(Text(line) for line in figures.happenings),
            Text(ENDING, style="bold") if figures.ending else Text(KEYS, style="dim"),
        )
        return Panel(body, title=f"headwater demo · {figures.seconds:.0f} s", border_style="blue")


def _rows(figures: Figures) -> list[tuple[str, Text, str, Text]]:
    alerts = Text(", ").join(
        Text(f"{name} {state}", style=_ALERT_STYLES.get(state, "")) for name, state in figures.alerts.items()
    )
    backlog = f"{figures.backlog_records:,} records, {human_bytes(figures.backlog_bytes)}"
    return [
        ("sent", _number(figures.sent), "edge", _state(figures.edge)),
        ("acknowledged", _number(figures.acknowledged), "link", _state(figures.link)),
        ("stored", _number(figures.stored), "backlog", Text(backlog)),
        ("replicated", _number(figures.replicated), "central", _state(figures.central)),
        ("windows", _number(figures.windows), "alerts", alerts or Text("none")),
    ]


def _number(count: int) -> Text:
    return Text(f"{count:>12,}")


def _state(word: str) -> Text:
    return Text(word, style=_STATE_STYLES.get(word, ""))


@contextlib.contextmanager
def single_keys() -> Iterator[int | None]:
    """Keys without Enter for as long as the block lasts: the descriptor to read, None without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield None
        return
    handle = sys.stdin.fileno()
    if os.tcgetpgrp(handle) != os.getpgrp():  # in the background: touching the terminal would stop us
        yield None
        return
    before = termios.tcgetattr(handle)
    tty.setcbreak(handle)  # Ctrl-C stays a signal
    try:
        yield handle
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
