"""One MQTT connection: a socket around `ServerSession`, acknowledgements after fsync (design §7).

Everything that a readable event brought is parsed in one go, its messages handed to the pipeline together, and all
acknowledgements written in one write per group. No task, future or queue per message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

from gateway.ingest.messages import Messages, numbered, numbers
from gateway.ingest.mqtt.access import Rights
from gateway.ingest.mqtt.credentials import Credentials
from gateway.ingest.mqtt.packets import Connect, Will
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.refusals import Refusals
from gateway.ingest.mqtt.session import ServerSession, acknowledge_all, windows_freed
from gateway.ingest.mqtt.sessions import Session
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.sparkplug import EdgeNode, command_packet
from gateway.ingest.mqtt.state import RETAIN, State, TopicCache, retained
from gateway.ingest.pipeline import Ingest
from gateway.ingest.sources import Source
from headwater.errors import PeerError

STUCK_WRITE_MS = 30_000  # a client that reads no acknowledgement for this long is dead, whatever it sends


class Shared(Protocol):
    """What a connection needs of its listener."""

    ingest: Ingest
    settings: MqttSettings
    topics: TopicCache
    buffer: memoryview
    credentials: Credentials
    refused: int
    retained: int
    refusals: Refusals

    def now_ms(self) -> float: ...
    def arrived(self, connection: Connection) -> None: ...
    def left(self, connection: Connection) -> None: ...
    def new_client_id(self, *, level: int) -> str: ...
    def rights(self, user: str | None, client_id: str) -> Rights | None: ...
    def open(self, connection: Connection, client_id: str, connect: Connect) -> tuple[Session, bool, bool]: ...
    def closed(self, session: Session, *, expiry_s: int) -> None: ...
    def died(self, source: Source, client_id: str, will: Will, session_expiry_s: int) -> None: ...
    def received(self, connection: Connection, data: bytes) -> None: ...
    def flush_soon(self, connection: Connection) -> None: ...
    def when_journal_synced(self, callback: Callable[[OSError | None], None]) -> None: ...
    def say(self, level: int, line: str, *values: object) -> None: ...


_DECIDING, _CLOSED = State.DECIDING, State.CLOSED  # each look into an Enum is a call

# why a connection's reads are paused
INFLIGHT, FULL, WRITING, DECIDING = 1, 2, 4, 8

_AUTHENTICATION = {
    ReasonCode.SERVER_UNAVAILABLE: "the node's users file cannot be read",
    ReasonCode.NOT_AUTHORIZED: "it brings no user and password",
    ReasonCode.SERVER_BUSY: "too many clients sign in at once: come back",
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: "user and password do not match",
}


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(
        self, listener: Shared, certified: Callable[[asyncio.BaseTransport], str | None] | None = None
    ) -> None:
        """`certified` tells the user of a client that has shown a certificate."""
        self._certified = certified
        self._listener = listener
        self._ingest = listener.ingest
        self._settings = listener.settings
        self._machine = ServerSession(listener.settings, listener.topics)
        self._transport: asyncio.Transport | None = None
        self._source: Source | None = None
        self._session: Session | None = None
        self._paused = 0
        self._inflight = 0
        self._settled: list[Messages] = []  # to be acknowledged
        self._since_ms = 0.0  # the last byte, or the accept
        self._stuck_ms: float | None = None
        self.peer = "?"
        self.name = self.client_id = ""
        self.user: str | None = None
        self._deciding = False

    # --- asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        self.name = self.peer
        self._since_ms = self._listener.now_ms()
        if self._certified is not None:
            self.user = self._certified(transport)
        self._listener.arrived(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._listener.received(self, self._listener.buffer[:nbytes].tobytes())

    def feed(self, data: bytes, now_ms: float) -> None:
        """What came in this turn of the loop, unless something has ended the connection since."""
        if self._machine.state is not _CLOSED:
            self._since_ms = now_ms
            self._feed(data)

    def pause_writing(self) -> None:
        self._stuck_ms = self._listener.now_ms()
        self._pause(WRITING)

    def resume_writing(self) -> None:
        self._stuck_ms = None
        self._resume(WRITING)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection broke: {exc}" if exc is not None else "the connection closed without DISCONNECT")
        self._transport = None

    # --- one pass
    def _feed(self, data: bytes) -> None:
        machine = self._machine
        try:
            problem, is_usual = None, machine.feed(data)
        except PeerError as error:
            problem, is_usual = error.what, False
        # what was whole before an error still counts: a QoS 0 message would not come again
        if machine.messages.payloads:
            self._take(machine.messages)
            machine.messages = Messages()
        if is_usual:
            return
        self._write_answers()
        if machine.filter_refused is not None or machine.topic_refused is not None:
            self._name_problem(said=problem is not None)
        if problem is not None:
            self._listener.refused += 1
            self.end(problem, loud=True)
        elif machine.state is _DECIDING:
            if not self._deciding:
                self._deciding = True
                self._decide()
        elif machine.state is _CLOSED and self._transport is not None:
            if machine.clean_end:
                self.end(None)
            else:
                self.end(_refusal(machine), loud=True)

    def _write_answers(self) -> None:
        if not (out := self._machine.out):
            return
        if self._transport is not None:
            self._transport.write(b"".join(out))
        out.clear()

    @property
    def edge_nodes(self) -> Sequence[EdgeNode]:
        """Whose Sparkplug commands it wants."""
        return self._machine.edge_nodes

    def deliver(self, topic: str, payload: bytes) -> None:
        """One of this node's own commands, at QoS 0."""
        self._machine.send(command_packet(self._machine.level, topic, payload))
        self._write_answers()

    def _name_problem(self, *, said: bool) -> None:
        """What the client asks for and does not get is said once, and stands in `status` while it is connected."""
        problem = self._listener.refusals.of(self._machine, self.client_id, self._ingest.clock.wall_ms())
        source = self._source
        if said or source is None or source.problem is not None:
            return
        source.problem = problem
        self._listener.say(logging.WARNING, "%s: %s", self.name, source.problem)

    def _take(self, messages: Messages) -> None:
        if self._source is None:
            return
        session = self._session  # also when this connection is gone by then
        if messages.any_flags & RETAIN:
            self._listener.retained += retained(messages)
        self._inflight += len(messages.payloads)
        self._ingest.take(self._source, messages, partial(self._done, session, messages))
        if self._inflight > self._settings.inflight_max:
            self._pause(INFLIGHT)
        if self._ingest.full and not self._paused & FULL:
            self._pause(FULL)
            self._ingest.when_room(lambda: self._resume(FULL))

    def _done(self, session: Session | None, messages: Messages, stored: bool) -> None:  # noqa: FBT001 - as every `done`
        """The messages are settled; acknowledgements wait for the end of this pass, to go in one write."""
        self._inflight -= len(messages.payloads)
        if not stored:
            if session is not None:
                lost = numbers(numbered(messages))
                session.held.difference_update(lost)
                if session.memory is not None:
                    session.memory.forget(lost)
            self.end("the disk failed before its messages were safe: send them again", loud=True, our_doing=True)
            return
        if self._machine.level == 5:
            self._machine.unacknowledged = max(0, self._machine.unacknowledged - windows_freed(messages))
        if self._transport is None or self._machine.state is _CLOSED:
            return  # taken over, or gone: its session keeps them as unwritten
        if not self._settled:
            self._listener.flush_soon(self)
        self._settled.append(messages)
        if self._paused & INFLIGHT and self._inflight * 2 <= self._settings.inflight_max:
            self._resume(INFLIGHT)

    def flush(self) -> None:
        """Write the acknowledgements that have gathered."""
        settled, self._settled = self._settled, []
        if not settled or self._transport is None or self._machine.state is _CLOSED:
            return
        acks, ids = acknowledge_all(settled)
        if acks:
            self._transport.write(acks)
            if self._session is not None and self._session.memory is not None:
                self._session.memory.written(ids, self._listener.now_ms())

    def _pause(self, reason: int) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._since_ms = self._listener.now_ms()  # the silence was ours
            self._transport.resume_reading()

    # --- CONNECT

    def _decide(self) -> None:
        """Who is it? Its password may have to be hashed, in a thread; until then nothing more is read."""
        connect, credentials = self._machine.connect, self._listener.credentials
        if connect is None:
            return
        if self._certified is not None and self.user is None:
            self._refuse(ReasonCode.NOT_AUTHORIZED, "its certificate names no user")
            return
        if self.user is not None or not credentials.required:
            self._admit(connect)
            return
        self.name = f"{connect.client_id!r} at {self.peer}"
        self._pause(DECIDING)
        credentials.verify(connect.user, connect.password, self._verified)

    def _verified(self, user: str | None, reason: ReasonCode) -> None:
        connect = self._machine.connect
        if self._machine.state is not State.DECIDING or connect is None:
            return
        if reason:
            self._refuse(reason, _AUTHENTICATION[reason])
            return
        self.user = user
        self._admit(connect)

    def _refuse(self, reason: ReasonCode, problem: str) -> None:
        self._listener.refused += 1
        self._machine.refuse(reason, problem)
        self.end(f"refused: {problem}", loud=True)

    def _admit(self, connect: Connect) -> None:
        """May it, and under that client id? Then its session."""
        client_id = connect.client_id or self._listener.new_client_id(level=connect.level)
        self.name = f"{client_id!r} at {self.peer}"
        try:
            if reason := self._machine.restrict(self._listener.rights(self.user, client_id)):
                raise MqttError("the will's topic is not for this client", reason)
            session, present, unsynced = self._listener.open(self, client_id, connect)
        except MqttError as error:
            self._refuse(error.reason, error.what)
            return
        self._session = session
        self.client_id = client_id
        if unsynced:
            # "session present" will be promised by this CONNACK: the journal must hold it first
            self._pause(DECIDING)
            self._listener.when_journal_synced(lambda error: self._journalled(error, present=present))
        else:
            self._accept(present=present)
            self._resume(DECIDING)

    def _journalled(self, error: OSError | None, *, present: bool) -> None:
        if self._machine.state is not State.DECIDING:
            return
        if error is not None:
            self.end(f"its session cannot be kept: {error}", loud=True, reason=ReasonCode.SERVER_UNAVAILABLE)
            return
        self._accept(present=present)
        self._resume(DECIDING)

    def _accept(self, *, present: bool) -> None:
        session = self._session
        if session is None:
            return
        source = self._ingest.attach(f"mqtt:{self.client_id}", kind="mqtt")
        source.client = self.client_id.encode()
        source.memory = session.memory
        if session.memory is not None:
            session.memory.connection_began(resumed=present)
        self._source = source
        try:
            self._machine.accept(self.client_id, present=present, held=session.held)
        except MqttError as error:
            self.end(error.what, loud=True)
            return
        # a script that connects for each message must not fill the log: only who comes to stay has a line
        level = logging.INFO if session.persistent else logging.DEBUG
        self._listener.say(level, "%s: connected%s", self.name, ", session resumed" if present else "")
        self._feed(b"")

    # --- the end

    def end(
        self,
        problem: str | None,
        *,
        loud: bool = False,
        reason: ReasonCode = ReasonCode.UNSPECIFIED_ERROR,
        our_doing: bool = False,
    ) -> None:
        """Close; `problem` None means that the client said good-bye.

        A client of MQTT 5 is told `reason`. `our_doing`: the node's fault, which says nothing of the device: its will
        is not taken.
        """
        machine = self._machine
        if machine.state is State.CLOSED and self._source is None and self._session is None and not loud:
            self._close_transport()
            return
        self.flush()
        machine.end(reason, problem or "")
        self._write_answers()
        source, session = self._source, self._session
        self._source = self._session = None
        self._listener.left(self)
        expiry_s = machine.session_expiry_s
        if session is not None:
            expiry_s = expiry_s if machine.level == 5 else session.expiry_s
            if session.memory is not None:
                session.memory.connection_ended(self._listener.now_ms())
            self._listener.closed(session, expiry_s=expiry_s)
        if source is not None:
            self._take_will(source, expiry_s, said_goodbye=machine.clean_end, our_doing=our_doing)
            self._ingest.detach(source, clean=problem is None, problem=problem if loud else None)
        if problem is not None and (source is not None or loud):
            self._listener.say(logging.WARNING if loud else logging.INFO, "%s: %s", self.name, problem)
        self._close_transport()

    def _take_will(self, source: Source, expiry_s: int, *, said_goodbye: bool, our_doing: bool) -> None:
        machine = self._machine
        will = machine.connect.will if machine.connect is not None else None
        if will is not None and not our_doing and (not said_goodbye or machine.keeps_will):
            self._listener.died(source, self.client_id, will, expiry_s)

    def _close_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def sweep(self, now_ms: float) -> None:
        """Time limits: CONNECT in time [MQTT-3.1.0-1], 1.5 × keep-alive, a peer that does not read."""
        quiet_ms = now_ms - self._since_ms
        if self._stuck_ms is not None and now_ms - self._stuck_ms > STUCK_WRITE_MS:
            self.end("it does not read its acknowledgements", loud=True)
            if self._transport is not None:
                self._transport.abort()
        elif self._source is None:
            if quiet_ms > self._settings.connect_timeout_ms and self._machine.state is not State.CLOSED:
                self.end("no CONNECT in time", loud=True)
        elif not self._paused and (limit := self._machine.keep_alive_ms) is not None and quiet_ms > limit:
            problem = f"silent for {quiet_ms / 1000:.0f} s, longer than 1.5 × its keep-alive"
            self.end(problem, reason=ReasonCode.KEEP_ALIVE_TIMEOUT)


def _refusal(machine: ServerSession) -> str:
    connect = machine.connect
    if machine.refused_for is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION and connect is not None:
        return f"refused: it speaks MQTT protocol level {connect.level}, this listener 4 (3.1.1) and 5"
    if machine.refused_for is ReasonCode.CLIENT_IDENTIFIER_NOT_VALID:
        return "refused: no client id and no clean session"
    if machine.refused_for is ReasonCode.BAD_AUTHENTICATION_METHOD:
        return "refused: it asks for an enhanced authentication, and this listener knows none"
    name = machine.refused_for.name if machine.refused_for is not None else "no reason"
    return f"refused: {name.replace('_', ' ').lower()}"
