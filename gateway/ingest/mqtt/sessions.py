"""Which MQTT sessions exist, also after a crash: the registry in memory and its journal on disk.

A client that asked for a session (3.1.1: clean session 0; MQTT 5: a session expiry interval) is told "session present"
when it comes back, whatever happened to the node meanwhile; only then does it send its unacknowledged messages again
[MQTT-3.1.2-4, -3.2.2-2]. The journal (`gateway.ingest.mqtt.session_journal`) holds a line per change:

    "+", client id                                              a session without end is made
    "+", client id, {"expiry_s": seconds, "user": name}         … or one with an end, or that is a user's
    "-", client id, {"readings": end, "deadletter": end}        it is discarded: what those logs say of the client
                                                                below these offsets belongs to a session that is gone

Sessions that published are known from the log's `hw-m` too. A session's time runs from its connection's end by the
monotonic clock, and from the start of the node again after a restart: it may last longer than asked, never shorter.

What is in memory is what counts: a disk that fails keeps new sessions from being promised until it takes them, and
forgets none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.ingest.mqtt.packets5 import NEVER_EXPIRES
from gateway.ingest.mqtt.session_journal import Change, SessionJournal
from gateway.ingest.repeats import DupMemory
from headwater.disk import Disk


@dataclass(slots=True)
class Use:
    """One packet identifier as the log's tail tells: where its record is, and about when it arrived (wall)."""

    crc: int
    topic: str
    offset: int
    arrival_ms: int


Tail = Mapping[str, Mapping[int, Use]]  # client id → packet id → its latest use


@dataclass(slots=True)
class Session:
    """What outlives a connection: the memory of repeats, and QoS 2 identifiers that wait for PUBREL.

    `expiry_s` counts from `ended_ms`, the connection's end on the monotonic clock.
    """

    client_id: str
    persistent: bool
    memory: DupMemory | None = None
    held: set[int] = field(default_factory=set)
    connected: bool = False
    expiry_s: int = NEVER_EXPIRES
    user: str | None = None  # whose it is: nobody else may go on with it
    ended_ms: float = 0.0
    change: int = 0  # of the journal: when that is on disk, so is all that a CONNACK says of this session

    def expired(self, now_ms: float) -> bool:
        """Its time is over; never while it is connected."""
        if self.connected or self.expiry_s == NEVER_EXPIRES:
            return False
        return now_ms - self.ended_ms >= self.expiry_s * 1_000.0


class SessionRegistry:
    """The persistent sessions, the one unused longest first; at most `sessions_max`."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        *,
        tail: Tail,
        sessions_max: int,
        horizon_ms: int,
        estimate_slack_ms: int = 2_000,
        now_ms: float = 0.0,
    ) -> None:
        """`estimate_slack_ms`: how much two arrivals in `tail` may each be off. `now_ms`: monotonic."""
        self._sessions_max = sessions_max
        self._horizon_ms = horizon_ms
        self._sessions: dict[str, Session] = {}
        self._started_ms = now_ms
        disk.make_directory(path.rpartition("/")[0])
        self._journal = SessionJournal(disk, path)
        self._discarded = self._read(self._journal.read())
        for client_id, uses in tail.items():
            self._recover(client_id, uses, self._discarded.get(client_id, {}), horizon_ms + estimate_slack_ms)
        # once the log's tail has moved past a discarded session, nothing can bring it back
        self._discarded = {client_id: ends for client_id, ends in self._discarded.items() if client_id in tail}
        sync = self.prepare_sync()
        for session in self._sessions.values():
            session.change = self._journal.number
        with contextlib.suppress(OSError):  # tried again at the first CONNECT that needs it
            sync()

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, client_id: object) -> bool:
        return client_id in self._sessions

    @property
    def damaged(self) -> str:
        """One sentence on what the start could not read of the journal, "" when nothing is lost."""
        return self._journal.damaged

    @property
    def behind(self) -> bool:
        """Whether the journal lacks changes until it is synced: its disk failed, or it is being written anew."""
        return self._journal.behind

    def _read(self, changes: list[Change]) -> dict[str, dict[str, int]]:
        discarded: dict[str, dict[str, int]] = {}
        for change in changes:
            match change:
                case ["+", str(client_id), *rest]:
                    detail = rest[0] if rest and isinstance(rest[0], dict) else {}
                    self._sessions.pop(client_id, None)
                    session = self._add(client_id)
                    expiry_s, user = detail.get("expiry_s"), detail.get("user")
                    session.expiry_s = expiry_s if isinstance(expiry_s, int) else NEVER_EXPIRES
                    session.user = user if isinstance(user, str) else None
                case ["-", str(client_id), dict(ends)]:
                    self._sessions.pop(client_id, None)
                    discarded[client_id] = {topic: end for topic, end in ends.items() if isinstance(end, int)}
        return discarded

    def _recover(self, client_id: str, uses: Mapping[int, Use], gone: Mapping[str, int], within_ms: int) -> None:
        mine = {pid: use for pid, use in uses.items() if use.offset >= gone.get(use.topic, 0)}
        if not mine:
            return
        session = self._sessions.get(client_id) or self._add(client_id)
        if session.memory is None:
            return
        # Whether a PUBACK was written before the crash, nobody knows any more: every use that was recent when
        # the client was last heard may be sent again. One that is older was settled long before.
        last_ms = max(use.arrival_ms for use in mine.values())
        for packet_id, use in sorted(mine.items(), key=lambda item: item[1].arrival_ms):
            if last_ms - use.arrival_ms <= within_ms:
                session.memory.use(packet_id, use.crc)

    def _add(self, client_id: str) -> Session:
        session = Session(client_id, persistent=True, memory=DupMemory(self._horizon_ms), ended_ms=self._started_ms)
        self._sessions[client_id] = session
        return session

    def owner(self, client_id: str, now_ms: float) -> str | None:
        """The user that a client id's session belongs to; None: nobody's."""
        session = self._sessions.get(client_id)
        return session.user if session is not None and not session.expired(now_ms) else None

    def open(
        self,
        client_id: str,
        *,
        clean: bool,
        ends: Mapping[str, int],
        expiry_s: int | None = None,
        user: str | None = None,
        now_ms: float = 0.0,
    ) -> tuple[Session, bool, bool]:
        """A client connects: (its session, session present, the journal must be synced before CONNACK).

        `expiry_s` None: as 3.1.1 has it, none with `clean` and else for good. `ends` are the logs' ends, for the
        journal; `now_ms` is monotonic.
        """
        if expiry_s is None:
            expiry_s = 0 if clean else NEVER_EXPIRES
        old = self._sessions.pop(client_id, None)
        # that an earlier session is gone may have been said to a connection that ended before it was on disk
        change = self._journal.number if client_id in self._discarded else 0
        if old is not None and (clean or old.expired(now_ms)):
            change = self._discard(client_id, ends)
            old = None
        if old is not None:
            self._sessions[client_id] = session = old  # used last
        elif expiry_s:
            self._make_room(ends)
            session = self._add(client_id)
        else:
            session = Session(client_id, persistent=False, expiry_s=0, user=user, change=change)
        if session.persistent and (old is None or (old.expiry_s, old.user) != (expiry_s, user)):
            session.expiry_s, session.user = expiry_s, user
            session.change = self._journal.write(_made(session))
        return session, old is not None, session.change > self._journal.synced

    def closed(self, session: Session, *, expiry_s: int, ends: Mapping[str, int], now_ms: float) -> None:
        """A session's connection has ended; DISCONNECT may have changed its expiry."""
        session.connected = False
        session.ended_ms = now_ms
        if self._sessions.get(session.client_id) is not session:
            return
        if not expiry_s:
            del self._sessions[session.client_id]
            self._discard(session.client_id, ends)
        elif expiry_s != session.expiry_s:
            session.expiry_s = expiry_s
            session.change = self._journal.write(_made(session))

    def expire(self, now_ms: float, ends: Mapping[str, int]) -> None:
        """Discard the sessions whose time is over."""
        for client_id in [each.client_id for each in self._sessions.values() if each.expired(now_ms)]:
            del self._sessions[client_id]
            self._discard(client_id, ends)

    def _make_room(self, ends: Mapping[str, int]) -> None:
        if len(self._sessions) < self._sessions_max:
            return
        for client_id, session in self._sessions.items():
            if not session.connected:
                del self._sessions[client_id]
                self._discard(client_id, ends)
                return

    def _discard(self, client_id: str, ends: Mapping[str, int]) -> int:
        self._discarded.pop(client_id, None)
        self._discarded[client_id] = dict(ends)
        if len(self._discarded) > self._sessions_max:
            del self._discarded[next(iter(self._discarded))]
        return self._journal.write(["-", client_id, dict(ends)])

    def prepare_sync(self) -> Callable[[], None]:
        """What makes the journal durable as it is now; to be called once, in any thread. It raises `OSError`."""
        return self._journal.prepare_sync(self._state, 4 * self._sessions_max)

    def _state(self) -> list[Change]:
        """Only what matters still."""
        discarded = [["-", client_id, ends] for client_id, ends in self._discarded.items()]
        return [*discarded, *map(_made, self._sessions.values())]


def _made(session: Session) -> Change:
    """The journal's line for a session as it is."""
    detail: dict[str, object] = {}
    if session.expiry_s != NEVER_EXPIRES:
        detail["expiry_s"] = session.expiry_s
    if session.user is not None:
        detail["user"] = session.user
    return ["+", session.client_id, detail] if detail else ["+", session.client_id]
