"""`headwater demo` in a terminal: the panel, the keys, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSCTTY, TIOCSWINSZ

import pytest

from simulators.ledger import LedgerView
from tests.support.processes import HEADWATER, running_with


class Terminal:
    """A program on a pseudo-terminal, and everything that it showed."""

    def __init__(self, command: list[str]) -> None:
        self._near, far = pty.openpty()
        ioctl(far, TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=far,
            stdout=far,
            stderr=far,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, TIOCSCTTY, 0),
        )
        os.close(far)
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._near, keys.encode())

    def until(self, pattern: str, seconds: float = 40.0) -> re.Match[str]:
        """Read on until `pattern` has been shown."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.shown)
            if found is not None:
                return found
            assert time.monotonic() < deadline, f"{pattern} was not shown:\n{self.shown[-3000:]}"
            if select.select([self._near], [], [], 0.5)[0]:
                try:
                    data = os.read(self._near, 65536)
                except OSError:  # the program has ended
                    data = b""
                assert data, f"it ended before {pattern} was shown:\n{self.shown[-3000:]}"
                self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))

    def end(self) -> int:
        """Its exit status."""
        while True:
            try:
                if not os.read(self._near, 65536):
                    break
            except OSError:
                break
        os.close(self._near)
        return self.process.wait(20)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal([*HEADWATER, "demo", "--keep", str(tmp_path / "kept")])
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGTERM)
        terminal.process.wait(60)


@pytest.mark.timeout(200)
def test_keys_cut_kill_and_send_garbage_and_ctrl_c_ends_with_a_sentence(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until(r"headwater demo · \d+ s")
    terminal.until(r"acknowledged +[1-9]")
    terminal.press("g")
    terminal.until(r"\d s  garbage")
    terminal.press("c")
    terminal.until("black hole for 15 s")
    terminal.press("k")
    terminal.until("the edge gets SIGKILL")
    terminal.until("the edge is back after")
    terminal.until(r"acknowledged +\d[\d,]{2}")  # how many there are before the keys depends on the machine
    terminal.press("\x03")
    found = terminal.until(r"([\d,]+) readings were acknowledged: 0 lost, 0 twice\.", seconds=90)
    assert int(found[1].replace(",", "")) >= 100
    assert terminal.end() == 0
    assert running_with(str(tmp_path)) == []
    ledger = LedgerView(str(tmp_path / "kept" / "ledger.db"))
    assert ledger.garbage_sent >= 1
    assert ledger.acknowledged == int(found[1].replace(",", ""))
    ledger.close()
