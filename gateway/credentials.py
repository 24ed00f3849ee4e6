"""Whether a client's user and password are good: the users file, watched; hashes in a thread; good ones remembered.

Each listener has a book of its own, of the users for its purpose. A users file that goes missing or bad lets nobody new
in until it is mended.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

from gateway.scram import Secret
from gateway.users import User, Users, matches, read_file
from headwater.errors import UserError

_log = logging.getLogger(__name__)

WAITING_MAX = 100  # clients whose password is to be hashed, about 5 s of it; beyond, a client is told to come back
REMEMBERED_MAX = 10_000


class Outcome(Enum):
    """What a check of user and password finds."""

    GOOD = 1
    BAD = 2
    BUSY = 3
    UNREADABLE = 4  # the users file


Verdict = Callable[[Outcome], None]


class UserBook:
    """The users file, for one purpose, and who has proved to be in it."""

    def __init__(self, path: str, purpose: str, *, must_exist: bool = False) -> None:
        """`must_exist`: a file that was never there is a problem too. Call `open` or `reload` next."""
        self.path = path
        self.problem: str | None = None
        self.required = must_exist
        self._purpose = purpose
        self._file = Users({}, b"")
        self._users: dict[str, User] = {}
        self._seen: tuple[int, ...] | None = None
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, str] = {}  # keyed hash of user and password → user
        self._waiting = 0
        self._hashing: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Read the file; one that is no good lets nobody in. Raises `UserError` when it must exist and is not there."""
        if os.path.lexists(self.path):
            self.reload()
            self.required = self.required or self.problem is not None
        elif self.required:
            self._take(read_file(self.path))

    def _take(self, file: Users) -> set[str]:
        """Put users in force; returns the names whose line changed or went."""
        users = {name: user for name, user in file.by_name.items() if self._purpose in user.purposes}
        changed = {name for name, user in self._users.items() if users.get(name) != user}
        self._file, self._users = file, users
        self._good = {proof: name for proof, name in self._good.items() if name not in changed}
        self.required = self.required or bool(users)
        return changed

    @property
    def empty(self) -> bool:
        """Whether nobody may come in."""
        return not self._users

    def reload(self) -> set[str]:
        """Look whether the file changed; the users who are no longer who they were. Called about once a second."""
        seen = _fingerprint(self.path)
        if seen == self._seen or (seen is None and not self.required):
            return set()
        self._seen = seen
        try:
            file = read_file(self.path)
        except UserError as error:
            self.problem = error.what
            _log.error("no new %s client may come in: %s. %s", self._purpose.upper(), error.what, error.hint)
            return set()
        if self.problem is not None:
            _log.warning("the users file %s is good again", self.path)
        self.problem = None
        return self._take(file)

    def secret(self, user: str, mechanism: str) -> Secret:
        """What SCRAM holds a user's proof against; a decoy for one that there is not."""
        return self._file.secret(user, mechanism)

    def verify(self, user: str, password: bytes, verdict: Verdict) -> None:
        """Give a verdict: at once where nothing needs hashing, else later in the loop."""
        if self.problem is not None:
            verdict(Outcome.UNREADABLE)
        elif self._good.get(proof := self._proof(user, password)) == user:
            verdict(Outcome.GOOD)
        elif self._waiting >= WAITING_MAX:
            verdict(Outcome.BUSY)
        else:
            self._hash(user, password, proof, verdict)

    def _proof(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._key, user.encode() + b"\0" + password, "sha256")

    def _hash(self, user: str, password: bytes, proof: bytes, verdict: Verdict) -> None:
        found = self._users.get(user)

        def hashed(future: asyncio.Future[bool]) -> None:
            self._waiting -= 1
            if future.cancelled() or future.exception() is not None:
                verdict(Outcome.UNREADABLE)
            elif not future.result() or self._users.get(user) != found:
                verdict(Outcome.BAD)
            else:
                if len(self._good) >= REMEMBERED_MAX:
                    self._good.clear()
                self._good[proof] = user
                verdict(Outcome.GOOD)

        if self._hashing is None:
            # one thread of their own: strangers who guess cost the log's fsync nothing, and at most one core
            self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self._purpose}-passwords")
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
