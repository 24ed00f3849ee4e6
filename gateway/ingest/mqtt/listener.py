"""The MQTT listener: the listening socket, and what its connections share (design §7)."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.ingest.mqtt.access import AccessList, Rights
from gateway.ingest.mqtt.connection import Connection
from gateway.ingest.mqtt.credentials import Credentials
from gateway.ingest.mqtt.packets import Connect, Will
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.refusals import Refusals
from gateway.ingest.mqtt.sessions import Session, SessionRegistry
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt.sparkplug import Rebirths
from gateway.ingest.mqtt.state import TopicCache
from gateway.ingest.mqtt.tls import TlsDoor
from gateway.ingest.mqtt.wills import WaitingWill, WaitingWills, delay_ms
from gateway.ingest.pipeline import Ingest
from gateway.ingest.sources import Source
from headwater import net as network
from headwater.errors import UserError

_log = logging.getLogger("headwater.mqtt")

SWEEP_S = 1.0
EXPIRE_EVERY_MS = 10_000
WILL_RETRY_MS = 1_000
LINES_PER_SWEEP = 20
READ_BYTES_MAX = 256 << 10
"""In one buffer for all: what asyncio makes for each read is mapped, cut short and unmapped by the kernel."""
UNPARSED_BYTES_MAX = 4 << 20  # of all connections together


class MqttListener:
    """The listening socket and what its connections share."""

    def __init__(
        self,
        ingest: Ingest,
        settings: MqttSettings,
        registry: SessionRegistry,
        credentials: Credentials,
        net: network.Net,
    ) -> None:
        """Raises `UserError` for rules that are none."""
        self.credentials = credentials
        self._access = AccessList(settings.acl)
        self._net = net
        self._closed_to_network = False
        self._open_problem: str | None = None
        self._opening: asyncio.Task[None] | None = None
        self.ingest = ingest
        self.settings = settings
        self.topics = TopicCache()
        self.buffer = memoryview(bytearray(READ_BYTES_MAX))  # of who is read just now
        self.refused = 0
        self.retained = 0
        self.refusals = Refusals()
        self._received: list[tuple[Connection, bytes]] = []
        self._unparsed_bytes = 0
        self._wills = WaitingWills()
        self._wills_taken = 0
        self._rebirths = Rebirths()
        self._expire_at_ms = 0.0
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._by_client: dict[str, Connection] = {}
        self._dirty: list[Connection] = []
        self._names = 0
        self._lines = self._lines_held = 0
        self._journal_next: list[Callable[[OSError | None], None]] = []
        self._journal_running = self._journal_failed = False
        self._server: network.Listener | None = None
        self.tls: TlsDoor | None = None
        self._tls_look: asyncio.Task[None] | None = None
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

        ingest.add_status(self.status)

    async def listen(self) -> None:
        """Open the socket; on loopback only, as long as nobody could be told apart. Raises `OSError`."""
        host, port = network.parse_address(self.settings.listen, default_port=1883)
        closed = not network.is_loopback(host) and not self.credentials.required
        if closed:
            host = "::1" if ":" in host else "127.0.0.1"
        self._server = await self._net.listen(lambda: Connection(self), host, port)
        self._closed_to_network = closed
        _log.info("MQTT on %s:%d", *self.address)
        if closed:
            _log.warning("MQTT: %s", self.problem)

    async def listen_tls(self) -> None:
        """Open the second socket, where there is one to be; what is wrong with it is its own problem."""
        settings = self.settings
        if settings.tls is not None:
            made = partial(Connection, self)
            self.tls = TlsDoor(settings.tls, self._net, made, timeout_ms=settings.connect_timeout_ms, say=self.say)
            await self.tls.look(users=self.credentials.required)

    @property
    def problem(self) -> str | None:
        """What keeps clients out, for `status` and the start line; None when nothing does."""
        if self._open_problem is not None:
            return self._open_problem
        if self._closed_to_network:
            return (
                f"no client from the network can connect, though listen = “{self.settings.listen}”: there is no user "
                "yet; `headwater user add NAME --mqtt` makes one and opens it"
            )
        return self.credentials.problem

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("the listener is not open")
        return self._server.address

    def close(self) -> None:
        """Stop listening and close every connection; what is settled is acknowledged first."""
        self._sweeper.cancel()
        self.credentials.close()
        if self._opening is not None:
            self._opening.cancel()
        if self._tls_look is not None:
            self._tls_look.cancel()
        if self.tls is not None:
            self.tls.stop()
        if self._server is not None:
            self._server.close()
        self._flush()
        for connection in list(self._connections):
            connection.end("this node stops", reason=ReasonCode.SERVER_SHUTTING_DOWN, our_doing=True)

    def status(self) -> dict[str, Any]:
        return {
            "refused": self.refused,
            "connections": len(self._connections),
            "sessions": len(self._registry),
            "retained": self.retained,
            "wills": self._wills_taken,
            "wills_waiting": len(self._wills),
            **(self.tls.status() if self.tls is not None else {}),
            "rebirths_asked": self._rebirths.asked,
            "sessions_damaged": self._registry.damaged,
            "refusals": self.refusals.status(),
        }

    # --- for connections

    def now_ms(self) -> float:
        return self.ingest.clock.monotonic_ms()

    def arrived(self, connection: Connection) -> None:
        self._connections.add(connection)
        if len(self._connections) > self.settings.connections_max:
            self.refused += 1
            connection.end(f"refused: {self.settings.connections_max} connections are the most here", loud=True)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._by_client.get(connection.client_id) is connection:
            del self._by_client[connection.client_id]

    def new_client_id(self, *, level: int) -> str:
        """For a client that brings none; nobody else's [MQTT-3.1.3-6]. MQTT 5's may come back with it after years."""
        if level == 5:
            return f"anonymous-{secrets.token_hex(8)}"
        self._names += 1
        return f"anonymous-{self._names}"

    def rights(self, user: str | None, client_id: str) -> Rights | None:
        """What a client may publish to. Raises `MqttError` when its id cannot stand in a pattern."""
        return self._access.rights(user, client_id)

    def open(self, connection: Connection, client_id: str, connect: Connect) -> tuple[Session, bool, bool]:
        """The session of a client that connects; an older connection of that id is closed [MQTT-3.1.4-2].

        Raises `MqttError` when the client id is another user's, connected or by its session.
        """
        old, user = self._by_client.get(client_id), connection.user
        owner = old.user if old is not None else self._registry.owner(client_id, self.now_ms())
        if user is not None and owner is not None and owner != user:
            raise MqttError(f"the client id {client_id!r} is another user's", ReasonCode.NOT_AUTHORIZED)
        if old is not None:
            problem = f"taken over by {connection.peer}, which has the same client id"
            old.end(problem, loud=True, reason=ReasonCode.SESSION_TAKEN_OVER)
        expiry_s = connect.session_expiry_s if connect.level == 5 else None
        session, present, unsynced = self._registry.open(
            client_id, clean=connect.clean, ends=self._ends(), expiry_s=expiry_s, user=user, now_ms=self.now_ms()
        )
        waiting = self._wills.pop(client_id)
        if waiting is not None and not present:
            self._take_will(client_id, waiting.source, waiting.will)  # its session has ended
        session.connected = True
        self._by_client[client_id] = connection
        return session, present, unsynced

    def _ends(self) -> dict[str, int]:
        return {log.topic: log.log_end_offset for log in self.ingest.logs}

    def closed(self, session: Session, *, expiry_s: int) -> None:
        """A session's connection is gone."""
        self._registry.closed(session, expiry_s=expiry_s, ends=self._ends(), now_ms=self.now_ms())

    def died(self, source: Source, client_id: str, will: Will, session_expiry_s: int) -> None:
        """A connection with a will ended without a good-bye."""
        wait_ms = delay_ms(will, session_expiry_s)
        if wait_ms:
            self._wills.add(client_id, WaitingWill(source, will, self.now_ms() + wait_ms))
        else:
            self._take_will(client_id, source, will)

    def _take_will(self, client_id: str, source: Source, will: Will) -> None:
        """A device's death is a reading of its own: taken like a PUBLISH, and again until it is on disk."""

        def done(stored: bool) -> None:  # noqa: FBT001 - the pipeline's own signature
            if stored:
                self._wills_taken += 1
            else:
                self._wills.add(client_id, WaitingWill(source, will, self.now_ms() + WILL_RETRY_MS))

        self.ingest.take(source, [(will.topic, will.payload, 0, int(will.retain))], done)

    def received(self, connection: Connection, data: bytes) -> None:
        """Bytes of a connection: fed to it when all sockets of this turn are read.

        First all the kernel's work, then all of ours: each finds the processor's caches as it left them.
        """
        if not self._received:
            self._loop.call_soon(self._feed)
        self._received.append((connection, data))
        self._unparsed_bytes += len(data)
        if self._unparsed_bytes >= UNPARSED_BYTES_MAX:
            self._feed()

    def _feed(self) -> None:
        """Parse, commit, sync and acknowledge in one go if the disk is quick: turns between would be waited for."""
        received, self._received, self._unparsed_bytes = self._received, [], 0
        flusher = self.ingest.store.flusher
        flusher.hold()
        try:
            self._feed_all(received)
            self.ingest.commit_if_free()
        finally:
            flusher.let_go()

    def _feed_all(self, received: list[tuple[Connection, bytes]]) -> None:
        now_ms = self.now_ms()
        for connection, data in received:
            try:
                connection.feed(data, now_ms)
            except Exception:  # a defect that one client's bytes show must not cost the others theirs
                _log.exception("%s: its bytes met a defect", connection.name)
                connection.end("its bytes met a defect of this node", loud=True, our_doing=True)

    def flush_soon(self, connection: Connection) -> None:
        if not self._dirty:
            self.ingest.after_group(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def when_journal_synced(self, callback: Callable[[OSError | None], None]) -> None:
        """One fsync in a thread for all sessions that are new in this moment."""
        self._journal_next.append(callback)
        if not self._journal_running:
            self._sync_journal()

    def _sync_journal(self) -> None:
        callbacks, self._journal_next = self._journal_next, []
        self._journal_running = True

        def synced(future: asyncio.Future[None]) -> None:
            self._journal_running = False
            error = future.exception() if not future.cancelled() else OSError(errno.ECANCELED, "stopped")
            if error is not None and not self._journal_failed:
                _log.error("the journal of MQTT sessions cannot be written, no new session is promised: %s", error)
            self._journal_failed = error is not None
            for callback in callbacks:
                callback(error if error is None or isinstance(error, OSError) else OSError(str(error)))
            if self._journal_next:
                self._sync_journal()

        self._loop.run_in_executor(None, self._registry.prepare_sync()).add_done_callback(synced)

    def say(self, level: int, line: str, *values: object) -> None:
        """A log line about one client; a crowd of them is summed up, for a log is on the same disk."""
        if not _log.isEnabledFor(level):
            return
        self._lines += 1
        if self._lines <= LINES_PER_SWEEP:
            _log.log(level, line, *values)
        else:
            self._lines_held += 1

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        if self._lines_held:
            _log.info("%d more lines about MQTT clients within %.0f s", self._lines_held, SWEEP_S)
        self._lines = self._lines_held = 0
        now_ms = self.now_ms()
        for connection in list(self._connections):
            connection.sweep(now_ms)
        self._ask_rebirths(now_ms)
        self._look_at_users()
        if self.tls is not None:
            self._tls_look = self._loop.create_task(self.tls.look(users=self.credentials.required))
        for waiting in self._wills.due(now_ms):
            self._take_will(waiting.source.id.removeprefix("mqtt:"), waiting.source, waiting.will)
        if now_ms >= self._expire_at_ms:
            self._expire_at_ms = now_ms + EXPIRE_EVERY_MS
            self._registry.expire(now_ms, self._ends())
        if self._registry.behind and not self._journal_running:
            self.when_journal_synced(lambda _: None)  # though nobody waits: a crash would bring back what has ended

    def _ask_rebirths(self, now_ms: float) -> None:
        if subscribers := [connection for connection in self._connections if connection.edge_nodes]:
            for group, node, reason in self._rebirths.ask(subscribers, now_ms, self.ingest.clock.wall_ms()):
                self.say(logging.INFO, "Sparkplug node %s/%s: asked for its births (%s)", group, node, reason)

    def _look_at_users(self) -> None:
        """Close who may no longer be there, and open to the network once there is a user."""
        required = self.credentials.required
        changed = self.credentials.reload()
        if changed or self.credentials.required != required:
            for connection in list(self._connections):
                stranger = connection.user is None and connection.client_id != ""
                if connection.user in changed or (self.credentials.required and stranger):
                    reason = ReasonCode.NOT_AUTHORIZED if stranger else ReasonCode.ADMINISTRATIVE_ACTION
                    connection.end("the users changed: sign in again", loud=True, reason=reason, our_doing=True)
        if self._closed_to_network and self.credentials.required and self._opening is None:
            self._opening = self._loop.create_task(self._open_to_network())

    async def _open_to_network(self) -> None:
        """The loopback socket makes room for the real one; connections stay."""
        if self._server is not None:
            self._server.close()
        try:
            await self.listen()
            self._open_problem = None
        except OSError as error:  # the next sweep tries again
            problem = _cannot_listen(self.settings.listen, error).what
            if problem != self._open_problem:
                _log.error("MQTT: %s", problem)
            self._open_problem = problem
        finally:
            self._opening = None


async def serve_mqtt(ingest: Ingest, net: network.Net, settings: MqttSettings) -> MqttListener:
    """Open the MQTT listener. Sessions are recovered before the first connection is accepted.

    Raises `UserError` when the port is taken or may not be opened, or a users file is named and not there.
    """
    store = ingest.store
    users_file = settings.users_file or f"{store.data_dir}/node/users"
    credentials = Credentials(users_file, must_exist=bool(settings.users_file))
    registry = SessionRegistry(
        store.disk,
        f"{store.data_dir}/node/sessions",
        tail=ingest.tail_uses,
        sessions_max=settings.sessions_max,
        horizon_ms=settings.dup_horizon_ms,
        estimate_slack_ms=2 * ingest.marks.settings.every_ms,
        now_ms=ingest.clock.monotonic_ms(),
    )
    if registry.damaged:
        _log.error("%s", registry.damaged)
    listener = MqttListener(ingest, settings, registry, credentials, net)
    try:
        await listener.listen()
    except OSError as error:
        listener.close()
        raise _cannot_listen(settings.listen, error) from error
    await listener.listen_tls()
    ingest.tail_uses = {}  # the sessions hold it now
    return listener


def _cannot_listen(listen: str, error: OSError) -> UserError:
    _, port = network.parse_address(listen, default_port=1883)
    if error.errno == errno.EADDRINUSE:
        holder = network.port_holder(port)
        hint = "Stop it, or set another port: listen in section [mqtt]."
        if port == 1883:
            hint += " A broker that devices are to keep using is read with [[mqtt_client]] (docs/mqtt-client.md)."
        return UserError(f"[mqtt] listen = “{listen}”: the port is held by {holder or 'another process'}", hint=hint)
    return UserError(f"[mqtt] listen = “{listen}”: {error.strerror}", hint="Set an address of this machine in [mqtt].")
