"""The Kafka listener: moves bytes between sockets and the broker, in the loop that ingest shares.

One receive buffer per listener: requests are handled in the callback that received them, and only incomplete frames
are copied out, the beginning of a long one into a room where the rest of it is received; `gateway.connection` is what
becomes of one client's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

from gateway.connection import Connection
from gateway.doors import NOBODY, Doors, advertised, cannot_listen
from gateway.driving import drive
from gateway.holdings import Holdings
from gateway.log.steps import Step
from gateway.users import ANONYMOUS
from gateway.wire.acl import Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.peer import Peer, Reply
from gateway.wire.rooms import Rooms
from gateway.wire.settings import KafkaSettings
from headwater.net import Listener, Net, is_loopback

__all__ = ["KafkaListener", "KafkaSettings", "serve_kafka"]

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 256 << 10


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
        # Whether this turn of the loop is one connection's alone (`headwater.net`); False where the loop cannot tell.
        self.one_alone: Callable[[], bool] = getattr(loop, "one_alone", lambda: False)
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.rooms = Rooms()
        # Of all connections together. Two of the longest requests may be under way at a time, and any number of short.
        self._unread: Holdings[Connection] = Holdings(Connection.unread, 2 * settings.frame_bytes_max, Connection.deaf)
        self._unsent: Holdings[Connection] = Holdings(Connection.unsent, settings.unsent_bytes_max)
        broker.answer_bytes_max = self._answer_bytes_max
        broker.work = self._work
        self._under_way: set[asyncio.Task[None]] = set()
        self.advertised: tuple[str, int] | None = None
        self.address = ("", 0)
        self.broken = 0
        users_file = settings.users_file or f"{broker.store.data_dir}/node/users"
        self.doors = Doors(settings, users_file, lambda door: Connection(self, door), reserved)
        self.strangers: Rights | None = None  # what clients from the network may do without a credential
        self.problem: str | None = None
        self._watch: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._going_on: list[Connection] = []
        broker.store.flusher.after_telling.append(self._go_on)
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
            self._listener = await net.listen(lambda: Connection(self), host, port)
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

    def connected(self, connection: Connection) -> None:
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

    def go_on_soon(self, connection: Connection) -> None:
        """In the loop's next turn; at once after the sync that has just released what this one waited for."""
        if not self._going_on and not self.broker.store.flusher.telling:
            self.loop.call_soon(self._go_on)
        self._going_on.append(connection)

    def _go_on(self) -> None:
        connections, self._going_on = self._going_on, []
        for connection in connections:
            connection.go_on()

    def hold(self, connection: Connection) -> bool:
        """Note what lies in memory for a connection, if anything: returns whether.

        With too much of all in all, the one with the most is closed.
        """
        for holdings, state in (self._unread, "unread"), (self._unsent, "unsent"):
            largest = holdings.note(connection)
            if largest is None:
                continue
            self.broken += 1
            logger.warning(
                "kafka connection from %s closed: %d bytes of it wait %s, of %d in all; the limit is %d",
                largest.peer.name,
                holdings.of(largest),
                state,
                holdings.total_bytes,
                holdings.bytes_max,
            )
            holdings.forget(largest)
            if largest.transport is not None:
                largest.transport.abort()
        return bool(self._unread.of(connection) or self._unsent.of(connection))

    def _answer_bytes_max(self) -> int:
        """The longest answer just now: a share of what is left, so that many who do not read leave some for others."""
        return (self._unsent.bytes_max - self._unsent.total_bytes) // 2

    def disconnected(self, connection: Connection) -> None:
        self._unread.forget(connection)
        self._unsent.forget(connection)
        self._connections.discard(connection)
        if connection.door is not None:
            self.doors.left(connection)
        self.broker.disconnected(connection.peer)

    def close(self) -> None:
        """Stop listening and close every connection; what is answered already is still sent."""
        if self._listener is not None:
            self._listener.close()
        self.doors.close()
        for handle in (self._timer, self._idle, self._watch, *self._under_way):
            if handle is not None:
                handle.cancel()
        self.broker.timers.changed = None
        for connection in list(self._connections):
            connection.close()

    async def ended(self) -> None:
        """After `close`: until nothing of a request runs in a thread any more, and the log may be closed."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """The broker's counters and the connections'."""
        return {
            "connections": len(self._connections),
            "connections_accepted": self._accepted,
            "connections_refused": self._refused,
            "connections_broken": self.broken,
            "unread_bytes": self._unread.total_bytes,
            "unsent_bytes": self._unsent.total_bytes,
            **self.doors.status(),
            **self.broker.status(),
        }

    def _work(self, steps: Generator[Step, None, Body], peer: Peer, reply: Reply) -> None:
        task = self.loop.create_task(self._answer(steps, peer, reply))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _answer(self, steps: Generator[Step, None, Body], peer: Peer, reply: Reply) -> None:
        try:
            reply(await drive(steps))
        except Exception:  # a fault of ours in one request: its client hears of it at once, as of one within `work`
            logger.exception("kafka connection from %s closed", peer.name)
            for connection in [each for each in self._connections if each.peer is peer]:
                connection.close()

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
