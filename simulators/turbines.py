"""A wind farm's turbines as MQTT devices: signals out, acknowledgements in, everything into a ledger.

Each turbine is one MQTT client with a persistent session (client id = its name), publishing JSON to
`farm/<name>/telemetry` at QoS 1. Its readings carry their own time `ts` (Unix milliseconds) and a sequence number
`seq` from 1, without gaps. Three turbines are special: one can overheat, one's clock is an hour fast, and one
sends, now and then, bytes that are no JSON.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from headwater.clock import Clock
from simulators.garbage import garbage_payload
from simulators.ledger import Ledger
from simulators.publisher import Publisher, Token, wait_for
from simulators.signals import Turbine, Wind

FAST_CLOCK_MS = 3_600_000
COMMIT_EVERY_MS = 250.0
TICK_EVERY_MS = 100.0


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the farm does; turbines are numbered from 1, 0 means none."""

    turbines: int = 12
    rate_hz: float = 10.0
    seed: int = 1
    overheating: int = 7
    fast_clock: int = 3
    garbage: int = 11
    garbage_every_ms: float = 7000.0  # 0: only on command


def turbine_name(number: int) -> str:
    """`turbine-01`, …; also its MQTT client id."""
    return f"turbine-{number:02d}"


class Fleet:
    """All turbines of the farm, in one thread; the owner calls `step` again and again."""

    def __init__(self, settings: FleetSettings, host: str, port: int, ledger: Ledger | None, clock: Clock) -> None:
        self.settings, self._ledger, self._clock = settings, ledger, clock
        self.address = (host, port)
        self.sent = self.acknowledged = self.garbage_sent = self.garbage_acknowledged = self.held = 0
        wind = Wind(settings.seed)
        numbers = range(1, settings.turbines + 1)
        self._turbines = [Turbine(turbine_name(number), settings.seed, wind) for number in numbers]
        self.publishers = [self._publisher(turbine.name, host, port) for turbine in self._turbines]
        self._seqs = [0] * settings.turbines
        self._payloads: dict[Token, tuple[int, bytes]] = {}
        self._random = Random(f"garbage {settings.seed}")  # noqa: S311 - a simulation
        self._garbage_n = 0
        start_ms = clock.monotonic_ms()
        self._step_ms = 1000.0 / settings.rate_hz
        # Turbines take turns within the period, as devices that were never switched on together do.
        self._due_ms = [start_ms + self._step_ms * i / settings.turbines for i in range(settings.turbines)]
        self._commit_ms = self._tick_ms = start_ms
        self._garbage_ms = start_ms + settings.garbage_every_ms if settings.garbage_every_ms else float("inf")

    def _publisher(self, name: str, host: str, port: int) -> Publisher:
        return Publisher(name, host, port, on_sent=self._on_sent, on_acked=self._on_acked)

    def _on_sent(self, token: Token) -> None:
        kind, device, number = token
        ts, payload = self._payloads.pop(token)
        if kind == "r":
            self.sent += 1
        else:
            self.garbage_sent += 1
        if self._ledger is not None:
            write = self._ledger.sent if kind == "r" else self._ledger.garbage
            write(device, number, ts, payload)

    def _on_acked(self, token: Token) -> None:
        kind, device, number = token
        if kind == "r":
            self.acknowledged += 1
        else:
            self.garbage_acknowledged += 1
        if self._ledger is not None:
            write = self._ledger.acked if kind == "r" else self._ledger.garbage_acked
            write(device, number, self._clock.wall_ms())

    def overheat(self, *, on: bool) -> None:
        """Let the gearbox of the turbine chosen for it run hot, or recover."""
        if 0 < self.settings.overheating <= len(self._turbines):
            self._turbines[self.settings.overheating - 1].overheating = on

    def send_garbage(self) -> None:
        """One message that nobody can decode."""
        if not 0 < self.settings.garbage <= len(self._turbines):
            return
        name = turbine_name(self.settings.garbage)
        self._garbage_n += 1
        token = ("g", name, self._garbage_n)
        payload = garbage_payload(self._random, self._garbage_n)
        self._send(self.settings.garbage - 1, token, self._clock.wall_ms(), payload)

    def _send(self, index: int, token: Token, ts: int, payload: bytes) -> bool:
        self._payloads[token] = (ts, payload)
        if self.publishers[index].publish(f"farm/{self._turbines[index].name}/telemetry", payload, token):
            return True
        del self._payloads[token]
        self.held += 1
        return False

    def measure(self, now_ms: float) -> None:
        """Take and send every reading that is due at monotonic `now_ms`, with the time at which it was due."""
        wall_ms = self._clock.wall_ms()
        for index, due_ms in enumerate(self._due_ms):
            while due_ms <= now_ms:
                at_ms = wall_ms - round(now_ms - due_ms)
                if index == self.settings.fast_clock - 1:
                    at_ms += FAST_CLOCK_MS
                turbine = self._turbines[index]
                seq = self._seqs[index] + 1
                payload = msgspec.json.encode({"ts": at_ms, "seq": seq, **turbine.at(at_ms)._asdict()})
                if self._send(index, ("r", turbine.name, seq), at_ms, payload):
                    self._seqs[index] = seq
                due_ms += self._step_ms
            self._due_ms[index] = due_ms

    def step(self, extra_fds: list[int], *, measuring: bool = True) -> list[int]:
        """Wait until something is due or ready and do it; the `extra_fds` that have become readable."""
        now_ms = self._clock.monotonic_ms()
        if measuring:
            self.measure(now_ms)
        if now_ms >= self._garbage_ms and measuring:
            self._garbage_ms = now_ms + self.settings.garbage_every_ms
            self.send_garbage()
        if now_ms >= self._tick_ms:
            self._tick_ms = now_ms + TICK_EVERY_MS
            for publisher in self.publishers:
                publisher.tick(now_ms)
        if now_ms >= self._commit_ms:
            self._commit_ms = now_ms + COMMIT_EVERY_MS
            self.commit()
        until_ms = min(min(self._due_ms) if measuring else self._tick_ms, self._tick_ms)
        return wait_for(self.publishers, extra_fds, max(0.0, until_ms - self._clock.monotonic_ms()))

    @property
    def over(self) -> bool:
        """A wind farm goes on until it is told to stop."""
        return False

    @property
    def unacknowledged(self) -> int:
        """Messages taken from the turbines and not yet acknowledged, garbage included."""
        return sum(publisher.inflight + publisher.queued for publisher in self.publishers)

    def counters(self) -> dict[str, Any]:
        """Everything counted since the start, for people and for the ledger."""
        publishers = self.publishers
        return {
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "inflight": sum(publisher.inflight for publisher in publishers),
            "queued": sum(publisher.queued for publisher in publishers),
            "garbage_sent": self.garbage_sent,
            "garbage_acknowledged": self.garbage_acknowledged,
            "resent": sum(publisher.resent for publisher in publishers),
            "connects": sum(publisher.connects for publisher in publishers),
            "sessions_present": sum(publisher.sessions_present for publisher in publishers),
            "connected": sum(publisher.connected for publisher in publishers),
            "held": self.held,
            "problem": next((publisher.problem for publisher in publishers if publisher.problem), ""),
        }

    def commit(self) -> None:
        """Bring the ledger up to date."""
        if self._ledger is None:
            return
        for name, value in self.counters().items():
            if name in ("resent", "connects", "sessions_present", "held"):
                self._ledger.total(name, value)
        self._ledger.commit()

    def close(self) -> None:
        """A clean DISCONNECT of every turbine."""
        for publisher in self.publishers:
            publisher.disconnect()
        self.commit()
