"""Logs go to stderr: one line per change of state, with the node and the cause; never one per message.

Text is for people and journald, `json` (one object a line) for a log collector.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from headwater.printable import printable

Format = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logging(node: str, *, level: str = "info", form: Format = "text", stream: TextIO | None = None) -> None:
    """Send every logger's records to `stream` (stderr) in one form. Called once per process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines(node) if form == "json" else _TextLines(node))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")


class _TextLines(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        # A message may quote a client; what goes on in a second line is indented, for no line to look like ours.
        said = "\n    ".join(map(printable, record.getMessage().split("\n")))
        line = f"{_time(record)} {record.levelname.lower():7} {self._node} {_part(record)}: {said}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonLines(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "part": _part(record),
            "message": record.getMessage(),
        }
        # what a part passes as `extra=` becomes members of the object
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z"


def _part(record: logging.LogRecord) -> str:
    """`gateway.replicate.driver` is the part `replicate`: the folder tells people enough."""
    names = record.name.split(".")
    return names[1] if len(names) > 1 and names[0] in ("gateway", "headwater") else names[0]
