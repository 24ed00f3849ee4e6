"""One TCP connection to a broker: a socket around `ClientSession`, acknowledgements after fsync.

The protocol object parses everything that a readable event brought, hands the messages to the pipeline as one list, and
writes all acknowledgements in one write per pass of the loop. No task, future or queue per message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.ingest.messages import Messages, Packed, numbers
from gateway.ingest.mqtt.sparkplug import command_packet
from gateway.ingest.mqtt.state import HELD, QOS, QOS_2, RETAIN
from gateway.ingest.mqtt_client.core import ClientSession, Phase
from gateway.ingest.mqtt_client.packets import acknowledge
from gateway.ingest.mqtt_client.rebirths import BrokerRebirths
from gateway.ingest.pipeline import Ingest
from gateway.ingest.repeats import DupMemory
from gateway.ingest.sources import Source
from gateway.ingest.uses import message_crc
from headwater.errors import PeerError

_log = logging.getLogger("headwater.mqtt_client")

SWEEP_S = 0.5
STUCK_WRITE_MS = 30_000.0

# why reads are paused
INFLIGHT, FULL, WRITING = 1, 2, 4


class Link(asyncio.Protocol):
    """Lives from connect to loss; then `lost` holds the reason."""

    def __init__(
        self,
        ingest: Ingest,
        machine: ClientSession,
        memory: DupMemory,
        *,
        inflight_max: int,
        memory_is_live: bool,
        on_phase: Callable[[Link], None],
        on_numbering: Callable[[], None],
        rebirths: BrokerRebirths | None = None,
    ) -> None:
        """`memory_is_live`: it knows which acknowledgements were written, as one from before a crash does not.

        `on_phase` is called after each pass that changed what the session is or what the broker grants, `on_numbering`
        when the first message has shown how the broker numbers. `rebirths` None: no Sparkplug node is asked for any.
        """
        self.machine = machine
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.bad_version = False
        self.up_ms: float | None = None  # monotonic, since when messages may come
        self.source: Source | None = None
        self.inflight = 0
        self.retained = 0  # copies that were passed over
        self._ingest = ingest
        self._memory = memory
        self._inflight_max = inflight_max
        self._memory_is_live = memory_is_live
        self._on_phase = on_phase
        self._on_numbering = on_numbering
        self._rebirths = rebirths
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._paused = 0
        self._acks: list[Packed] = []
        self._acked = b""
        self._first = True  # no message with an identifier has come yet
        self._stuck_ms: float | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def now_ms(self) -> float:
        return self._ingest.clock.monotonic_ms()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket gives
        self._transport = transport
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._write()

    def data_received(self, data: bytes) -> None:
        machine = self.machine
        before = self._told()
        problem: str | None = None
        try:
            machine.feed(data, self.now_ms())
        except PeerError as error:
            problem = error.what
            self.bad_version = getattr(error, "bad_version", False)
        if self._told() != before:
            self._on_phase(self)
        # what was whole before an error still counts: a QoS 0 message would not come again
        if machine.messages:
            messages, machine.messages = machine.messages, Messages()
            self._arrived(messages)
        self._write()
        if problem is not None:
            self.end(problem)

    def _told(self) -> tuple[object, ...]:
        """What the broker has told and the driver should hear of."""
        machine = self.machine
        return machine.phase, len(machine.granted), len(machine.refused), machine.oversize, machine.unreadable

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._stuck_ms = self.now_ms()
        self._pause(WRITING)

    def resume_writing(self) -> None:
        self._stuck_ms = None
        self._resume(WRITING)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection broke: {exc}" if exc is not None else "it closed the connection")
        self._transport = None

    # --- one pass

    def _arrived(self, messages: Messages) -> None:
        if self._first:
            self._look_at_numbering(messages)
        kept = messages
        copies = Messages()
        if messages.any_flags & RETAIN:
            # a copy that the broker kept for whoever subscribes: how old it is, at most its device has said
            kept = messages.where(lambda message: not message[3] & RETAIN)
            if self.machine.plan.retained:
                copies = messages.where(lambda message: bool(message[3] & RETAIN))
                copies.copies = True
            self.retained += len(messages) - len(kept) - len(copies)
        if self._rebirths is not None:
            kept = self._rebirths.without_own(kept)
        self._take(messages, kept, copies)

    def _look_at_numbering(self, messages: Messages) -> None:
        """A broker that numbers anew for each connection (RabbitMQ does) gives old identifiers to other messages.

        Such a one begins with 1. So does one that keeps identifiers while its very first message is unacknowledged:
        then both mean the same messages. After a crash nobody knows what was acknowledged, so that 1 tells nothing.
        """
        for topic, payload, packet_id, _ in messages:
            if not packet_id:
                continue
            self._first = False
            crc = message_crc(topic.encode(), payload)
            if packet_id == 1 and not (self._memory_is_live and self._memory.is_unwritten(1, crc)):
                self._memory.connection_began(resumed=False)
                self.machine.held.clear()
                self.machine.held.update([message[2] for message in messages if message[3] & QOS == QOS_2])
                messages.flags = [flags & ~HELD for flags in messages.flags]
                messages.any_flags &= ~HELD
            self._on_numbering()
            return

    def _take(self, messages: Messages, kept: Messages, copies: Messages) -> None:
        """Store `kept` and retained `copies`; then acknowledge all `messages`, in their order [MQTT-4.6.0-2]."""
        if self.source is None:
            return
        self.inflight += len(messages)
        parts = [kept, copies] if copies else [kept]
        settled: list[bool] = []

        def done(stored: bool) -> None:  # noqa: FBT001 - the pipeline's own signature
            settled.append(stored)
            if len(settled) == len(parts):
                self._done(messages, stored=all(settled))

        for part in parts:
            self._ingest.take(self.source, part, done)
        if self.inflight > self._inflight_max:
            self._pause(INFLIGHT)
        if self._ingest.full and not self._paused & FULL:
            self._pause(FULL)
            self._ingest.when_room(lambda: self._resume(FULL))

    def _done(self, messages: Messages, *, stored: bool) -> None:
        """The messages are settled; acknowledgements wait for the end of this pass, to go in one write."""
        self.inflight -= len(messages)
        acks, ids = acknowledge(messages)
        if not stored:
            lost = numbers(ids)
            self.machine.held.difference_update(lost)
            self._memory.forget(lost)
            self.end("the disk failed before its messages were safe: they are asked for again")
            return
        if self._transport is None or self.machine.phase is Phase.CLOSED:
            return  # they stand as unacknowledged in the session's memory
        if acks:
            if not self._acks:
                self._loop.call_soon(self.flush)
            self._acks.append(acks)
            self._acked += ids
        if self._paused & INFLIGHT and self.inflight * 2 <= self._inflight_max:
            self._resume(INFLIGHT)

    def flush(self) -> None:
        """Write the acknowledgements that have gathered."""
        if self._acks and self._transport is not None and self.machine.phase is not Phase.CLOSED:
            now_ms = self.now_ms()
            self._transport.write(b"".join(self._acks) if len(self._acks) > 1 else self._acks[0])
            self._memory.written(self._acked, now_ms)
            self.machine.sent(now_ms)
        self._acks, self._acked = [], b""

    def _write(self) -> None:
        out = self.machine.out
        if out and self._transport is not None:
            self._transport.write(b"".join(out))
            self.machine.sent(self.now_ms())
        out.clear()

    def _pause(self, reason: int) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self.machine.heard(self.now_ms())  # the silence was ours
            self._transport.resume_reading()

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        now_ms = self.now_ms()
        try:
            self.machine.tick(now_ms, reading=not self._paused)
        except PeerError as error:
            self.end(error.what, dead=True)
            return
        if self._rebirths is not None and self.machine.phase is Phase.UP:
            self._ask_rebirths(self._rebirths, now_ms)
        self._write()
        if self._stuck_ms is not None and now_ms - self._stuck_ms > STUCK_WRITE_MS:
            self.end("it does not read its acknowledgements", dead=True)

    def _ask_rebirths(self, rebirths: BrokerRebirths, now_ms: float) -> None:
        machine = self.machine

        def publish(topic: str, payload: bytes) -> None:
            machine.send(command_packet(machine.level, topic, payload))

        for group, node, reason in rebirths.ask(machine.granted, publish, now_ms, self._ingest.clock.wall_ms()):
            _log.info("Sparkplug node %s/%s: asked for its births through the broker (%s)", group, node, reason)

    # --- the end

    def end(self, problem: str, *, dead: bool = False) -> None:
        """Close. `dead`: nobody is there to say good-bye to."""
        if self.lost.done():
            return
        self.flush()
        if not dead:
            self.machine.end()
            self._write()
        self.machine.phase = Phase.CLOSED
        self._memory.connection_ended(self.now_ms())
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._transport is not None:
            if dead:
                self._transport.abort()
            elif not self._transport.is_closing():
                self._transport.close()
        self.lost.set_result(problem)
