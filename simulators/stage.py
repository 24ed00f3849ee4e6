"""Plays a scenario, or a process's part of it: messages out, acknowledgements in, everything into a ledger."""

from __future__ import annotations

import heapq
from random import Random
from typing import Any, NamedTuple

import msgspec

from headwater.clock import Clock
from simulators.crowd import Crowd
from simulators.herd import Herd, Message
from simulators.ledger import Ledger
from simulators.publisher import Publisher, Token
from simulators.scenario import FleetSpec, Scenario
from simulators.serial_line import SerialLine

COMMIT_EVERY_MS = 250.0
AHEAD_MAX = 2_000
"""At full speed: messages that may wait for the gateway, over all clients."""
BURST = 500
"""Messages taken from the devices before the sockets are looked after again."""


class Stakes(msgspec.Struct, frozen=True, kw_only=True):
    """How a scenario is played. `speed` None: as fast as the gateway acknowledges; `seconds` None: until told."""

    mqtt: tuple[str, int]
    seed: int
    start_ms: int
    speed: float | None = 1.0
    seconds: float | None = None
    part: int = 0
    parts: int = 1
    credentials: tuple[str, str] | None = None


class _Flap(NamedTuple):
    """When a client's link changes next."""

    at_ms: float
    n: int
    publisher: Publisher
    spec: FleetSpec
    random: Random


class Stage:
    """One process's clients and serial lines; its owner calls `step` again and again."""

    def __init__(self, scenario: Scenario, stakes: Stakes, ledger: Ledger | None, clock: Clock) -> None:
        self._stakes, self._ledger, self._clock = stakes, ledger, clock
        self.sent = self.acknowledged = self.repeated = self.held = self.said = self.unheard = 0
        self.garbage_sent = self.garbage_acknowledged = self.cuts = 0
        self.herd = Herd(scenario, start_ms=stakes.start_ms, seed=stakes.seed, part=stakes.part, parts=stakes.parts)
        self._publishers: dict[tuple[str, int], Publisher] = {}
        self.lines: dict[tuple[str, int], SerialLine] = {}
        self._flaps: list[_Flap] = []
        self._begun_ms = clock.monotonic_ms()
        for device in self.herd.devices:
            self._connect(device.spec, device.client)
        self.publishers = list(self._publishers.values())
        self._crowd = Crowd(self.publishers)
        self.behind_ms = 0.0
        """How late this process is with what its devices have to say."""
        self._pending: dict[Token, Message] = {}
        self._queued = 0
        self._commit_ms = self._begun_ms

    def _connect(self, spec: FleetSpec, client: int) -> None:
        key = (spec.name, client)
        if key in self.lines or key in self._publishers:
            return
        if spec.transport == "serial":
            link = spec.link.replace("{fleet}", spec.name).replace("{line}", str(client + 1))
            self.lines[key] = SerialLine(link)
            return
        name = f"{spec.name}-{client + 1:04d}"
        publisher = self._publishers[key] = Publisher(
            name,
            *self._stakes.mqtt,
            on_sent=self._on_sent,
            on_acked=self._on_acked,
            qos=spec.qos,
            credentials=self._stakes.credentials,
        )
        random = Random(f"link {name} {self._stakes.seed}")  # noqa: S311 - a simulation
        if random.random() < spec.links.flapping:
            at_ms = self._begun_ms + random.expovariate(1.0 / spec.links.up_ms)
            heapq.heappush(self._flaps, _Flap(at_ms, len(self._flaps), publisher, spec, random))

    # what the clients tell

    def _on_sent(self, token: Token) -> None:
        message = self._pending.pop(token)
        self._queued -= 1
        self._remember(message)

    def _remember(self, message: Message) -> None:
        """A message has reached the wire."""
        ledger, name = self._ledger, message.device.name
        match message.kind:
            case "reading":
                self.sent += 1
                if ledger is not None:
                    ledger.sent(name, message.number, message.ts, message.payload)
            case "again":
                self.repeated += 1
                if ledger is not None:
                    ledger.repeated(name, message.number)
            case "garbage":
                self.garbage_sent += 1
                if ledger is not None:
                    ledger.garbage(name, message.number, message.ts, message.payload)

    def _on_acked(self, token: Token) -> None:
        kind, device, number = token
        if kind == "garbage":
            self.garbage_acknowledged += 1
            if self._ledger is not None:
                self._ledger.garbage_acked(device, number, self._clock.wall_ms())
        elif kind == "reading":
            self.acknowledged += 1
            if self._ledger is not None:
                self._ledger.acked(device, number, self._clock.wall_ms())

    # playing

    def now_ms(self) -> float:
        """The scenario's time, Unix milliseconds."""
        if self._stakes.speed is None:
            return self.herd.next_ms
        return self._stakes.start_ms + (self._clock.monotonic_ms() - self._begun_ms) * self._stakes.speed

    @property
    def over(self) -> bool:
        """Whether the scenario's time is up."""
        seconds = self._stakes.seconds
        return seconds is not None and min(self.now_ms(), self.herd.next_ms) >= self._stakes.start_ms + seconds * 1000.0

    def _send(self, message: Message) -> None:
        key = (message.device.spec.name, message.device.client)
        line = self.lines.get(key)
        if line is not None:
            self.said += message.kind == "reading"
            heard = line.write(message.payload.replace(b"\n", b" ") + b"\n")
            self.unheard += not heard
            self._remember(message)
            return
        token = (message.kind, message.device.name, message.number)
        self._pending[token] = message
        self._queued += 1
        publisher = self._publishers[key]
        if not publisher.publish(message.device.topic, message.payload, token):
            del self._pending[token]
            self._queued -= 1
            self.held += 1
        self._crowd.touch(publisher)

    def _speak(self) -> None:
        room = BURST
        if self._stakes.speed is None:
            room = min(room, AHEAD_MAX - self._queued)
        if room <= 0:
            return
        now_ms = self.now_ms()
        for message in self.herd.due(now_ms, room):
            self._send(message)
        self.behind_ms = max(0.0, now_ms - self.herd.next_ms)

    def _flap(self, now_ms: float) -> None:
        while self._flaps and self._flaps[0].at_ms <= now_ms:
            flap = heapq.heappop(self._flaps)
            down_ms = flap.random.expovariate(1.0 / flap.spec.links.down_ms)
            flap.publisher.cut(now_ms + down_ms)
            self._crowd.touch(flap.publisher)
            self.cuts += 1
            up_ms = flap.random.expovariate(1.0 / flap.spec.links.up_ms)
            heapq.heappush(self._flaps, flap._replace(at_ms=now_ms + down_ms + up_ms))

    def step(self, extra_fds: list[int], *, measuring: bool = True) -> list[int]:
        """Wait until something is due or ready and do it; the `extra_fds` that have become readable."""
        now_ms = self._clock.monotonic_ms()
        if measuring:
            self._speak()
            self._flap(now_ms)
        self._crowd.tick(now_ms)
        if now_ms >= self._commit_ms:
            self._commit_ms = now_ms + COMMIT_EVERY_MS
            self.commit()
        speed = self._stakes.speed
        if not measuring or (speed is None and self._queued):
            timeout_ms = 10.0
        elif speed is None:
            timeout_ms = 0.0
        else:
            timeout_ms = min(50.0, max(0.0, (self.herd.next_ms - self.now_ms()) / speed))
        return self._crowd.wait(extra_fds, timeout_ms)

    @property
    def unacknowledged(self) -> int:
        """Messages taken from the devices and not yet acknowledged."""
        return sum(publisher.inflight + publisher.queued for publisher in self.publishers)

    def counters(self) -> dict[str, Any]:
        """Everything counted since the start, for people and for the ledger."""
        publishers = self.publishers
        return {
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "repeated": self.repeated,
            "missing": self.herd.missing,
            "garbage_sent": self.garbage_sent,
            "garbage_acknowledged": self.garbage_acknowledged,
            "said": self.said,
            "unheard": self.unheard,
            "queued": self._queued,
            "inflight": sum(publisher.inflight for publisher in publishers),
            "resent": sum(publisher.resent for publisher in publishers),
            "connects": sum(publisher.connects for publisher in publishers),
            "sessions_present": sum(publisher.sessions_present for publisher in publishers),
            "connected": sum(publisher.connected for publisher in publishers),
            "cuts": self.cuts,
            "held": self.held,
            "behind_ms": round(self.behind_ms),
            "problem": next((publisher.problem for publisher in publishers if publisher.problem), ""),
        }

    def commit(self) -> None:
        """Bring the ledger up to date."""
        if self._ledger is None:
            return
        for name, value in self.counters().items():
            if name in ("resent", "connects", "sessions_present", "held", "missing", "unheard", "cuts"):
                self._ledger.total(f"{name}/{self._stakes.part}", value)
        self._ledger.commit()

    def close(self) -> None:
        """A clean DISCONNECT of every client, the end of every line."""
        for publisher in self.publishers:
            publisher.disconnect()
        for line in self.lines.values():
            line.close()
        self.commit()
        self._crowd.close()
