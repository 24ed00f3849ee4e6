"""The MQTT client: reads a broker that is already there, as long as the node runs (design §7).

Connect, subscribe, take; lost, wait, connect again. The decisions are in the cores (`core`, `retry`), the connection in
`link`; here is what joins them to the pipeline, to what the node remembers and to what `status` says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from gateway.ingest.mqtt.packets import Connect
from gateway.ingest.mqtt.sessions import Use
from gateway.ingest.mqtt.state import TopicCache
from gateway.ingest.mqtt_client.core import ClientSession, Phase, Plan
from gateway.ingest.mqtt_client.link import Link
from gateway.ingest.mqtt_client.memo import SessionMemo
from gateway.ingest.mqtt_client.rebirths import BrokerRebirths
from gateway.ingest.mqtt_client.retry import Backoff, Versions
from gateway.ingest.mqtt_client.settings import MqttClientSettings
from gateway.ingest.pipeline import Ingest
from gateway.ingest.repeats import USES_MAX, DupMemory
from gateway.tls import Wrapped, client_context, explain
from headwater.disk import Disk
from headwater.errors import UserError
from headwater.net import Net, ProtocolFactory

_log = logging.getLogger("headwater.mqtt_client")

KIND = "broker"
READ_MESSAGES_MAX = 8_192  # of 32 bytes, in the 256 KiB that asyncio reads at once
LEVELS = {4: "3.1.1", 5: "5"}
Emit = Callable[..., None]


def recovered_memory(uses: Mapping[int, Use], horizon_ms: int, slack_ms: int, uses_max: int = USES_MAX) -> DupMemory:
    """What the log's tail says of a session: nobody knows which acknowledgements were written before the crash."""
    memory = DupMemory(horizon_ms, uses_max=uses_max)
    last_ms = max((use.arrival_ms for use in uses.values()), default=0)
    for packet_id, use in sorted(uses.items(), key=lambda item: item[1].arrival_ms):
        if last_ms - use.arrival_ms <= horizon_ms + slack_ms:
            memory.use(packet_id, use.crc)
    return memory


class BrokerClient:
    """One `[[mqtt_client]]`."""

    def __init__(
        self, ingest: Ingest, settings: MqttClientSettings, *, net: Net, random: Random, memo: SessionMemo, emit: Emit
    ) -> None:
        """`emit(kind, **detail)` takes events for topic `events`. The session's memory comes out of the log's tail."""
        self.settings = settings
        self.name = settings.source_name
        self.client_id = settings.client_id or f"headwater-{ingest.node}-{settings.name or 'broker'}"
        self._id = f"{KIND}:{self.name}"
        self._ingest = ingest
        self._net = net
        self._memo = memo
        self._emit = emit
        self._topics = TopicCache()
        self._held: set[int] = set()
        # what a broker may send again is what it had on the way, which is a window and one read at most
        uses_max = min(settings.inflight_max + READ_MESSAGES_MAX, 0xFFFF)
        slack_ms = 2 * ingest.marks.settings.every_ms
        uses = ingest.tail_uses.pop(self._id, {})
        self._memory = recovered_memory(uses, settings.dup_horizon_ms, slack_ms, uses_max)
        self._memory_is_live = not len(self._memory)
        self._backoff = Backoff(random, max_ms=settings.retry_max_ms)
        self._versions = Versions(settings.version)
        self._rebirths = BrokerRebirths() if settings.sparkplug_rebirths else None
        self._link: Link | None = None
        self._known = memo.recall(self.name, settings.address, self.client_id)
        self._problem: str | None = "not connected yet"
        self._unstored: str | None = None  # what this connection brought and the node cannot store
        self._since_ms = ingest.clock.wall_ms()
        self.connects = self.sessions_lost = self.retained = self.oversize = self.unreadable = 0
        source = ingest.attach(self._id, kind=KIND)
        ingest.detach(source, clean=False)
        source.problem = f"{settings.address} has not answered yet"

    # --- running

    async def run(self) -> None:
        """Connect, take in, lose, wait; for ever."""
        while True:
            problem, lasted_ms, again = await self._once()
            if again:
                continue
            self._lost(problem)
            await asyncio.sleep(self._backoff.wait_ms(lasted_ms=lasted_ms) / 1000)

    async def _once(self) -> tuple[str, float, bool]:
        """One connection: (why it ended, how long it was up in milliseconds, whether to try at once)."""
        link = self._make_link(self._versions.level)
        host, port = self.settings.where()
        try:
            factory = self._factory(link, host)
            async with asyncio.timeout(self.settings.connect_timeout_ms / 1000):
                await self._net.connect(factory, host, port)
        except UserError as error:
            return f"{error.what} {error.hint}".rstrip(), 0.0, False
        except TimeoutError:
            return f"{self.settings.address} does not answer", 0.0, False
        except OSError as error:
            return f"cannot connect to {self.settings.address}: {error.strerror or error}", 0.0, False
        self._link = link
        await asyncio.wait([link.lost])  # which leaves it alone when this task is cancelled: `close` ends the link
        problem = link.lost.result()
        self.retained += link.retained
        link.retained = 0
        lasted_ms = link.now_ms() - link.up_ms if link.up_ms is not None else 0.0
        if link.bad_version and self._versions.refused():
            _log.info("broker %s knows no MQTT 5: 3.1.1 it is", self.name)
            return problem, lasted_ms, True
        if not link.machine.answered:
            self._versions.closed_unanswered()
        return problem, lasted_ms, False

    def _factory(self, link: Link, host: str) -> ProtocolFactory:
        """What gets the socket: the link, within TLS where that is asked for. Raises `UserError` for bad files."""
        settings = self.settings
        if not settings.tls:
            return lambda: link
        context = client_context(  # each time anew: certificates are renewed
            ca_file=settings.tls_ca_file,
            certificate_file=settings.tls_certificate_file,
            key_file=settings.tls_key_file,
            where=f"[[mqtt_client]] {self.name}",
        )

        def done(error: BaseException | None) -> None:
            if error is not None:
                link.end(f"no TLS with {settings.address}: {explain(error)}")

        return lambda: Wrapped(link, context, timeout_ms=settings.connect_timeout_ms, server_name=host, done=done)

    def _make_link(self, level: int) -> Link:
        settings = self.settings
        filters = tuple((each.filter, each.qos) for each in settings.subscriptions)
        wanted = {name for name, _ in filters}
        former = tuple(name for name in self._known.filters if name not in wanted) if self._known is not None else ()
        connect = Connect(
            level=level,
            client_id=self.client_id,
            clean=False,
            keep_alive_s=settings.keep_alive_s,
            user=settings.user,
            password=settings.password.encode() if settings.password is not None else None,
            session_expiry_s=settings.session_expiry_s,
        )
        plan = Plan(
            connect=connect,
            filters=filters,
            former=former,
            receive_maximum=settings.inflight_max,
            packet_bytes_max=settings.packet_bytes_max,
            connect_timeout_ms=settings.connect_timeout_ms,
            retained=settings.retained == "store",
        )
        now_ms = self._ingest.clock.monotonic_ms()
        machine = ClientSession(plan, held=self._held, topics=self._topics, now_ms=now_ms)
        return Link(
            self._ingest,
            machine,
            self._memory,
            inflight_max=settings.inflight_max,
            memory_is_live=self._memory_is_live,
            on_phase=self._changed,
            on_numbering=self._numbered,
            rebirths=self._rebirths,
        )

    # --- what a connection tells

    def _numbered(self) -> None:
        self._memory_is_live = True

    def _changed(self, link: Link) -> None:
        """Called in the pass that changed it, before the pass's messages are taken."""
        machine = link.machine
        if link.source is None and machine.phase in (Phase.SUBSCRIBING, Phase.UP):
            self._accepted(link)
        if link.source is None:
            return
        if machine.oversize is not None:
            topic, size = machine.oversize
            machine.oversize = None
            self.oversize += 1
            self._unstored = f"“{topic:.80}” had a message of {size} bytes, not stored: packet_bytes_max is smaller"
        if machine.unreadable is not None:
            topic, machine.unreadable = machine.unreadable, None
            self.unreadable += 1
            self._unstored = f"a message on “{topic:.80}”, which is no topic for a reading, is not stored"
        if machine.phase is Phase.UP:
            self._subscribed(link)

    def _accepted(self, link: Link) -> None:
        """CONNACK: whose messages will come, and whether the session is still there."""
        self._link = link
        self._unstored = None
        self._versions.accepted()
        self.connects += 1
        present = link.machine.present
        self._memory.connection_began(resumed=present)
        source = self._ingest.attach(self._id, kind=KIND)
        source.client = self._id.encode()
        source.memory = self._memory
        link.source = source
        if self._known is not None and not present:
            self.sessions_lost += 1
            _log.warning(
                "broker %s: it has lost this node's session; what it took in since the last connection may be missing."
                " A broker that persists its sessions keeps them (Mosquitto: persistence true)",
                self.name,
            )
            self._emit("broker-session-lost", broker=self.name, address=self.settings.address)

    def _subscribed(self, link: Link) -> None:
        """SUBACK: what the broker gives and what not."""
        machine = link.machine
        first = link.up_ms is None
        if first:
            link.up_ms = link.now_ms()
            self._since_ms = self._ingest.clock.wall_ms()
            how = "session resumed" if machine.present else "new session"
            version = LEVELS[machine.level]
            _log.info("broker %s: connected to %s, MQTT %s, %s", self.name, self.settings.address, version, how)
            self._emit("broker-up", broker=self.name, address=self.settings.address, session=machine.present)
            self._remember(sorted(set(machine.granted) | set(machine.refused)))
        problem = self._unstored
        if machine.refused:
            name, refusal = next(iter(machine.refused.items()))
            more = f" (and {len(machine.refused) - 1} more filters)" if len(machine.refused) > 1 else ""
            problem = f"it does not give “{name}”{more}: {refusal}"
        if problem is not None and problem != self._problem:
            _log.warning("broker %s: %s", self.name, problem)
        self._problem = problem
        if link.source is not None:
            link.source.problem = problem

    def _remember(self, filters: list[str]) -> None:
        if self._memo.keep(self.name, self.settings.address, self.client_id, filters):
            self._known = self._memo.recall(self.name, self.settings.address, self.client_id)
            future = asyncio.get_running_loop().run_in_executor(None, self._memo.write)
            future.add_done_callback(self._remembered)

    def _remembered(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.warning("broker %s: its session cannot be remembered: %s", self.name, error)

    def _lost(self, problem: str) -> None:
        """Gone, or not there: named once, and in `status` until it is back."""
        link, self._link = self._link, None
        if problem != self._problem:
            _log.warning("broker %s: %s", self.name, problem)
        if link is not None and link.up_ms is not None:
            self._since_ms = self._ingest.clock.wall_ms()
            self._emit("broker-down", broker=self.name, address=self.settings.address, cause=problem)
        self._problem = problem
        source = link.source if link is not None else None
        if source is None:
            source = self._ingest.attach(self._id, kind=KIND)
        self._ingest.detach(source, clean=False)
        source.problem = problem  # stands until the broker is back

    def close(self) -> None:
        """The node stops: what is settled is acknowledged first. The session stays at the broker."""
        if self._link is not None:
            self._link.end("this node stops")

    # --- seen from outside

    def status(self) -> dict[str, Any]:
        """One entry of `brokers` in the status document."""
        link = self._link
        machine = link.machine if link is not None and link.up_ms is not None else None
        return {
            "name": self.name,
            "address": self.settings.address,
            "connected": machine is not None,
            "since_ms": self._since_ms,
            "problem": self._problem,
            "version": LEVELS[machine.level] if machine is not None else None,
            "session_present": machine.present if machine is not None else None,
            "session_expiry_s": machine.session_expiry_s if machine is not None and machine.level == 5 else None,
            "granted": dict(machine.granted) if machine is not None else {},
            "refused": {name: str(why) for name, why in machine.refused.items()} if machine is not None else {},
            "inflight": link.inflight if link is not None else 0,
            "connects": self.connects,
            "sessions_lost": self.sessions_lost,
            "retained": self.retained + (link.retained if link is not None else 0),
            "oversize": self.oversize,
            "unreadable": self.unreadable,
            "rebirths_asked": self._rebirths.asked if self._rebirths is not None else 0,
        }


def open_brokers(
    ingest: Ingest, brokers: Sequence[MqttClientSettings], *, net: Net, disk: Disk, random: Random, emit: Emit
) -> list[BrokerClient]:
    """A client for each broker; before the listener, for what the log's tail says of brokers is not its own."""
    memo = SessionMemo(disk, ingest.store.data_dir)
    return [BrokerClient(ingest, each, net=net, random=random, memo=memo, emit=emit) for each in brokers]
