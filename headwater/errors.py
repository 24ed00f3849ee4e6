"""Errors that answer two questions: whose fault is it, and what is the next step?

Every error that Headwater raises on purpose descends from `HeadwaterError`. The two that people meet are
`UserError` (a setting, a command, a permission: fix it and try again; never shown with a traceback) and
`PeerError` (the other end of a connection misbehaved: close it, log one line, go on).
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """The base of all; raise one of its children.

    `what` is one sentence naming the cause and the place; `hint` is the next step, or "".
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UserError(HeadwaterError):
    """Something that the person at the keyboard can mend: printed without a traceback, exit status 2."""


class PeerError(HeadwaterError):
    """The other end of a connection broke its protocol; the connection is closed, nothing else stops."""


class StorageError(HeadwaterError):
    """The disk or a file on it failed; what was acknowledged stays, new acknowledgements stop."""


class LimitError(PeerError):
    """A peer went past a configured limit (bytes, connections, time)."""


UNREADABLE = (ValueError, RecursionError)
"""What `msgspec` raises for bytes from elsewhere: its own errors are ValueErrors, and so is the UnicodeDecodeError that
it lets through for text that is no UTF-8; a RecursionError stands for nesting without end."""
