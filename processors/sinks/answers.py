"""What a server's answer to a write means: written, wait, the whole request was refused, or these lines were.

Sources: InfluxDB 2.7 (`http/api` errors are `{"code", "message"}`; a line that does not parse is 400 and nothing of the
request is written; a type conflict is 422 with `partial write: ... dropped=N` and the other lines are written),
InfluxDB 3 (400 with `data: [{line_number, error_message}]`), RFC 9110 section 10.2.3 (Retry-After, seconds or a date).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from headwater.errors import UNREADABLE

MESSAGE_MAX = 500
RETRY_AFTER_MAX_MS = 600_000
_CONFLICT = re.compile(
    r'field type conflict: input field "(?P<field>(?:[^"\\]|\\.)*)" on measurement "(?P<measurement>(?:[^"\\]|\\.)*)"'
    r" is type (?P<sent>\w+), already exists as type (?P<there>\w+)"
)
_DROPPED = re.compile(r"\bdropped=(\d+)")
_OF_LINES = ("unable to parse", "failed to parse", "partial write", "line protocol", "lines did not parse")


class Answer(NamedTuple):
    """Of one request. `status` 0: there was none, and `message` says why. `retry_after`: the header as it came."""

    status: int
    message: str = ""
    retry_after: str = ""


class Means(Enum):
    """What to do with the lines of the request."""

    WRITTEN = "written"
    WAIT = "wait"  # nobody's fault, or the operator's: the same lines again later
    TOO_LARGE = "too large"
    LINES = "lines"  # some of the lines are refused


class Conflict(NamedTuple):
    """A field that is there with another type; names as in the message."""

    measurement: str
    field: str
    sent: str
    there: str

    def __str__(self) -> str:
        return (
            f"field “{self.field}” of measurement “{self.measurement}” is {self.sent} here, "
            f"but {self.there} in the database"
        )


class Verdict(NamedTuple):
    """`lines`: indices of those that were refused, where the server names them. `dropped`: how many, if it counts them.

    `sure`: whether the message speaks of lines at all; else a proxy or a setting may be behind it.
    """

    means: Means
    reason: str = ""
    wait_ms: float = 0
    lines: tuple[int, ...] = ()
    conflict: Conflict | None = None
    dropped: int | None = None
    sure: bool = False


def judge(answer: Answer, sent: Sequence[str], *, now_ms: int) -> Verdict:
    """The verdict on a request that held the lines `sent`; `now_ms` is wall time, for a date in Retry-After."""
    status = answer.status
    if 200 <= status < 300:
        return Verdict(Means.WRITTEN)
    said, details = _message(answer.message)
    reason = f"{status}: {said}" if status else said
    if status == 413:
        return Verdict(Means.TOO_LARGE, reason)
    if status not in (400, 422):
        return Verdict(Means.WAIT, reason, _retry_after_ms(answer.retry_after, now_ms))
    dropped = _DROPPED.search(said)
    count = int(dropped[1]) if dropped else None
    if "beyond retention policy" in said:
        return Verdict(Means.WRITTEN, reason, dropped=count)  # the rest is written; the bucket would forget these
    if (found := _CONFLICT.search(said)) is not None:
        conflict = Conflict(found["measurement"], found["field"], found["sent"], found["there"])
        return Verdict(Means.LINES, reason, conflict=conflict, dropped=count, sure=True)
    lines = tuple(sorted({*_numbered(details, len(sent)), *_quoted(said, sent)}))
    sure = bool(lines) or any(words in said for words in _OF_LINES)
    return Verdict(Means.LINES, reason, lines=lines, dropped=count, sure=sure)


def _message(body: str) -> tuple[str, Any]:
    """What the body says, and the details beside it."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        return body.strip() or "no reason given", None
    if not isinstance(value, dict):
        return body.strip(), None
    said = value.get("message") or value.get("error") or body
    return str(said).strip(), value.get("data")


def _numbered(details: Any, count: int) -> set[int]:
    """InfluxDB 3 names lines by number, from 1."""
    numbers = {one.get("line_number") for one in details if isinstance(one, dict)} if isinstance(details, list) else ()
    return {number - 1 for number in numbers if isinstance(number, int) and 0 < number <= count}


def _quoted(said: str, sent: Sequence[str]) -> set[int]:
    """InfluxDB 2 quotes each line that does not parse."""
    if "unable to parse '" not in said:
        return set()
    return {index for index, line in enumerate(sent) if f"unable to parse '{line}'" in said}


def _retry_after_ms(header: str, now_ms: int) -> float:
    if not header:
        return 0
    try:
        wait_ms = float(header) * 1000 if header.strip().isdigit() else _until(header, now_ms)
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(0.0, wait_ms), RETRY_AFTER_MAX_MS)


def _until(date: str, now_ms: int) -> float:
    return parsedate_to_datetime(date).timestamp() * 1000 - now_ms
