"""Moves the replicator's bytes: the only module of replication that knows an event loop.

One connection per broker, closed as soon as anything on any of them fails: a connection that has seen a black hole may
stay silent for good. Nothing that happens here reaches ingest: a failure is logged and replication begins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Protocol

from gateway.log.columns import decode_batch
from gateway.log.records import Record, encode_batch, encode_headers, split_batches
from gateway.replicate.actions import Ack, Action, Bury, Event, Failed, Request, Send, Stop, Tick, Wait
from gateway.replicate.core import Replicator
from gateway.replicate.gather import Source, source_key
from gateway.replicate.journal import RunJournal
from gateway.replicate.link import Emit
from gateway.replicate.requests import PRODUCE_VERSION_MAX, Address
from gateway.replicate.settings import UplinkSettings
from gateway.replicate.start import Choice
from gateway.wire.channel import Channel
from gateway.wire.schema import ApiKey
from gateway.wire.sign_in import ClientSecurity
from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.net import Net

DEADLETTER = "deadletter"
FAILED_PAUSE_S = 5.0

_log = logging.getLogger(__name__)


class Partition(Source, Protocol):
    """The part of `gateway.log.partition.PartitionLog` that the driver uses."""

    def append(self, batches: bytes | bytearray | memoryview, *, now_ms: int, verify: bool = True) -> Any: ...
    def when_synced(
        self, end_offset: int, callback: Callable[[], None], failed: Callable[[], None] | None = None
    ) -> None: ...
    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class Topic(Protocol):
    """The part of `gateway.log.store.Topic` that the driver uses."""

    @property
    def partitions(self) -> Sequence[Partition]: ...


class Store(Protocol):
    """The part of `gateway.log.store.LogStore` that the driver uses."""

    @property
    def topics(self) -> Mapping[str, Topic]: ...
    @property
    def directory_id(self) -> str: ...
    def create_topic(self, name: str) -> Topic: ...


def first_offsets(store: Store, topics: Sequence[str] = ()) -> dict[str, int]:
    """Where each partition's log ends: what `RunJournal.begin` enters for the new run.

    Of every topic, replicated or not: the list of replicated ones may change, and a gap in the journal would look as if
    the partition had begun in that run. `topics` may be named by callers and leaves nothing out. Kafka's internal
    topics (`__…`) are never replicated.
    """
    logs = [log for name, topic in store.topics.items() if not name.startswith("__") for log in topic.partitions]
    return {source_key(log): log.log_end_offset for log in logs}


class Uplink:
    """Replication of one node to its central: `run` until cancelled; `status` may be asked at any time."""

    def __init__(
        self,
        store: Store,
        journal: RunJournal,
        settings: UplinkSettings,
        *,
        node: str,
        net: Net,
        clock: Clock,
        random: Random,
        version: str = "0",
        emit: Emit = lambda kind, **detail: None,
    ) -> None:
        """`emit(kind, **detail)` takes link events for topic `events`. Raises `UserError` for bad addresses."""
        self._store = store
        self._journal = journal
        self._settings = settings
        self._security = ClientSecurity(settings, "[central]")
        self._node = node
        self._net = net
        self._clock = clock
        self._random = random
        self._version = version
        self._emit = emit
        self._channels: dict[Address, Channel] = {}
        self._watched: dict[str, Callable[[], None]] = {}
        self._news = asyncio.Event()
        self._choice: Choice | None = None
        self._core = self._fresh()

    async def run(self) -> None:
        """Replicate until cancelled."""
        try:
            while True:
                try:
                    await self._drive()
                except Exception:  # a defect here must not take ingest along; it is logged whole and begun again
                    _log.exception("%s: replication failed and begins again in %.0f s", self._node, FAILED_PAUSE_S)
                    self._close_channels()
                    await asyncio.sleep(FAILED_PAUSE_S)
                    link = self._core.link
                    self._core = self._fresh()
                    self._core.link = link
        finally:
            self._close_channels()
            for unsubscribe in self._watched.values():
                unsubscribe()
            self._watched.clear()

    def choose(self, choice: Choice) -> None:
        """The operator's choice while replication is stopped: `resend` everything, or `accept` what the central has."""
        self._choice = choice
        self._news.set()

    def status(self) -> dict[str, Any]:
        """For the status document: state, backlog, counters; times are wall clock in ms, None for never."""
        link = self._core.link
        records, backlog_bytes = self._core.backlog()
        return {
            "bootstrap": self._settings.bootstrap_servers,
            "state": link.state,
            "since_ms": self._wall(link.since_ms),
            "backlog_records": records,
            "backlog_bytes": backlog_bytes,
            "last_success_ms": None if link.last_success_ms is None else self._wall(link.last_success_ms),
            "transactions": link.transactions,
            "records": link.records,
            "fenced": link.fenced,
            "aborted": link.aborted,
            "gone": link.gone,
            "refused": link.buried,
            "error": link.error,
        }

    def settled(self, topic: str, partition: int) -> int | None:
        """The offset below which the central has all of a partition, as far as known; None: it is not replicated."""
        if topic not in self._settings.topics:
            return None
        return self._core.settled().get(f"{topic}/{partition}", 0)

    # --- one action after the other --------------------------------------------------------------------------------

    async def _drive(self) -> None:
        action = self._core.start(self._clock.monotonic_ms(), self._clock.wall_ms())
        while True:
            if isinstance(action, Stop):
                action = await self._stopped()
                continue
            event = await self._perform(action)
            action = self._core.handle(event, self._clock.monotonic_ms(), self._clock.wall_ms())

    async def _perform(self, action: Action) -> Event:
        if isinstance(action, Send):
            return await self._send(action.requests)
        if isinstance(action, Bury):
            return await self._bury(action)
        if isinstance(action, Wait):
            await self._wait(action.until_ms - self._clock.monotonic_ms())
        return Tick()

    async def _send(self, requests: Sequence[Request]) -> Event:
        try:
            for address in dict.fromkeys(request.address for request in requests):
                await self._connected(address)
            # Each call writes before it first waits, so requests leave in the order of this list.
            calls = [self._channels[request.address].call(request.api, request.body) for request in requests]
            bodies = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        except (OSError, HeadwaterError) as error:  # TimeoutError and ConnectionError are OSErrors
            self._close_channels()
            cause = error.what if isinstance(error, HeadwaterError) else str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                cause = f"no answer within {self._settings.request_timeout_ms / 1000:g} s"
            return Failed(cause, timed_out=isinstance(error, TimeoutError))
        return Ack(tuple(bodies))

    async def _connected(self, address: Address) -> None:
        channel = self._channels.get(address)
        if channel is None or channel.closed:
            channel = await Channel.connect(
                self._net,
                *address,
                client_id=f"headwater-{self._node}",
                request_timeout_ms=self._settings.request_timeout_ms,
                security=self._security,
            )
            produce = channel.versions.get(ApiKey.PRODUCE, PRODUCE_VERSION_MAX)
            channel.versions[ApiKey.PRODUCE] = min(produce, PRODUCE_VERSION_MAX)
            self._channels[address] = channel

    async def _wait(self, delay_ms: float) -> None:
        if delay_ms <= 0:
            await asyncio.sleep(0)
            return
        self._watch()
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _stopped(self) -> Action:
        self._close_channels()
        while self._choice is None:
            self._news.clear()
            await self._news.wait()
        choice, self._choice = self._choice, None
        return self._core.choose(choice, self._clock.monotonic_ms())

    async def _bury(self, verdict: Bury) -> Event:
        source = self._sources().get(verdict.source)
        if source is None or source.topic == DEADLETTER:
            return Ack()  # a dead letter that is refused stays in this node's own topic, and is counted as gone
        try:
            record = self._dead_letter(source, verdict)
            target = (
                self._store.topics[DEADLETTER]
                if DEADLETTER in self._store.topics
                else self._store.create_topic(DEADLETTER)
            ).partitions[0]
            appended = target.append(encode_batch([record]), now_ms=self._clock.wall_ms())
        except HeadwaterError as error:
            return Failed(f"dead-lettering {verdict.identity}: {error.what}")
        synced: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        target.when_synced(
            appended.next_offset, partial(_settle, synced, Ack()), partial(_settle, synced, Failed("the disk failed"))
        )
        return await synced

    def _dead_letter(self, source: Source, verdict: Bury) -> Record:
        value: bytes | None = None
        for batch in split_batches(source.read(verdict.offset, 1).data)[:1]:
            columns = decode_batch(batch)
            if verdict.offset in columns.offsets:
                value = columns.values[columns.offsets.index(verdict.offset)]
        wall_ms = self._clock.wall_ms()
        headers = [
            ("reason", verdict.reason.encode()),
            ("decoder", b"uplink"),
            ("source", verdict.identity.encode()),
            ("time", b"%d" % wall_ms),
        ]
        return wall_ms, f"{self._node}/uplink".encode(), value, encode_headers(headers)

    # --- what it sends, where from and over which channels ---------------------------------------------------------

    def _fresh(self) -> Replicator:
        return Replicator(
            node=self._node,
            version=self._version,
            log_id=self._store.directory_id,
            settings=self._settings,
            journal=self._journal,
            sources=self._sources,
            random=self._random,
            emit=self._emit,
            now=self._clock.monotonic_ms(),
        )

    def _sources(self) -> dict[str, Source]:
        return dict(self._logs())

    def _logs(self) -> dict[str, Partition]:
        topics = self._store.topics
        logs = [log for name in self._settings.topics if name in topics for log in topics[name].partitions]
        return {source_key(log): log for log in logs}

    def _watch(self) -> None:
        for key, log in self._logs().items():
            if key not in self._watched:
                self._watched[key] = log.subscribe(self._news.set)

    def _wall(self, monotonic_ms: float) -> int:
        return int(self._clock.wall_ms() - (self._clock.monotonic_ms() - monotonic_ms))

    def _close_channels(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


def _settle(future: asyncio.Future[Event], event: Event) -> None:
    if not future.done():
        future.set_result(event)
