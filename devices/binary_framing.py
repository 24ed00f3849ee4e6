"""Frames of bytes on a serial line: prefixed by their length, or parted by zeros (COBS). Sans-IO, bounded.

As with lines, a reader joins in the middle, and bytes are lost or added. What tells a frame from noise is, where the
device has them, the bytes that begin it, its check value and its terminator; else only the pause between frames.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from devices.checksums import CHECKS, Check
from devices.framing import Frame
from headwater.errors import UserError

_FAILED_RUN = 8  # after so many wrong frames in a row none is looked for inside a wrong one: it would cost too much


class FramingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a message ends on a serial line.

    kind          lines; length: a number says how long each is; cobs: Consistent Overhead Byte Stuffing
    start         the bytes that begin a frame, as hex, for example "AA55"; length only
    length_bytes  how long the number is
    order         of the number's bytes and the check value's
    counts        what the number counts: the message (payload), all that follows the number (rest), or the frame (all)
    check         the check value behind the message, also of COBS
    check_covers  what it is worked out over: the message (payload), from the number on (length), or all
    end           the bytes that end a frame, as hex; length only
    pause_ms      a frame that stops for this long is given up, and the next byte begins one; length only
    """

    kind: Literal["lines", "length", "cobs"] = "lines"
    start: str = ""
    length_bytes: Literal[1, 2, 4] = 2
    order: Literal["big", "little"] = "big"
    counts: Literal["payload", "rest", "all"] = "payload"
    check: Check = "none"
    check_covers: Literal["payload", "length", "all"] = "payload"
    end: str = ""
    pause_ms: Annotated[int, msgspec.Meta(ge=10)] = 500


def hex_bytes(text: str, key: str) -> bytes:
    """The bytes that a text of hex digits means. Raises `UserError` naming the key."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UserError(f"framing.{key}: “{text}” are no hex digits", hint='For example "AA55" or "AA 55".') from None


class LengthFramer:
    """Frames that say how long they are."""

    def __init__(self, settings: FramingSettings, frame_bytes_max: int) -> None:
        """`frame_bytes_max` bounds the message, and so what is ever held. Raises `UserError` for bad hex."""
        self._settings = settings
        self._max = frame_bytes_max
        self._start = hex_bytes(settings.start, "start")
        self._end = hex_bytes(settings.end, "end")
        self._check = CHECKS[settings.check]
        self._head_bytes = len(self._start) + settings.length_bytes
        self._tail_bytes = self._check.size + len(self._end)
        self._held = bytearray()
        self._noise = bytearray()
        self._noise_cause = ""
        self._failed = 0
        self._joining = True
        self._heard_ms = 0.0
        self.skipped_bytes = 0

    def reset(self) -> None:
        """The line was closed and opened again: what was begun will not be finished."""
        self.skipped_bytes += len(self._held) + len(self._noise)
        self._held.clear()
        self._noise.clear()
        self._failed = 0
        self._joining = True

    def feed(self, data: bytes, now_ms: float = 0.0) -> list[Frame]:
        """Take what was read, however it was cut; the frames that it completes, in order."""
        frames: list[Frame] = []
        held = self._held
        if held and now_ms - self._heard_ms > self._settings.pause_ms:
            self._pass_over(len(held), "the rest of it never came")
        self._heard_ms = now_ms
        held += data
        while held and (size := self._next_size(frames)):
            payload = bytes(held[self._head_bytes : size - self._tail_bytes])
            if (problem := self._wrong(payload, size)) == "":
                self._say_noise(frames)
                frames.append(Frame(payload))
                del held[:size]
                self._failed, self._joining = 0, False
                continue
            self._failed += 1
            # a frame that was lost in the middle may have the next one in it
            self._pass_over(1 if self._start and self._failed < _FAILED_RUN else size, problem)
        if len(self._noise) >= self._max:
            self._say_noise(frames)
        return frames

    def _next_size(self, frames: list[Frame]) -> int:
        """How long the frame at the beginning of what is held is; 0 when it is not all there."""
        held, start, settings = self._held, self._start, self._settings
        while True:
            if start and (at := held.find(start)) != 0:
                keep = _begun(held, start) if at < 0 else len(held) - at
                self._pass_over(len(held) - keep, f"no frame begins in it ({start.hex(' ')})")
                if len(self._noise) >= self._max:
                    self._say_noise(frames)
                if at < 0:
                    return 0
            if len(held) < self._head_bytes:
                return 0
            number = int.from_bytes(held[len(start) : self._head_bytes], settings.order)
            before = {"payload": 0, "rest": self._tail_bytes, "all": self._head_bytes + self._tail_bytes}
            payload_bytes = number - before[settings.counts]
            if 0 <= payload_bytes <= self._max:
                size = self._head_bytes + payload_bytes + self._tail_bytes
                return size if len(held) >= size else 0
            self._pass_over(1, f"its length is said to be {number}")
            if not held:
                return 0

    def _wrong(self, payload: bytes, size: int) -> str:
        """Why a frame of that size is none; "" when it is one."""
        held, settings = self._held, self._settings
        if self._end and held[size - len(self._end) : size] != self._end:
            return f"it does not end with {self._end.hex(' ')}"
        if settings.check == "none":
            return ""
        first = {"payload": self._head_bytes, "length": len(self._start), "all": 0}[settings.check_covers]
        found = int.from_bytes(held[size - self._tail_bytes : size - len(self._end)], settings.order)
        wanted = self._check.of(bytes(held[first : size - self._tail_bytes]))
        return "" if found == wanted else f"its {settings.check} is {wanted:x}, it says {found:x}"

    def _pass_over(self, size: int, cause: str) -> None:
        if not size:
            return
        self._noise += self._held[:size]
        self._noise_cause = self._noise_cause or cause
        del self._held[:size]

    def _say_noise(self, frames: list[Frame]) -> None:
        """One problem for all that was passed over; nothing of what came before the first frame."""
        if self._noise and not self._joining:
            frames.append(Frame(bytes(self._noise[: self._max]), f"no frame: {self._noise_cause}"))
            self.skipped_bytes += max(0, len(self._noise) - self._max)
        else:
            self.skipped_bytes += len(self._noise)
        self._joining = False
        self._noise.clear()
        self._noise_cause = ""


class CobsFramer:
    """Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): frames without zeros, parted by zeros."""

    def __init__(self, settings: FramingSettings, frame_bytes_max: int) -> None:
        self._settings = settings
        self._max = frame_bytes_max
        self._stuffed_max = frame_bytes_max + CHECKS[settings.check].size
        self._stuffed_max += self._stuffed_max // 254 + 1
        self._held = bytearray()
        self._too_long = False
        self._joining = True
        self.skipped_bytes = 0

    def reset(self) -> None:
        """The line was closed and opened again: what was begun will not be finished."""
        self.skipped_bytes += len(self._held)
        self._held.clear()
        self._too_long = False
        self._joining = True

    def feed(self, data: bytes, now_ms: float = 0.0) -> list[Frame]:
        """Take what was read, however it was cut; the frames that it completes, in order."""
        frames: list[Frame] = []
        begin = 0
        while (end := data.find(0, begin)) >= 0:
            self._hold(data[begin:end])
            self._end_of_frame(frames)
            begin = end + 1
        self._hold(data[begin:])
        return frames

    def _hold(self, part: bytes) -> None:
        room = self._stuffed_max - len(self._held)
        if len(part) > room:
            self._too_long = True
            self.skipped_bytes += len(part) - room
        self._held += part[:room]

    def _end_of_frame(self, frames: list[Frame]) -> None:
        stuffed = bytes(self._held)
        self._held.clear()
        joining, self._joining = self._joining, False
        too_long, self._too_long = self._too_long, False
        if not stuffed:
            return  # zeros in a row are a customary way to begin
        problem = f"no zero within {self._stuffed_max} bytes: wrong baudrate?" if too_long else ""
        payload = None if too_long else cobs_decode(stuffed)
        if payload is None:
            problem = problem or "a part of it is missing: it is no COBS frame"
        else:
            payload, problem = self._checked(payload)
        if not problem:
            frames.append(Frame(payload or b""))
        elif joining:  # the end of a frame whose beginning nobody heard
            self.skipped_bytes += len(stuffed)
        else:
            frames.append(Frame(stuffed, problem))

    def _checked(self, payload: bytes) -> tuple[bytes, str]:
        name = self._settings.check
        if name == "none":
            return payload, ""
        check = CHECKS[name]
        if len(payload) < check.size:
            return payload, f"it is shorter than its {name}"
        body, tail = payload[: -check.size], payload[-check.size :]
        found, wanted = int.from_bytes(tail, self._settings.order), check.of(body)
        return body, "" if found == wanted else f"its {name} is {wanted:x}, it says {found:x}"


def cobs_decode(stuffed: bytes) -> bytes | None:
    """What a frame without zeros stands for; None when its last block is cut short, or a zero is in it.

    Own code: a code byte says how many bytes follow until the next zero, which 255 leaves out.
    """
    parts = []
    at = 0
    while at < len(stuffed):
        code = stuffed[at]
        block = stuffed[at + 1 : at + code]
        if not code or len(block) != code - 1 or 0 in block:
            return None
        at += code
        parts.append(block)
        if code < 255 and at < len(stuffed):
            parts.append(b"\0")
    return b"".join(parts)


def _begun(held: bytearray, start: bytes) -> int:
    """How many bytes at the end may be the beginning of `start`."""
    for size in range(min(len(start) - 1, len(held)), 0, -1):
        if held.endswith(start[:size]):
            return size
    return 0
