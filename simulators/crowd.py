"""Many MQTT clients in one thread, over epoll: what it costs follows from what happens, not from how many there are."""

from __future__ import annotations

import contextlib
import resource
import select
from collections.abc import Sequence

from simulators.publisher import Publisher

TICK_MS = 100.0
TICKS_A_ROUND = 10
CONNECTS_A_TICK_MAX = 50
"""A gateway that has come back meets its clients in turns, as it would any crowd."""


class Crowd:
    """Serves its publishers; the owner calls `wait` again and again, and `touch` after it gave one work."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        self._publishers = publishers
        self._poll = select.epoll()
        self._watched: dict[int, tuple[Publisher, int]] = {}  # fd -> whose it is, and what is waited for
        self._fds: dict[Publisher, int] = {}
        self._tick_ms = 0.0
        self._turn = 0
        allow_files(len(publishers) + 64)

    def touch(self, publisher: Publisher) -> None:
        """Wait for what this publisher waits for now: its socket may be new, gone, or full."""
        fd, old = publisher.fd, self._fds.get(publisher)
        if old is not None and old != fd:
            del self._fds[publisher]
            if self._watched.get(old, (None, 0))[0] is publisher:  # else the number is another's socket by now
                del self._watched[old]
                with contextlib.suppress(OSError):  # a closed socket is forgotten by the kernel itself
                    self._poll.unregister(old)
        if fd is None:
            return
        events = select.EPOLLIN | (select.EPOLLOUT if publisher.wants_write else 0)
        known = self._watched.get(fd)
        if known is not None and known[0] is publisher:
            if known[1] == events:
                return
            with contextlib.suppress(FileNotFoundError):  # closed and opened again under the same number
                self._poll.modify(fd, events)
                self._watched[fd] = (publisher, events)
                return
        with contextlib.suppress(FileExistsError):
            self._poll.register(fd, events)
        self._watched[fd], self._fds[publisher] = (publisher, events), fd

    def wait(self, extra_fds: Sequence[int], timeout_ms: float) -> list[int]:
        """Wait until something is ready and serve it; the `extra_fds` that have become readable."""
        for fd in extra_fds:
            with contextlib.suppress(FileExistsError, PermissionError):  # a plain file cannot be waited for
                self._poll.register(fd, select.EPOLLIN)
        ready = []
        for fd, events in self._poll.poll(timeout_ms / 1000.0, 1024):
            known = self._watched.get(fd)
            if known is None:
                if fd in extra_fds:
                    ready.append(fd)
                    self._poll.unregister(fd)  # registered again by the next call, unless its end has come
                continue
            publisher = known[0]
            publisher.service(readable=bool(events & ~select.EPOLLOUT), writable=bool(events & select.EPOLLOUT))
            self.touch(publisher)
        return ready

    def tick(self, now_ms: float) -> None:
        """Keep-alive and reconnecting: whoever has no connection at every tick, the others by turns once a second."""
        if now_ms < self._tick_ms:
            return
        self._tick_ms = now_ms + TICK_MS
        self._turn += 1
        connects = 0
        for index, publisher in enumerate(self._publishers):
            if publisher.fd is None and connects < CONNECTS_A_TICK_MAX:
                publisher.tick(now_ms)
                connects += publisher.fd is not None
                self.touch(publisher)
            elif (index + self._turn) % TICKS_A_ROUND == 0:
                publisher.tick(now_ms)
                self.touch(publisher)

    def close(self) -> None:
        self._poll.close()


def allow_files(wanted: int) -> None:
    """Raise this process's limit of open files as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
