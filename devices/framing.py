"""Where one message ends and the next begins on a byte stream such as a serial line. Sans-IO, bounded.

A serial line has no beginning: a reader joins in the middle of a message, bytes are lost or added, and a device that
is restarted says half a message. A framer never gives up: it drops what cannot be a message, says so, and goes on
with the next one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Frame(NamedTuple):
    """One message without its terminator; with `problem`, bytes that are none, and the sentence that says why."""

    data: bytes
    problem: str = ""


class Framer(Protocol):
    """What takes a byte stream apart; `skipped_bytes` counts what is in no frame and no problem."""

    skipped_bytes: int

    def feed(self, data: bytes, now_ms: float = 0.0) -> list[Frame]:
        """Take what was read, however it was cut; the messages that it completes, in order."""

    def reset(self) -> None:
        """The line was closed and opened again: what was begun will not be finished."""


class LineFramer:
    """Messages that end with a line feed; a carriage return before it is dropped, and so are empty lines.

    `starts` names the bytes that a message begins with and that never occur inside one (NMEA 0183: `$` and `!`).
    Then what stands before the last of them in a line is garbage: a message that lost its end, or noise. Without
    `starts` a whole line is the message.

    A line longer than `frame_bytes_max` is no message: its first bytes come out as a problem, the rest is only
    counted, and the next line is read again. At most that many bytes are ever held. What comes before the first
    line feed after `reset` and does not begin with a start byte is the end of a message whose beginning nobody
    heard: it is counted in `skipped_bytes`, and no problem.
    """

    def __init__(self, frame_bytes_max: int, *, starts: bytes = b"") -> None:
        self._max = frame_bytes_max
        self._starts = starts
        self._held = bytearray()
        self._too_long = False
        self._joining = bool(starts)
        self.skipped_bytes = 0

    def reset(self) -> None:
        """The line was closed and opened again: what was begun will not be finished."""
        self.skipped_bytes += len(self._held)
        self._held.clear()
        self._too_long = False
        self._joining = bool(self._starts)

    def feed(self, data: bytes, now_ms: float = 0.0) -> list[Frame]:
        """Take what was read, however it was cut; the messages that it completes, in order."""
        frames: list[Frame] = []
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            self._hold(data[begin:end], frames)
            self._end_of_line(frames)
            begin = end + 1
        self._hold(data[begin:], frames)
        return frames

    def _hold(self, part: bytes, frames: list[Frame]) -> None:
        room = self._max + 1 - len(self._held)  # one more than a message may have: its carriage return
        if self._too_long or len(part) > room:
            if not self._too_long:
                self._held += part[:room]
                self._too_long = True
                if self._joining:
                    self.skipped_bytes += len(self._held)
                else:
                    reason = f"no end of line within {self._max} bytes: wrong baud rate, or another format?"
                    frames.append(Frame(bytes(self._held[: self._max]), reason))
                    self.skipped_bytes += len(self._held) - self._max
                part = part[room:]
            self.skipped_bytes += len(part)
            return
        self._held += part

    def _end_of_line(self, frames: list[Frame]) -> None:
        line = bytes(self._held)
        self._held.clear()
        joining, self._joining = self._joining, False
        if self._too_long:
            self._too_long = False
            return
        line = line.removesuffix(b"\r")
        if not line:
            return
        if len(line) > self._max:
            frames.append(Frame(line[: self._max], f"longer than {self._max} bytes"))
            self.skipped_bytes += len(line) - self._max
            return
        at = max((line.rfind(start) for start in self._starts), default=0)
        if at < 0:
            if joining:
                self.skipped_bytes += len(line)
            else:
                frames.append(Frame(line, "no message begins in this line"))
            return
        if at and joining:
            self.skipped_bytes += at
        elif at:
            frames.append(Frame(line[:at], "another message begins before this one ends"))
        frames.append(Frame(line[at:]))
