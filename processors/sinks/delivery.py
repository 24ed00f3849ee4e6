"""One batch on its way to the database: which lines to send next, what an answer means for them, what is refused.

Lines may be sent again at any time, since a point replaces itself. So a refused request is taken apart: what the server
names is set aside and the rest sent, and where it names nothing the request is halved until single lines remain. Of a
line with a field of the wrong type the other fields are written all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from processors.sinks.answers import Answer, Conflict, Means, judge
from processors.sinks.points import Line, type_of

REASON_MAX = 500
DOUBTS_MAX = 8
"""Lines refused one by one, by a server that has never taken any, until it is held to be the settings' fault."""


class Refusal(NamedTuple):
    """A line, by its index in the batch, that the server did not take as it was, and why."""

    line: int
    reason: str


class Backoff:
    """Pauses that double up to a limit, with jitter: between half and the whole of it."""

    def __init__(self, least_ms: float, most_ms: float, random: Random) -> None:
        self._least_ms = least_ms
        self._most_ms = most_ms
        self._random = random
        self.failures = 0

    def after_failure(self, asked_ms: float = 0) -> float:
        """Milliseconds to wait now; at least what the server asked for."""
        whole = min(self._most_ms, self._least_ms * (1 << min(self.failures, 30)))
        self.failures += 1
        return max(asked_ms, whole * (0.5 + self._random.random() / 2))

    def reset(self) -> None:
        """After a success."""
        self.failures = 0


class _Part(NamedTuple):
    """Lines of one request. `accused`: they all have the conflicting field, which they may have to do without."""

    lines: list[int]
    accused: Conflict | None = None


class Delivery:
    """Ask `next()` what to send, tell `answered()` what came; done when there is nothing to send.

    `proven`: whether this server has taken lines before. Until it has, a refusal that does not speak of lines is taken
    for a mistake in the settings and waited out, so that no wrong address can empty a log into the dead letters.
    """

    def __init__(self, lines: Sequence[Line], *, backoff: Backoff, proven: bool) -> None:
        self._lines = lines
        self._without: dict[int, frozenset[str]] = {}
        self._backoff = backoff
        self._parts = [_Part(list(range(len(lines))))] if lines else []
        self._doubtful: list[Refusal] = []
        self.proven = proven
        self.refused: list[Refusal] = []
        self.expired = 0
        """Lines older than the bucket keeps, which the server said that it dropped."""
        self.problem = ""
        """Why the last request is to be sent again; "" when it is not."""

    def next(self) -> list[str]:
        """The lines of the next request, [] when all are settled."""
        while self._parts:
            texts = [self._text(line) for line in self._parts[-1].lines]
            if any(texts):
                return [text for text in texts if text]
            self._parts.pop()
        return []

    def answered(self, answer: Answer, *, now_ms: int) -> float:
        """Take the answer to what `next` gave; returns how many milliseconds to wait before the next request."""
        part = self._parts.pop()
        part = part._replace(lines=[line for line in part.lines if self._text(line)])
        verdict = judge(answer, [self._text(line) for line in part.lines], now_ms=now_ms)
        if verdict.means is Means.WAIT:
            return self._again(part, verdict.reason, verdict.wait_ms)
        self.problem = ""
        if verdict.means is Means.WRITTEN:
            self.expired += verdict.dropped or 0
            self.proven = True
            self._believe()
        elif verdict.means is Means.TOO_LARGE:
            self._divide(part, verdict.reason)
        elif verdict.conflict is not None:
            self._conflict(part, verdict.conflict, verdict.dropped, verdict.reason)
        elif verdict.lines:
            self._refuse([part.lines[index] for index in verdict.lines], verdict.reason)
            self._put(_Part([line for index, line in enumerate(part.lines) if index not in set(verdict.lines)]))
        elif verdict.dropped == len(part.lines):
            self._refuse(part.lines, verdict.reason)
        elif len(part.lines) > 1 or verdict.sure or self.proven:
            self._divide(part, verdict.reason)
        else:
            self._doubtful.append(Refusal(part.lines[0], verdict.reason))
        if self._doubtful and (not self._parts or len(self._doubtful) >= DOUBTS_MAX):
            lines = [one.line for one in self._doubtful] + [line for one in self._parts for line in one.lines]
            reason, self._doubtful, self._parts = self._doubtful[0].reason, [], []
            return self._again(_Part(sorted(lines)), reason, 0)
        self._backoff.reset()
        return 0

    def _again(self, part: _Part, reason: str, asked_ms: float) -> float:
        self._parts.append(part)
        self.problem = reason[:REASON_MAX]
        return self._backoff.after_failure(asked_ms)

    def _believe(self) -> None:
        """The server takes lines, so the ones that it refused alone were to blame."""
        self.refused += self._doubtful
        self._doubtful = []

    def _divide(self, part: _Part, reason: str) -> None:
        if len(part.lines) == 1:
            if part.accused is not None:
                self._drop_field(part.lines, part.accused)
            else:
                self._refuse(part.lines, reason)
            return
        middle = len(part.lines) // 2
        self._put(part._replace(lines=part.lines[middle:]))
        self._put(part._replace(lines=part.lines[:middle]))

    def _conflict(self, part: _Part, conflict: Conflict, dropped: int | None, reason: str) -> None:
        """Set the lines apart that have the field with that type; when all of them were refused, they do without it.

        A type belongs to a shard, a span of time: the same field may be right in one line and wrong in another.
        """
        accused = [line for line in part.lines if self._has(line, conflict)]
        if not accused:
            self._divide(part._replace(accused=None), reason)
        elif len(accused) == len(part.lines):
            if dropped == len(accused) or len(accused) == 1:
                self._drop_field(accused, conflict)
            else:
                self._divide(part._replace(accused=conflict), reason)
        else:
            self._put(_Part([line for line in part.lines if not self._has(line, conflict)]))
            self._put(_Part(accused, conflict))

    def _drop_field(self, lines: list[int], conflict: Conflict) -> None:
        for line in lines:
            names = {name for name, value in self._lines[line].fields if _is(name, value, conflict)}
            self._without[line] = self._without.get(line, frozenset()) | names
        self._refuse(lines, str(conflict))
        self._put(_Part(lines))

    def _refuse(self, lines: list[int], reason: str) -> None:
        self.refused += [Refusal(line, reason[:REASON_MAX]) for line in lines]

    def _put(self, part: _Part) -> None:
        if part.lines:
            self._parts.append(part)

    def _text(self, line: int) -> str:
        return self._lines[line].text(self._without.get(line, frozenset()))

    def _has(self, line: int, conflict: Conflict) -> bool:
        if _plain(self._lines[line].measurement) != _plain(conflict.measurement):
            return False
        gone = self._without.get(line, frozenset())
        return any(_is(name, value, conflict) and name not in gone for name, value in self._lines[line].fields)


def _is(name: str, value: str, conflict: Conflict) -> bool:
    return type_of(value) == conflict.sent and _plain(name) == _plain(conflict.field)


def _plain(name: str) -> str:
    """A name without escapes, so that a message that escapes and one that does not are equal."""
    return name.replace("\\", "")
