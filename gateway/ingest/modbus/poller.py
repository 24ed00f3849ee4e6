"""Who on a bus is asked when, and what is made of the answers. Sans-IO: bytes and `now_ms` in, bytes out.

How a driver uses it:

    poller.opened(now_ms)               # the line is there
    line.write(poller.tick(now_ms))     # whenever poller.next_ms has come, and after each feed
    poller.feed(data, now_ms)           # what was read
    for poll in poller.taken(): ...     # what each poll that has ended brought

One request is under way at a time, as a serial line wants it. Whoever has been due for longest is asked first. A unit
that does not answer costs one time-out, and its next try comes after a back-off that doubles each time: the others
hardly notice it. A unit that says that an address is illegal, or that answers all but one request, is asked in smaller
requests until the field is found that it does not have; that one is left out, and tried again after `REFUSED_RETRY_MS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from devices.decoders.modbus import Block, Span
from gateway.ingest.modbus.framing import FUNCTION_ERROR, Framing
from gateway.ingest.modbus.pdu import (
    ACKNOWLEDGE,
    BUSY,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    NO_PATH,
    NO_TARGET,
    Request,
    exception_name,
    requests,
    smaller,
)

REFUSED_RETRY_MS = 600_000.0
FOREVER_MS = float("inf")
PROBLEM_AFTER = 2
"""So many polls in a row with a fault are a problem; one is noise, and only counted."""
MUTE_AFTER = 3
"""So many polls in a row in which all requests but one were answered: that one asks for what is not there."""

_NOT_HERE = (ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE)
_NOT_NOW = (ACKNOWLEDGE, BUSY, NO_PATH, NO_TARGET)


class Timing(NamedTuple):
    """Times on this bus, in milliseconds."""

    timeout_ms: float
    turnaround_ms: float  # before each request
    byte_ms: float  # what a byte takes on the wire; 0 where that is nothing
    backoff_max_ms: float


class Poll(NamedTuple):
    """How one poll ended: what it read; `problem` is what stands against the unit now, "" for nothing."""

    unit: Unit
    blocks: list[Block]
    problem: str


class Unit:
    """One device on the bus, what is asked of it, and how it answers."""

    def __init__(
        self, number: int, spans: Mapping[Span, int], *, every_ms: float, gap_max: int, registers_max: int
    ) -> None:
        """`spans`: and at every how many polls each is asked for; one of them at all."""
        self.number = number
        self.every_ms = every_ms
        self.due_ms = 0.0
        self.polls = self.answered = self.timeouts = self.garbled = self.skipped = 0
        self.exceptions: dict[str, int] = {}
        self.misses = 0  # polls in a row that ended before their time
        self.faults = 0  # polls in a row with something wrong
        self.backoff_ms = 0.0
        self._mute = 0
        self.refused: dict[Span, str] = {}
        self._retry_refused_ms = FOREVER_MS
        self._spans = dict(spans)
        self._due = dict.fromkeys(spans.values(), 0)  # by `every`: at which poll they are asked for next
        self._asked: tuple[int, ...] = ()  # which of these the poll under way asks for
        self._prepared: dict[tuple[int, ...], list[Request]] = {}
        self._limits = {"gap_max": gap_max, "registers_max": registers_max}
        self._refused_known = 0
        self.requests = requests(list(self._spans), **self._limits)

    def begin(self, now_ms: float) -> deque[Request]:
        """The requests of a poll."""
        if now_ms >= self._retry_refused_ms:
            self._retry_refused_ms = FOREVER_MS
            self.refused.clear()
            self._refused_known = 0
            self._prepared.clear()
        elif len(self.refused) != self._refused_known:  # what was cut up to find them goes together again
            self._refused_known = len(self.refused)
            self._prepared.clear()
        self._asked = tuple(every for every, poll in self._due.items() if self.polls >= poll)
        if self._asked not in self._prepared:
            self._prepared[self._asked] = self._prepare()
        self.requests = self._prepared[self._asked]
        self.polls += 1
        return deque(self.requests)

    def _prepare(self) -> list[Request]:
        """For what is due; for all where all of that is refused."""
        known = [span for span in self._spans if span not in self.refused]
        spans = [span for span in known if self._spans[span] in self._asked] or known
        return requests(spans, **self._limits | ({"gap_max": 0} if self.refused else {}))

    def narrow(self, request: Request, reason: str, now_ms: float, *, whole: bool = False) -> list[Request]:
        """What to ask instead of what it does not know; a field that stands alone is refused, or a `whole` table."""
        parts = [] if whole else smaller(request)
        at = self.requests.index(request)
        self.requests[at : at + 1] = parts
        if not parts:
            self.refused.update(dict.fromkeys(request.spans, f"{request}: {reason}"))
            self._retry_refused_ms = now_ms + REFUSED_RETRY_MS
        return parts

    def gave_no_answer(self, request: Request, reason: str, now_ms: float, *, others_did: bool) -> None:
        """Next time it comes last, so that it can keep no other request from being answered."""
        self.requests.remove(request)
        self.requests.append(request)
        self._mute = self._mute + 1 if others_did else 0
        if self._mute >= MUTE_AFTER:
            self._mute = 0
            self.narrow(request, reason, now_ms)

    def went_well(self, now_ms: float) -> None:
        """Next on the grid of its interval; what the bus had no time for is counted."""
        self.answered += 1
        self._due.update({every: self.polls - 1 + every for every in self._asked})
        self.misses, self.backoff_ms, self._mute = 0, 0.0, 0
        self.due_ms += self.every_ms
        if (late_ms := now_ms - self.due_ms) > 0:
            skipped = int(late_ms // self.every_ms) + 1
            self.skipped += skipped
            self.due_ms += skipped * self.every_ms

    def went_wrong(self, now_ms: float, backoff_max_ms: float) -> None:
        """Half as often as the last time; never more often than it would be asked anyway."""
        self.misses += 1
        doubled_ms = self.every_ms * 2.0 ** min(self.misses - 1, 32)
        self.backoff_ms = max(self.every_ms, min(doubled_ms, backoff_max_ms))
        self.due_ms = now_ms + self.backoff_ms

    def refused_sentence(self) -> str:
        """The fields that it says it does not have, each with the reason; "" for none."""
        reasons = list(dict.fromkeys(self.refused.values()))
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return f"it refuses {'; '.join(reasons[:3])}{more}" if reasons else ""

    def status(self, now_ms: float) -> dict[str, Any]:
        return {
            "unit": self.number,
            "every_ms": self.every_ms,
            "requests": len(self.requests),
            "polls": self.polls,
            "answered": self.answered,
            "timeouts": self.timeouts,
            "garbled": self.garbled,
            "exceptions": dict(self.exceptions),
            "skipped": self.skipped,
            "misses": self.misses,
            "backoff_ms": self.backoff_ms,
            "next_ms": max(0.0, round(self.due_ms - now_ms, 1)),
            "refused": list(dict.fromkeys(self.refused.values())),
        }


class Poller:
    """All units of one bus."""

    def __init__(self, units: Sequence[Unit], framing: Framing, timing: Timing) -> None:
        self.units = list(units)
        self.framing = framing
        self.paused = False  # begin no further poll
        self._timing = timing
        self._open = False
        self._unit: Unit | None = None
        self._requests: deque[Request] = deque()
        self._request: Request | None = None  # under way
        self._read: list[Block] = []
        self._fault = ""
        self._deadline_ms = 0.0
        self._free_ms = 0.0  # the line is quiet for long enough
        self._noise_ms = self._noise_began_ms = 0.0  # the last that nobody asked for, and since when it goes on
        self._ended: list[Poll] = []

    # --- the line

    def opened(self, now_ms: float, *, forgive: bool = True) -> None:
        """The line is there. `forgive`: what went wrong on the last one says nothing of this one."""
        self._open = True
        self._give_up()
        self.framing.reset()
        self._free_ms = now_ms + self._timing.turnaround_ms
        for unit in self.units:
            if forgive:
                unit.misses, unit.backoff_ms = 0, 0.0
                unit.due_ms = now_ms
            else:
                unit.due_ms = max(unit.due_ms, now_ms)

    def lost(self) -> None:
        """The line is gone; what was under way was asked for nothing."""
        self._open = False
        self._give_up()

    def _give_up(self) -> None:
        self._unit, self._request, self._read, self._fault = None, None, [], ""
        self._requests.clear()

    # --- time and bytes

    @property
    def next_ms(self) -> float:
        """When `tick` is wanted again."""
        if not self._open:
            return FOREVER_MS
        if self._request is not None:
            return self._deadline_ms
        if self._unit is not None:
            return self._free_ms
        if self.paused or not self.units:
            return FOREVER_MS
        return max(self._free_ms, min(unit.due_ms for unit in self.units))

    def tick(self, now_ms: float) -> bytes:
        """What to write now, b"" for nothing."""
        if not self._open:
            return b""
        if self._request is not None:
            if now_ms < self._deadline_ms:
                return b""
            self._timed_out(now_ms)
        if now_ms < self._free_ms:
            return b""
        if self._unit is None:
            if self.paused or not self.units:
                return b""
            unit = min(self.units, key=_due)
            if unit.due_ms > now_ms:
                return b""
            self._unit, self._requests = unit, unit.begin(now_ms)
            if not self._requests:  # it refuses everything
                self._end_poll(now_ms)
                return b""
        return self._ask(self._unit, now_ms)

    def _ask(self, unit: Unit, now_ms: float) -> bytes:
        timing = self._timing
        request = self._request = self._requests.popleft()
        data = self.framing.ask(unit.number, request)
        wire_ms = (len(data) + self.framing.answer_bytes(request)) * timing.byte_ms
        self._deadline_ms = now_ms + wire_ms + timing.timeout_ms
        return data

    def feed(self, data: bytes, now_ms: float) -> None:
        """What was read, however it was cut. Raises `LostFraming`: close the line."""
        pdu = self.framing.feed(data)
        if self._request is None:
            self._unasked(now_ms)
            return
        if pdu is not None and self._unit is not None:
            self._answered(self._unit, self._request, pdu, now_ms)

    def _unasked(self, now_ms: float) -> None:
        """Speaking into somebody's late answer would garble both; noise without end is not waited for."""
        timing = self._timing
        if not timing.turnaround_ms:
            return
        self.framing.reset()
        if now_ms - self._noise_ms > timing.turnaround_ms:
            self._noise_began_ms = now_ms
        self._noise_ms = now_ms
        self._free_ms = max(self._free_ms, min(now_ms + timing.turnaround_ms, self._noise_began_ms + timing.timeout_ms))

    def taken(self) -> list[Poll]:
        """The polls that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    # --- answers

    def _answered(self, unit: Unit, request: Request, pdu: bytes, now_ms: float) -> None:
        self._request = None
        self._free_ms = now_ms + self._timing.turnaround_ms
        if pdu[0] & FUNCTION_ERROR:
            self._exception(unit, request, pdu[1] if len(pdu) > 1 else 0, now_ms)
        elif len(pdu) != request.data_bytes + 2 or pdu[1] != request.data_bytes:
            unit.garbled += 1
            self._fault = f"{len(pdu) - 2} bytes in the answer to {request}, where {request.data_bytes} were asked for"
        else:
            self._read.append(Block(request.table, request.address, pdu[2:]))
        if not self._requests:
            self._end_poll(now_ms)

    def _exception(self, unit: Unit, request: Request, code: int, now_ms: float) -> None:
        name = exception_name(code)
        if len(unit.exceptions) < 16 or name in unit.exceptions:
            unit.exceptions[name] = unit.exceptions.get(name, 0) + 1
        if code in _NOT_HERE:
            parts = unit.narrow(request, name, now_ms, whole=code == ILLEGAL_FUNCTION)
            self._requests.extendleft(reversed(parts))
            return
        self._fault = f"{request}: {name}"
        if code in _NOT_NOW:
            self._requests.clear()

    def _timed_out(self, now_ms: float) -> None:
        """The rest of the poll is not asked for: a late answer could be taken for that of the next request."""
        unit, request = self._unit, self._request
        assert unit is not None and request is not None  # noqa: S101, PT018 - a request is under way
        heard = self.framing.held_bytes
        if heard:
            unit.garbled += 1
            what = f"garbled: {heard} bytes that are no whole answer (wiring, baudrate, parity?)"
        else:
            unit.timeouts += 1
            what = f"no answer within {self._timing.timeout_ms:g} ms"
        unit.gave_no_answer(request, what, now_ms, others_did=bool(self._read))
        self._fault = f"{what}, to {request}"
        self._request = None
        self._requests.clear()
        self._free_ms = now_ms + self._timing.turnaround_ms
        self._end_poll(now_ms, missed=True)

    def _end_poll(self, now_ms: float, *, missed: bool = False) -> None:
        unit, read, fault = self._unit, self._read, self._fault
        assert unit is not None  # noqa: S101 - a poll is under way
        self._unit, self._read, self._fault = None, [], ""
        unit.faults = unit.faults + 1 if fault else 0
        if missed or not read:
            unit.went_wrong(now_ms, self._timing.backoff_max_ms)
        else:
            unit.went_well(now_ms)
        if unit.faults < PROBLEM_AFTER:
            fault = ""
        elif unit.misses:
            fault += f"; so {unit.faults} times in a row, asked again in {unit.backoff_ms / 1000:g} s"
        self._ended.append(Poll(unit, read, "; ".join(one for one in (fault, unit.refused_sentence()) if one)))


def _due(unit: Unit) -> float:
    return unit.due_ms
