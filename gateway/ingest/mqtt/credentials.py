"""Whether a client's user and password are good: the users file, watched; hashes in a thread; good ones remembered.

Once a user for MQTT exists, every client needs one, on loopback too. A users file that goes missing or bad later lets
nobody new in until it is mended.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.ingest.mqtt.reasons import ReasonCode
from gateway.users import User, matches, read_users
from headwater.errors import UserError

_log = logging.getLogger("headwater.mqtt")

WAITING_MAX = 100  # clients whose password is to be hashed, about 5 s of it; beyond, a client is told to come back
REMEMBERED_MAX = 10_000

# the user's name, or None and why not
Verdict = Callable[[str | None, ReasonCode], None]


class Credentials:
    """The users file and who has proved to be in it."""

    def __init__(self, path: str, *, must_exist: bool) -> None:
        """Raises `UserError` when the file is no good, or when `must_exist` and it is not there."""
        self.path = path
        self.problem: str | None = None
        self._users: dict[str, User] = {}
        self._seen: tuple[int, ...] | None = None
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, str] = {}  # keyed hash of user and password → user
        self._waiting = 0
        self._hashing: ThreadPoolExecutor | None = None
        self.required = must_exist
        if must_exist or os.path.lexists(path):
            self._seen = _fingerprint(path)
            self._take(read_users(path))

    def _take(self, users: dict[str, User]) -> set[str]:
        """Put users in force; returns the names whose line changed or went."""
        users = {name: user for name, user in users.items() if "mqtt" in user.purposes}
        changed = {name for name, user in self._users.items() if users.get(name) != user}
        self._users = users
        self._good = {proof: name for proof, name in self._good.items() if name not in changed}
        self.required = self.required or bool(users)
        return changed

    def reload(self) -> set[str]:
        """Look whether the file changed; the users who are no longer who they were. Called about once a second."""
        seen = _fingerprint(self.path)
        if seen == self._seen or (seen is None and not self.required):
            return set()
        self._seen = seen
        try:
            users = read_users(self.path)
        except UserError as error:
            self.problem = error.what
            _log.error("no new MQTT client may come in: %s. %s", error.what, error.hint)
            return set()
        if self.problem is not None:
            _log.warning("the users file %s is good again", self.path)
        self.problem = None
        return self._take(users)

    def verify(self, user: str | None, password: bytes | None, verdict: Verdict) -> None:
        """Give a verdict: at once where nothing needs hashing, else later in the loop."""
        if self.problem is not None:
            verdict(None, ReasonCode.SERVER_UNAVAILABLE)
        elif user is None or password is None:
            verdict(None, ReasonCode.NOT_AUTHORIZED)
        elif self._good.get(proof := self._proof(user, password)) == user:
            verdict(user, ReasonCode.SUCCESS)
        elif self._waiting >= WAITING_MAX:
            verdict(None, ReasonCode.SERVER_BUSY)
        else:
            self._hash(user, password, proof, verdict)

    def _proof(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._key, user.encode() + b"\0" + password, "sha256")

    def _hash(self, user: str, password: bytes, proof: bytes, verdict: Verdict) -> None:
        found = self._users.get(user)

        def hashed(future: asyncio.Future[bool]) -> None:
            self._waiting -= 1
            if future.cancelled() or future.exception() is not None:
                verdict(None, ReasonCode.SERVER_UNAVAILABLE)
            elif not future.result() or self._users.get(user) != found:
                verdict(None, ReasonCode.BAD_USER_NAME_OR_PASSWORD)
            else:
                if len(self._good) >= REMEMBERED_MAX:
                    self._good.clear()
                self._good[proof] = user
                verdict(user, ReasonCode.SUCCESS)

        if self._hashing is None:
            # one thread of their own: strangers who guess cost the log's fsync nothing, and at most one core
            self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mqtt-passwords")
        self._waiting += 1
        asyncio.get_running_loop().run_in_executor(self._hashing, matches, found, password).add_done_callback(hashed)

    def close(self) -> None:
        """Hash nothing more."""
        if self._hashing is not None:
            self._hashing.shutdown(wait=False, cancel_futures=True)


def _fingerprint(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
