"""All devices of a scenario, or of one process's part of it: who says what, and when it reaches the wire. Sans-IO.

Missing, doubled, late and overtaken readings are decided here, by seed. What waits for its moment stands in one
heap, ordered by time; its size follows from the rate and the longest delay, not from how long the scenario runs.
"""

from __future__ import annotations

import heapq
from random import Random
from typing import Literal, NamedTuple

import msgspec

from simulators.garbage import garbage_payload
from simulators.scenario import FleetSpec, Scenario
from simulators.shapes import Shape, Value

DUPLICATE_WITHIN_MS = 5_000
_encode = msgspec.json.encode
Kind = Literal["reading", "again", "garbage"]


class Message(NamedTuple):
    """One message that is due. `number`: a reading's sequence number, or which garbage it is; `ts`: as claimed."""

    kind: Kind
    device: SimulatedDevice
    number: int
    ts: int
    payload: bytes


class SimulatedDevice:
    """One device: its readings in the order in which it takes them."""

    def __init__(self, spec: FleetSpec, number: int, seed: int, start_ms: int) -> None:
        self.spec = spec
        self.name = f"{spec.name}-{number:04d}"
        self.client = (number - 1) // spec.devices_per_client
        """Which connection or line of its fleet it speaks through, from 0."""
        self.topic = spec.topic.replace("{device}", self.name).replace("{fleet}", spec.name)
        self.random = Random(f"{self.name} {seed}")  # noqa: S311 - a simulation
        self._start_ms = start_ms
        self._shapes = {name: Shape(signal, self.random, start_ms) for name, signal in spec.signals.items()}
        self._says_name = spec.transport == "serial" or "{device}" not in spec.topic
        self._seq = 0
        # Devices were never switched on together.
        self._phase_ms = start_ms + self.random.random() * spec.interval_ms
        self.due_ms = self._phase_ms
        self._clock_ahead_ms = self._clock()
        self._clock_rate = self.random.uniform(-1.0, 1.0) * spec.clocks.drift_ppm * 1e-6
        self._garbage = 0
        self.overtaken: list[tuple[int, Message]] = []
        """Readings that are held back, each with how many later ones go before it."""

    def _clock(self) -> int:
        clocks, draw = self.spec.clocks, self.random.random()
        if draw < clocks.fast:
            return clocks.fast_by_ms
        return -clocks.slow_by_ms if draw < clocks.fast + clocks.slow else 0

    def take(self) -> tuple[float, Message | None]:
        """The reading that is due, as (its moment, the message or None when it goes missing)."""
        spec, random, at_ms = self.spec, self.random, self.due_ms
        self._seq += 1
        self.due_ms = self._phase_ms + spec.interval_ms * (self._seq + random.random() * spec.jitter)
        ts = round(at_ms + self._clock_ahead_ms + (at_ms - self._start_ms) * self._clock_rate)
        body: dict[str, Value] = {"device": self.name} if self._says_name else {}
        body["ts"], body["seq"] = ts, self._seq
        for name, shape in self._shapes.items():
            body[name] = shape.at(at_ms)
        if random.random() < spec.delivery.missing:
            return at_ms, None
        return at_ms, Message("reading", self, self._seq, ts, _encode(body))

    def garbage(self, at_ms: float) -> Message:
        self._garbage += 1
        return Message("garbage", self, self._garbage, round(at_ms), garbage_payload(self.random, self._garbage))


class Herd:
    """The devices of part `part` of `parts`; `start_ms` is the scenario's first moment (Unix milliseconds)."""

    def __init__(self, scenario: Scenario, *, start_ms: int, seed: int, part: int = 0, parts: int = 1) -> None:
        self.missing = 0
        self.devices = [
            device
            for spec in scenario.fleets
            for device in (SimulatedDevice(spec, number, seed, start_ms) for number in range(1, spec.devices + 1))
            if device.client % parts == part  # a client and its devices stay together
        ]
        self._n = 0
        self._waiting: list[tuple[float, int, SimulatedDevice | Message]] = []
        for device in self.devices:
            self._push(device.due_ms, device)

    def _push(self, at_ms: float, what: SimulatedDevice | Message) -> None:
        self._n += 1
        heapq.heappush(self._waiting, (at_ms, self._n, what))

    @property
    def next_ms(self) -> float:
        """When something is due next."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def due(self, now_ms: float, most: int) -> list[Message]:
        """What is to be sent by `now_ms`, in order, `most` messages of it."""
        found: list[Message] = []
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ms and len(found) < most:
            what = heapq.heappop(waiting)[2]
            if isinstance(what, Message):
                found.append(what)
            else:
                self._measure(what)
        return found

    def _measure(self, device: SimulatedDevice) -> None:
        at_ms, message = device.take()
        self._push(device.due_ms, device)
        if message is None:
            self.missing += 1
            return
        delivery, random = device.spec.delivery, device.random
        if random.random() < delivery.out_of_order:
            device.overtaken.append((random.randint(1, delivery.out_of_order_by), message))
            return
        self._deliver(at_ms, message)
        # Behind the reading that overtook it last; one that is itself held back overtakes nobody.
        waiting, device.overtaken = device.overtaken, []
        for overtakers, earlier in waiting:
            if overtakers > 1:
                device.overtaken.append((overtakers - 1, earlier))
            else:
                self._deliver(at_ms, earlier)

    def _deliver(self, at_ms: float, message: Message) -> None:
        device = message.device
        delivery, random = device.spec.delivery, device.random
        sent_ms = at_ms
        if random.random() < delivery.late:
            sent_ms += random.random() * delivery.late_by_ms
        self._push(sent_ms, message)
        if random.random() < delivery.duplicate:
            self._push(sent_ms + random.random() * DUPLICATE_WITHIN_MS, message._replace(kind="again"))
        while random.random() < delivery.garbage:  # geometric: the share holds of all messages
            self._push(sent_ms, device.garbage(sent_ms))
