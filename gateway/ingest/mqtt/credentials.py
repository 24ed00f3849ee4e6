"""Users and passwords of MQTT clients: the users file, with MQTT's reason codes for what it says.

Once a user for MQTT exists, every client needs one, on loopback too.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.credentials import WAITING_MAX, Outcome, UserBook
from gateway.ingest.mqtt.reasons import ReasonCode

__all__ = ["WAITING_MAX", "Credentials", "Verdict"]

# the user's name, or None and why not
Verdict = Callable[[str | None, ReasonCode], None]

_REASONS = {
    Outcome.GOOD: ReasonCode.SUCCESS,
    Outcome.BAD: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    Outcome.BUSY: ReasonCode.SERVER_BUSY,
    Outcome.UNREADABLE: ReasonCode.SERVER_UNAVAILABLE,
}


class Credentials:
    """Who may connect over MQTT."""

    def __init__(self, path: str, *, must_exist: bool) -> None:
        """A file that is no good lets nobody in. Raises `UserError` when it `must_exist` and is not there."""
        self._book = UserBook(path, "mqtt", must_exist=must_exist)
        self._book.open()
        self.reload = self._book.reload
        self.close = self._book.close

    @property
    def problem(self) -> str | None:
        """Why nobody new may come in."""
        return self._book.problem

    @property
    def required(self) -> bool:
        """Whether a client needs a user."""
        return self._book.required

    def verify(self, user: str | None, password: bytes | None, verdict: Verdict) -> None:
        """Give a verdict: at once where nothing needs hashing, else later in the loop."""
        if self._book.problem is not None:
            verdict(None, ReasonCode.SERVER_UNAVAILABLE)
        elif user is None or password is None:
            verdict(None, ReasonCode.NOT_AUTHORIZED)
        else:
            self._book.verify(
                user, password, lambda found: verdict(user if found is Outcome.GOOD else None, _REASONS[found])
            )
