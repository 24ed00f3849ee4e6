"""A connection to a broker for asyncio code: the only module of the wire that knows an event loop.

`call` may be pipelined; answers come in the order of the calls. Anything that goes wrong closes the channel: a peer
whose answer timed out may be a black hole, and an answer that cannot be read leaves no frame boundary to trust.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from gateway.tls import TlsError, Wrapped, explain
from gateway.wire.compiler import Body
from gateway.wire.schema import ApiKey
from gateway.wire.session import ClientSession
from gateway.wire.sign_in import ClientSecurity
from headwater.errors import PeerError
from headwater.net import Net

# A broker whose quota is used up names the time in which it will not read on (KIP-219); more than this is not believed.
THROTTLE_MS_MAX = 60_000
# Requests that wait in our memory for a slow peer: past this many bytes `call` waits for room.
_WRITE_BUFFER_BYTES_MAX = 4 << 20
_TLS_ALERT = b"\x15\x03"  # what TLS answers to bytes that are none (RFC 8446 section 5.1)


class _Connection(asyncio.Protocol):
    """Moves bytes between a transport and a session, and answers to their futures."""

    def __init__(self, session: ClientSession, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.futures: dict[int, asyncio.Future[Body]] = {}
        self.ready: asyncio.Future[None] = loop.create_future()
        self.room: asyncio.Future[None] | None = None
        self.error: Exception | None = None
        self.timeouts: dict[int, tuple[asyncio.Timeout, float]] = {}  # of calls that wait; their limits in seconds
        self.lost: asyncio.Future[None] = loop.create_future()
        self.quiet_until = 0.0  # in the loop's time: the broker does not read before
        self.turn = asyncio.Lock()  # calls that wait for that leave in their order,
        self.held = 0  # so many, and no later one overtakes them

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX)
        self.flush()

    def data_received(self, data: bytes) -> None:
        session = self.session
        try:
            session.feed(data)
        except PeerError as error:
            tls = not session.negotiated and data[:2] == _TLS_ALERT
            self.fail(TlsError("the broker speaks TLS there, and we do not") if tls else error)
            return
        if session.negotiated and not self.ready.done():
            self.ready.set_result(None)
        for response in session.responses:
            if throttle_ms := response.body.get("throttle_time_ms", 0):
                self.throttled(min(throttle_ms, THROTTLE_MS_MAX) / 1000)
            future = self.futures.pop(response.correlation_id, None)
            if future is not None and not future.done():
                future.set_result(response.body)
        session.responses.clear()
        self.flush()

    def throttled(self, pause_s: float) -> None:
        """The broker reads on after `pause_s`: the time of what it has not read yet begins then."""
        self.quiet_until = max(self.quiet_until, self.loop.time() + pause_s)
        for timeout, limit_s in self.timeouts.values():
            if not timeout.expired():
                timeout.reschedule(max(timeout.when() or 0.0, self.quiet_until + limit_s))

    async def hold(self) -> None:
        """Until the broker reads on: sent at once a request would lie unread, and its time would run out."""
        self.held += 1
        try:
            async with self.turn:
                while (pause := self.quiet_until - self.loop.time()) > 0 and self.error is None:
                    await asyncio.wait([self.lost], timeout=pause)
        finally:
            self.held -= 1

    def flush(self) -> None:
        if self.session.out and self.transport is not None:
            self.transport.write(b"".join(self.session.out))
            self.session.out.clear()

    def pause_writing(self) -> None:
        self.room = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        self.room = None

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self.fail(TlsError(f"TLS: {explain(exc)}"))
            return
        early = "" if self.session.negotiated else " before it answered; does it ask for TLS or a sign-in?"
        self.fail(ConnectionResetError(f"the broker closed the connection{f': {exc}' if exc else early}"))

    def shaken(self, error: BaseException | None, where: str) -> None:
        """The TLS handshake is over."""
        if error is not None:
            self.fail(TlsError(f"TLS with {where}: {explain(error)}"))

    def fail(self, error: Exception) -> None:
        """Close, and give `error` to everyone who waits; only the first one counts."""
        if self.error is not None:
            return
        self.error = error
        self.lost.set_result(None)
        waiting: list[asyncio.Future[Body] | asyncio.Future[None]] = [*self.futures.values(), self.ready]
        if self.room is not None:
            waiting.append(self.room)
        self.futures.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting for it any more
        if self.transport is not None:
            self.transport.abort()


class Channel:
    """An open connection whose versions are negotiated; see the module."""

    def __init__(self, connection: _Connection, *, request_timeout_ms: int) -> None:
        self._connection = connection
        self._request_timeout_ms = request_timeout_ms

    @classmethod
    async def connect(
        cls,
        net: Net,
        host: str,
        port: int,
        *,
        client_id: str,
        request_timeout_ms: int = 3000,
        security: ClientSecurity | None = None,
    ) -> Channel:
        """Connect, negotiate and sign in. Raises `OSError`, `TimeoutError`, `PeerError`; `UserError` for TLS files."""
        loop = asyncio.get_running_loop()
        context = security.context() if security is not None else None
        connection = _Connection(ClientSession(client_id=client_id), loop)

        def factory() -> asyncio.BaseProtocol:
            if context is None:
                return connection
            return Wrapped(
                connection,
                context,
                timeout_ms=request_timeout_ms,
                server_name=host,
                done=lambda error: connection.shaken(error, f"{host}:{port}"),
            )

        channel = cls(connection, request_timeout_ms=request_timeout_ms)
        try:
            async with asyncio.timeout(request_timeout_ms / 1000):
                await net.connect(factory, host, port)
                await asyncio.shield(connection.ready)
                if security is not None and security.signs_in:
                    await security.sign_in(channel.call)
        except BaseException as error:
            connection.fail(error if isinstance(error, Exception) else ConnectionAbortedError("given up"))
            raise
        return channel

    @property
    def closed(self) -> bool:
        return self._connection.error is not None

    @property
    def versions(self) -> dict[ApiKey, int]:
        """The version that each API is spoken in."""
        return self._connection.session.versions

    async def call(self, api: ApiKey, body: Body, *, timeout_ms: float | None = None) -> Body:
        """Send one request and give its answer's body, whose `records` may be kept.

        A Produce with `acks` 0 returns {} at once. While the broker throttles (`throttle_time_ms` of an earlier answer)
        nothing is sent, and `timeout_ms` has not begun. Raises `TimeoutError`, `ConnectionError`, `PeerError`; all
        three close the channel (but a PeerError for an API that the broker does not speak, and a cancelled call, do
        not).
        """
        connection = self._connection
        limit_ms = self._request_timeout_ms if timeout_ms is None else timeout_ms
        if connection.held or connection.quiet_until > connection.loop.time():
            await connection.hold()
        deadline = connection.loop.time() + limit_ms / 1000
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                while connection.room is not None and connection.error is None:
                    await asyncio.shield(connection.room)
                if connection.error is not None:
                    raise ConnectionError(f"the channel is closed: {connection.error}") from connection.error
                correlation_id = connection.session.send(api, body)
                connection.flush()
                if api is ApiKey.PRODUCE and body["acks"] == 0:
                    return {}
                future: asyncio.Future[Body] = connection.loop.create_future()
                connection.futures[correlation_id] = future
                connection.timeouts[correlation_id] = timeout, limit_ms / 1000
                try:
                    return await future
                finally:
                    del connection.timeouts[correlation_id]
        except TimeoutError:
            error = TimeoutError(f"no answer to {api.name} within {limit_ms:g} ms")
            connection.fail(error)
            raise error from None

    def close(self) -> None:
        """Close at once; calls that wait raise `ConnectionError`. A second call does nothing."""
        self._connection.fail(ConnectionAbortedError("closed here"))
