"""How a simulator process is steered: lines of words on standard input, JSON lines on standard output.

Every simulator speaks the same way, so that a person, a shell script and the demo can all drive it. A line in is a
command and its words (`overheat on`); a line out is one JSON object with a member `event`. End of input means
"stop": a simulator whose parent is gone does not live on.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

LINE_BYTES_MAX = 4096
_encode = msgspec.json.Encoder().encode


class CommandLines:
    """Cuts a stream of bytes into commands; sans-IO.

    A line past `LINE_BYTES_MAX` is dropped whole: nobody types that much, and nothing grows without bound.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[list[str]]:
        """The complete lines in `data`, each split into words; empty lines are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest = b""
        words = [line.decode(errors="replace").split() for line in lines if len(line) <= LINE_BYTES_MAX]
        return [line for line in words if line]


class Console:
    """Standard input and output of a simulator process, neither of them blocking the simulation.

    `inputs` holds the descriptor to wait on (none once an input that is no pipe, such as /dev/null, has ended).
    """

    def __init__(self, fd_in: int | None = None, fd_out: int | None = None) -> None:
        self._fd_in = sys.stdin.fileno() if fd_in is None else fd_in
        self._fd_out = sys.stdout.fileno() if fd_out is None else fd_out
        self._lines = CommandLines()
        self.inputs = [self._fd_in]

    def commands(self) -> list[list[str]]:
        """What has come in, `[["stop"]]` when a parent's pipe or a terminal has ended; call when readable."""
        data = os.read(self._fd_in, LINE_BYTES_MAX)
        if data:
            return self._lines.feed(data)
        self.inputs = []
        mode = os.fstat(self._fd_in).st_mode
        parent_gone = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(self._fd_in)
        return [["stop"]] if parent_gone else []

    def say(self, event: str, members: Mapping[str, Any] | None = None) -> None:
        """Write one JSON line; a reader that has gone away is no reason to fail (the end of input follows)."""
        data = _encode({"event": event, **(members or {})}) + b"\n"
        try:
            while data:
                data = data[os.write(self._fd_out, data) :]
        except BrokenPipeError:
            return
