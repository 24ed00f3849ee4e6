"""The Kafka listener: moves bytes between sockets and the broker, in the loop that ingest shares.

One receive buffer per listener: requests are handled in the callback that received them, and only incomplete frames
are copied out. Answers leave in the order of the requests, in one write per readable event. A connection is not read
while too much of it is outstanding, and handles at most _SLICE requests before others get their turn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import Any, cast

from gateway.doors import NOBODY, Door, Doors, advertised, cannot_listen
from gateway.users import ANONYMOUS
from gateway.wire.acl import Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.peer import Peer
from gateway.wire.sasl import SaslGate
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request, ServerSession, encode_response
from gateway.wire.settings import KafkaSettings
from headwater.errors import PeerError
from headwater.net import Listener, Net, is_loopback

__all__ = ["KafkaListener", "KafkaSettings", "serve_kafka"]

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 256 << 10
_UNREAD_BYTES_MAX = 256 << 10
_WRITE_BYTES_MAX = 1 << 20
_OUTSTANDING_MAX = 1000
_SLICE = 50


class _Slot:
    """One request's place in the order of answers; the broker calls it with the answer."""

    __slots__ = ("api", "connection", "correlation_id", "done", "frame", "version")

    def __init__(self, connection: _Connection, request: Request) -> None:
        # Not the request itself: its body holds the receive buffer.
        self.connection = connection
        self.api = request.api
        self.version = 0 if request.body is None else request.version
        self.correlation_id = request.correlation_id
        self.frame = b""
        self.done = False

    def __call__(self, body: Body | None) -> None:
        if self.done or self.connection.transport is None:
            return
        if body is not None:
            self.frame = encode_response(self.api, self.version, self.correlation_id, body)
        self.done = True
        self.connection.answered(self)


class _Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, listener: KafkaListener, door: Door | None = None) -> None:
        self.listener = listener
        self.door = door  # where its client has to show who it is
        self.gate: SaslGate | None = None  # as long as it has not
        self.transport: asyncio.Transport | None = None
        self.peer = Peer("unknown", listener.advertised if door is None else door.advertised)
        self.session = ServerSession(frame_bytes_max=listener.settings.frame_bytes_max)
        self.slots: deque[_Slot] = deque()
        self.blocking: _Slot | None = (
            None  # a request other than Produce whose answer is due before the next is handled
        )
        self.unsent_bytes = 0
        self.held_bytes = 0
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
        self.listener.connected(self)
        if self.door is not None:
            self.door.arrived(self)
        elif self.listener.strangers is not None and not (name and is_loopback(name[0])):
            self.peer.principal, self.peer.rights = ANONYMOUS, self.listener.strangers

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.transport = None
            self.slots.clear()
            self.listener.disconnected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.active = True
        self.session.feed(self.listener.buffer[:nbytes])
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
            for _ in range(_SLICE):
                if self.blocking is not None or not self.writable or len(self.slots) >= _OUTSTANDING_MAX:
                    break
                request = self.session.next_request()
                if request is None:
                    break
                self.handle(request)
            else:
                self.schedule()
        except PeerError as error:
            self.listener.broken += 1
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
        self.flush()
        self.regulate()
        self.listener.hold(self, self.session.unread_bytes)

    def handle(self, request: Request) -> None:
        slot = _Slot(self, request)
        self.slots.append(slot)
        if self.gate is None:
            self.listener.broker.handle(request, self.peer, slot)
        else:
            self.gate.handle(request, slot)
        if not slot.done and request.api is not ApiKey.PRODUCE:
            self.blocking = slot

    def answered(self, slot: _Slot) -> None:
        """An answer is there; when that is not within `work`, one flush for all of this turn of the loop follows."""
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
            self.listener.loop.call_soon(self.go_on)

    def go_on(self) -> None:
        self.scheduled = False
        if self.transport is None:
            return
        if self.session.unread_bytes:
            self.work()
        else:
            self.flush()
            self.regulate()

    def flush(self) -> None:
        """Send the answers at the head of the queue in one write."""
        slots = self.slots
        frames = []
        while slots and slots[0].done:
            frames.append(slots.popleft().frame)
        self.unsent_bytes -= sum(map(len, frames))
        if frames and self.transport is not None:
            self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def regulate(self) -> None:
        """Read on, or not: what a client sends into a closed gate fills its own buffers, not ours."""
        if self.transport is None or self.transport.is_closing():
            return
        full = self.session.unread_bytes > _UNREAD_BYTES_MAX and not self.growing()
        stop = full or len(self.slots) >= _OUTSTANDING_MAX or not self.writable
        if stop and self.reading:
            self.reading = False
            self.transport.pause_reading()
        elif not stop and not self.reading:
            self.reading = True
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


class KafkaListener:
    """An open listener and its connections; see `serve_kafka`."""

    def __init__(
        self,
        broker: Broker,
        settings: KafkaSettings,
        loop: asyncio.AbstractEventLoop,
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        """Raises `UserError` for listeners or rules that are none."""
        self.broker = broker
        self.settings = settings
        self.loop = loop
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._held_bytes = 0
        # Of all connections together. Two of the longest requests may be under way at a time, and any number of short.
        self._held_bytes_max = 2 * settings.frame_bytes_max
        self.advertised: tuple[str, int] | None = None
        self.address = ("", 0)
        self.broken = 0
        users_file = settings.users_file or f"{broker.store.data_dir}/node/users"
        self.doors = Doors(settings, users_file, lambda door: _Connection(self, door), reserved)
        self.strangers: Rights | None = None  # what clients from the network may do without a credential
        self.problem: str | None = None
        self._watch: asyncio.Task[None] | None = None
        self._connections: set[_Connection] = set()
        self._refused = 0
        self._accepted = 0
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def open(self, net: Net, host: str, port: int) -> None:
        if not is_loopback(host):
            self.strangers = self.doors.access.rights(ANONYMOUS)
            if not self.doors.access.admits_anonymous:
                self.problem = NOBODY.format(listen=self.settings.listen)
                logger.warning("kafka: %s", self.problem)
                host = "::1" if ":" in host else "127.0.0.1"
        try:
            self._listener = await net.listen(lambda: _Connection(self), host, port)
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        self.address = self._listener.address
        self.advertised = advertised(self.settings.advertised, self.address)
        self.broker.advertised = self.advertised
        self.broker.timers.changed = self._schedule_timers
        self._schedule_timers()
        self._sweep_later()
        if self.doors.all:
            await self.doors.look(net)
            self._watch = self.loop.create_task(self.doors.keep(net, self._end))

    def _end(self, users: set[str]) -> None:
        """Users changed or went: their connections go too."""
        for connection in list(self._connections):
            if connection.door is not None and connection.door.signs_in and connection.peer.principal in users:
                logger.info("kafka connection from %s closed: its user changed", connection.peer.name)
                connection.close()

    def connected(self, connection: _Connection) -> None:
        self._accepted += 1
        if len(self._connections) >= self.settings.connections_max:
            self._refused += 1
            if self._refused == 1 or self._refused % 1000 == 0:
                logger.warning(
                    "kafka connection from %s refused: there are %d (kafka.connections_max); %d refused so far",
                    connection.peer.name,
                    len(self._connections),
                    self._refused,
                )
            if connection.transport is not None:
                connection.transport.abort()
            return
        self._connections.add(connection)

    def hold(self, connection: _Connection, size_bytes: int) -> None:
        """Note what lies unread in memory for a connection; with too much in all, the one with the most is closed."""
        self._held_bytes += size_bytes - connection.held_bytes
        connection.held_bytes = size_bytes
        if self._held_bytes <= self._held_bytes_max:
            return
        largest = max(self._connections, key=lambda each: each.held_bytes, default=connection)
        self.broken += 1
        logger.warning(
            "kafka connection from %s closed: %d bytes of it wait unread, of %d in all; the limit is %d",
            largest.peer.name,
            largest.held_bytes,
            self._held_bytes,
            self._held_bytes_max,
        )
        self._held_bytes -= largest.held_bytes
        largest.held_bytes = 0
        if largest.transport is not None:
            largest.transport.abort()

    def disconnected(self, connection: _Connection) -> None:
        self._held_bytes -= connection.held_bytes
        connection.held_bytes = 0
        self._connections.discard(connection)
        if connection.door is not None:
            self.doors.left(connection)
        self.broker.disconnected(connection.peer)

    def close(self) -> None:
        """Stop listening and close every connection; what is answered already is still sent."""
        if self._listener is not None:
            self._listener.close()
        self.doors.close()
        for handle in (self._timer, self._idle, self._watch):
            if handle is not None:
                handle.cancel()
        self.broker.timers.changed = None
        for connection in list(self._connections):
            connection.close()

    def status(self) -> dict[str, Any]:
        """The broker's counters and the connections'."""
        return {
            "connections": len(self._connections),
            "connections_accepted": self._accepted,
            "connections_refused": self._refused,
            "connections_broken": self.broken,
            "unread_bytes": self._held_bytes,
            **self.doors.status(),
            **self.broker.status(),
        }

    def _schedule_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self.broker.timers.next_ms()
        if due_ms is not None:
            wait_ms = max(due_ms - self.broker.clock.monotonic_ms(), 0.0)
            self._timer = self.loop.call_later(wait_ms / 1000, self._run_timers)

    def _run_timers(self) -> None:
        self._timer = None
        try:
            self.broker.tick()
        finally:
            self._schedule_timers()

    def _sweep_later(self) -> None:
        self._idle = self.loop.call_later(self.settings.connection_idle_ms / 1000, self._sweep)

    def _sweep(self) -> None:
        """Close connections that were silent for a whole sweep and that we owe nothing."""
        for connection in list(self._connections):
            if not connection.active and not connection.slots:
                logger.info("kafka connection from %s closed: idle", connection.peer.name)
                connection.close()
            connection.active = False
        self._sweep_later()


async def serve_kafka(
    broker: Broker,
    net: Net,
    host: str,
    port: int,
    *,
    settings: KafkaSettings | None = None,
    reserved: frozenset[str] = frozenset(),
) -> KafkaListener:
    """Listen and serve; tells the broker what to advertise. Raises `UserError` when the address cannot be had.

    To `reserved` topics nobody but the node's own clients writes in transactions.
    The broker's deadlines run on this loop from now on, and so must the log's callbacks (`call_in_loop`).
    """
    listener = KafkaListener(broker, settings or broker.settings, asyncio.get_running_loop(), reserved)
    await listener.open(net, host, port)
    return listener
