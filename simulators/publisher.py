"""An MQTT device's publishing side: paho-mqtt driven by its owner's loop, with a queue that survives an outage.

QoS 1 with a persistent session. What has been handed to paho is in flight and is sent again by paho itself, with
DUP, after a reconnect; what has not waits here, in order. Nothing is handed over between CONNECT and CONNACK,
because a new message would then overtake the repeated ones.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

KEEP_ALIVE_S = 10
CONNECT_TIMEOUT_S = 1.0
BACKOFF_MIN_MS, BACKOFF_MAX_MS = 100.0, 1000.0
_RESENT = "Sending PUBLISH (d1"  # how paho's log names a PUBLISH with DUP=1

Token = tuple[str, str, int]  # (kind, device, number): whose message it is, told back to the owner


class Publisher:
    """One client. Its owner calls `service` when `fd` is ready and `tick` a few times a second.

    `on_sent(token)` is called when a message is first handed to the socket, `on_acked(token)` at its PUBACK (QoS 2:
    PUBCOMP; QoS 0: never). `credentials` are user and password.
    Counters: `resent` (PUBLISH packets with DUP), `connects`, `sessions_present`, `refused`.
    """

    def __init__(
        self,
        client_id: str,
        host: str,
        port: int,
        *,
        on_sent: Callable[[Token], None],
        on_acked: Callable[[Token], None],
        qos: int = 1,
        credentials: tuple[str, str] | None = None,
        inflight_max: int = 20,
        queued_max: int = 20_000,
    ) -> None:
        self.resent = self.connects = self.sessions_present = self.refused = 0
        self.connected = False
        self.problem = ""
        self._on_sent, self._on_acked = on_sent, on_acked
        self._qos, self._inflight_max, self._queued_max = qos, inflight_max, queued_max
        self._queue: deque[tuple[str, bytes, Token]] = deque()
        self._inflight: dict[int, Token] = {}
        self._backoff_ms = BACKOFF_MIN_MS
        self._reconnect_at_ms = self._cut_until_ms = 0.0
        self._random = Random(client_id)  # noqa: S311 - jitter
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        if credentials is not None:
            client.username_pw_set(*credentials)
        client.max_inflight_messages_set(0)  # the window is kept here
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.connect_async(host, port, KEEP_ALIVE_S)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_publish, client.on_log = self._published, self._logged

    # paho's callbacks

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refused += 1
            self.problem = f"the gateway refused the connection: {reason}"
            return
        self.connected = True
        self.connects += 1
        self.sessions_present += bool(flags.session_present)
        self.problem = ""
        self._backoff_ms = BACKOFF_MIN_MS

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self.connected and not self.problem:
            self.problem = "the gateway closed the connection before it answered (too many connections?)"
        self.connected = False

    def _published(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        token = self._inflight.pop(mid, None)
        if token is not None:
            self._on_acked(token)

    def _logged(self, client: Any, userdata: Any, level: Any, text: str) -> None:
        self.resent += text.startswith(_RESENT)

    # the owner's side

    @property
    def fd(self) -> int | None:
        """The socket to wait on; None while there is none."""
        socket = self._client.socket()
        return None if socket is None else int(socket.fileno())

    @property
    def wants_write(self) -> bool:
        return bool(self._client.want_write())

    @property
    def queued(self) -> int:
        """Messages not yet handed to the socket."""
        return len(self._queue)

    @property
    def inflight(self) -> int:
        """Messages sent and not yet acknowledged."""
        return len(self._inflight)

    def publish(self, topic: str, payload: bytes, token: Token) -> bool:
        """Take a message for sending; False when the queue is full and it was not taken."""
        if len(self._queue) >= self._queued_max:
            return False
        self._queue.append((topic, payload, token))
        self._flush()
        return True

    def service(self, *, readable: bool, writable: bool) -> None:
        """The socket is ready."""
        if readable:
            self._client.loop_read(64)
        if writable and self._client.socket() is not None:
            self._client.loop_write()
        self._flush()

    def tick(self, now_ms: float) -> None:
        """Keep-alive, and reconnecting with a back-off of at most one second."""
        if self._client.socket() is not None:
            self._client.loop_misc()
            self._reconnect_at_ms = now_ms + self._backoff_ms * self._random.uniform(0.5, 1.0)
            return
        if now_ms < max(self._reconnect_at_ms, self._cut_until_ms):
            return
        self._backoff_ms = min(BACKOFF_MAX_MS, self._backoff_ms * 2.0)
        self._reconnect_at_ms = now_ms + self._backoff_ms * self._random.uniform(0.5, 1.0)
        try:
            self._client.reconnect()
        except OSError as error:
            self.problem = f"cannot connect: {error.strerror or error}"

    def cut(self, until_ms: float) -> None:
        """The line goes dead without a word, and stays so until monotonic `until_ms`."""
        self._cut_until_ms = until_ms
        if (wire := self._client.socket()) is not None:
            with contextlib.suppress(OSError):  # gone already
                wire.shutdown(socket.SHUT_RDWR)
            self.service(readable=True, writable=False)

    def disconnect(self) -> None:
        """A clean DISCONNECT."""
        if self._client.socket() is not None:
            self._client.disconnect()

    def _flush(self) -> None:
        while self._queue and self.connected and len(self._inflight) < self._inflight_max:
            topic, payload, token = self._queue.popleft()
            # A PUBACK cannot come before this returns: reading happens in `service` alone.
            info = self._client.publish(topic, payload, qos=self._qos)
            if self._qos:
                self._inflight[info.mid] = token
            self._on_sent(token)


def wait_for(publishers: Sequence[Publisher], extra_fds: Sequence[int], timeout_ms: float) -> list[int]:
    """Wait for any socket to become ready and serve its publisher; the `extra_fds` that have become readable."""
    poll = select.poll()
    owners: dict[int, Publisher] = {}
    for publisher in publishers:
        if (fd := publisher.fd) is not None:
            owners[fd] = publisher
            poll.register(fd, select.POLLIN | (select.POLLOUT if publisher.wants_write else 0))
    for fd in extra_fds:
        poll.register(fd, select.POLLIN)
    ready = []
    for fd, events in poll.poll(timeout_ms):
        if (owner := owners.get(fd)) is not None:
            owner.service(readable=bool(events & ~select.POLLOUT), writable=bool(events & select.POLLOUT))
        else:
            ready.append(fd)
    return ready
