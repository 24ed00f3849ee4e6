"""One connection to the Kafka listener: requests in, answers out.

Answers leave in the order of the requests, in one write per readable event. A connection is not read while too much of
it is outstanding, and handles at most _SLICE requests before others get their turn. Produces that are alike and have
come together are handed over together.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from gateway.doors import Door
from gateway.users import ANONYMOUS
from gateway.wire import apis
from gateway.wire.acl import Rights
from gateway.wire.alike import Run
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.peer import Peer
from gateway.wire.rooms import Rooms
from gateway.wire.sasl import SaslGate
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request, ServerSession, encode_response
from gateway.wire.settings import KafkaSettings
from headwater.errors import PeerError
from headwater.net import is_loopback

logger = logging.getLogger("gateway.serve")

_UNREAD_BYTES_MAX = 256 << 10
_WRITE_BYTES_MAX = 1 << 20
_OUTSTANDING_MAX = 1000
_SLICE = 50


class Host(Protocol):
    """What a connection asks of the listener it came to."""

    broker: Broker
    settings: KafkaSettings
    loop: asyncio.AbstractEventLoop
    buffer: memoryview
    rooms: Rooms
    broken: int
    strangers: Rights | None

    @property
    def advertised(self) -> tuple[str, int] | None: ...
    @property
    def one_alone(self) -> Callable[[], bool]: ...
    def connected(self, connection: Connection) -> None: ...
    def hold(self, connection: Connection) -> bool: ...
    def disconnected(self, connection: Connection) -> None: ...
    def go_on_soon(self, connection: Connection) -> None: ...


class _Slot:
    """One request's place in the order of answers; the broker calls it with the answer."""

    __slots__ = ("api", "connection", "correlation_id", "done", "frame", "version")
    requests = 1

    def __init__(self, connection: Connection, api: ApiKey, version: int, correlation_id: int) -> None:
        # Not the request itself: its body holds the receive buffer.
        self.connection = connection
        self.api = api
        self.version = version
        self.correlation_id = correlation_id
        self.frame = b""
        self.done = False

    def __call__(self, body: Body | None) -> None:
        if self.done or self.connection.transport is None:
            return
        if body is not None:
            self.frame = encode_response(self.api, self.version, self.correlation_id, body)
        self.done = True
        self.connection.answered(self)


class _RunSlot(_Slot):
    """The place of several Produces that are handled as one."""

    __slots__ = ("requests",)

    def __init__(self, connection: Connection, run: Run) -> None:
        super().__init__(connection, ApiKey.PRODUCE, run.alike.version, run.correlation_ids[0])
        self.requests = len(run.correlation_ids)

    def reply(self, run: Run) -> None:
        if self.done or self.connection.transport is None:
            return
        self.frame = run.answers()
        self.done = True
        self.connection.answered(self)


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, host: Host, door: Door | None = None) -> None:
        self.host = host
        self.door = door  # where its client has to show who it is
        self.gate: SaslGate | None = None  # as long as it has not
        self.transport: asyncio.Transport | None = None
        self.peer = Peer("unknown", host.advertised if door is None else door.advertised)
        self.session = ServerSession(frame_bytes_max=host.settings.frame_bytes_max, rooms=host.rooms)
        self.room: memoryview | None = None  # of the long frame that is coming, if one is
        self.slots: deque[_Slot] = deque()
        self.outstanding = 0  # requests that the slots stand for
        self.blocking: _Slot | None = (
            None  # a request other than Produce whose answer is due before the next is handled
        )
        self.unsent_bytes = 0
        self.held = False  # whether anything was noted of it, or will be
        self.writable = True
        self.working = False
        self.scheduled = False
        self.reading = True
        self.active = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer.name = f"{name[0]}:{name[1]}" if name else "unknown"
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.transport.set_write_buffer_limits(high=_WRITE_BYTES_MAX)
        self.host.connected(self)
        if self.door is not None:
            self.door.arrived(self)
        elif self.host.strangers is not None and not (name and is_loopback(name[0])):
            self.peer.principal, self.peer.rights = ANONYMOUS, self.host.strangers

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.transport = None
            self.slots.clear()
            self.session.forget()
            self.host.disconnected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        self.room = self.session.room()
        return self.host.buffer if self.room is None else self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.active = True
        if self.room is None:
            self.session.feed(self.host.buffer[:nbytes])
        else:
            self.room = None
            if not self.session.received(nbytes):
                self.hold()
                return
        if self.host.one_alone():  # nobody else can join the group: a turn more would only be waited for
            flusher = self.host.broker.store.flusher
            flusher.hold()
            try:
                self.work()
            finally:
                flusher.let_go()
        else:
            self.work()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.schedule()

    def work(self) -> None:
        """Handle what is read, as far as it may be handled now; then send what is answered."""
        if self.transport is None or self.transport.is_closing():
            return
        self.working = True
        try:
            left = _SLICE
            while left > 0:
                if self.blocking is not None or not self.writable or self.outstanding >= _OUTSTANDING_MAX:
                    break
                if run := self.session.next_alike(left):
                    left -= len(run.records)
                    self.handle_run(run)
                    if self.session.unread_bytes:
                        continue
                    break
                request = self.session.next_request()
                if request is None:
                    break
                left -= 1
                self.handle(request)
            else:
                self.schedule()
        except PeerError as error:
            self.host.broken += 1
            logger.info("kafka connection from %s closed: %s", self.peer.name, error.what)
            self.flush()
            self.close()
            return
        except Exception:  # a fault of ours in one request must not take the loop, and all other clients, with it
            logger.exception("kafka connection from %s closed", self.peer.name)
            self.close()
            return
        finally:
            self.working = False
        self.session.keep()
        if self.slots and self.slots[0].done:
            self.flush()
        self.regulate()
        self.hold()

    def handle_run(self, run: Run) -> None:
        broker = self.host.broker
        if self.gate is not None or not apis.append_run(broker, run, self.peer):
            for request in self.session.one_by_one(run):
                self.handle(request)
            return
        if not self.session.unread_bytes and self.transport is not None:
            # Nothing more has come: if the loop may sync in this turn, it answers in this turn, and nobody waits.
            broker.store.flusher.sync_held()
            if run.is_synced and not self.slots:
                self.transport.write(run.answers())
                self.held = self.held or self.transport.get_write_buffer_size() > 0
                return
        slot = _RunSlot(self, run)
        self.slots.append(slot)
        self.outstanding += slot.requests
        run.wait(slot.reply, broker.waits)

    def handle(self, request: Request) -> None:
        slot = _Slot(self, request.api, 0 if request.body is None else request.version, request.correlation_id)
        self.slots.append(slot)
        self.outstanding += 1
        if self.gate is None:
            apis.handle(self.host.broker, request, self.peer, slot)
        else:
            self.gate.handle(request, slot)
        if not slot.done and request.api is not ApiKey.PRODUCE:
            self.blocking = slot

    def answered(self, slot: _Slot) -> None:
        """An answer is there; when that is not within `work`, one flush for all that a sync releases follows."""
        if slot is self.blocking:
            self.blocking = None
        self.unsent_bytes += len(slot.frame)
        if not self.working:
            self.schedule()
        elif self.unsent_bytes > _WRITE_BYTES_MAX:
            self.flush()  # finds out whether the client reads, before more is made for it

    def schedule(self) -> None:
        if not self.scheduled and self.transport is not None:
            self.scheduled = True
            self.host.go_on_soon(self)

    def go_on(self) -> None:
        self.scheduled = False
        if self.transport is None:
            return
        if self.session.unread_bytes:
            self.work()
        else:
            self.flush()
            self.regulate()
            self.hold()

    def hold(self) -> None:
        """Have it noted what lies in memory, or no longer does."""
        if self.held or self.session.unread_bytes or self.unsent_bytes:
            self.held = self.host.hold(self)

    def unread(self) -> int:
        """Bytes that came and are not handled yet."""
        return self.session.unread_bytes

    def deaf(self) -> bool:
        """Whether its client does not read its answers: what it sends meanwhile lies here through its own doing."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def unsent(self) -> int:
        """Bytes of answers that are made and not sent yet."""
        return self.unsent_bytes + (0 if self.transport is None else self.transport.get_write_buffer_size())

    def flush(self) -> None:
        """Send the answers at the head of the queue in one write."""
        slots = self.slots
        frames = []
        while slots and slots[0].done:
            slot = slots.popleft()
            self.outstanding -= slot.requests
            frames.append(slot.frame)
        self.unsent_bytes -= sum(map(len, frames))
        if frames and self.transport is not None:
            self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
            if self.transport.get_write_buffer_size():
                self.held = True

    def regulate(self) -> None:
        """Read on, or not: what a client sends into a closed gate fills its own buffers, not ours."""
        full = self.session.unread_bytes > _UNREAD_BYTES_MAX and not self.growing()
        stop = full or self.outstanding >= _OUTSTANDING_MAX or not self.writable
        if stop is not self.reading or self.transport is None or self.transport.is_closing():
            return
        self.reading = not stop
        if stop:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
            self.schedule()

    def growing(self) -> bool:
        """Whether what is unread is one long frame whose end has not come, and not a queue of requests."""
        return self.blocking is None and self.writable and not self.scheduled

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def finish(self) -> None:
        """Send what is answered, then close."""
        self.flush()
        self.close()
