"""Steers devices by commands and reports about them: what every simulator of devices has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from headwater.clock import Clock
from simulators.control import Console
from simulators.options import check_answered
from simulators.publisher import Publisher

DRAIN_MS_MAX = 30_000.0


class Player(Protocol):
    """What is steered: devices that measure, send and wait for acknowledgements."""

    publishers: list[Publisher]

    @property
    def over(self) -> bool:
        """Whether there is nothing more to play."""
        ...

    @property
    def unacknowledged(self) -> int: ...
    def step(self, extra_fds: list[int], *, measuring: bool = True) -> list[int]: ...
    def counters(self) -> dict[str, Any]: ...
    def commit(self) -> None: ...


class Director:
    """`pause`, `resume` and `stop` by itself; `orders` are the player's own, by the words of the command."""

    def __init__(
        self,
        player: Player,
        console: Console,
        clock: Clock,
        address: tuple[str, int],
        *,
        report_every_ms: float,
        orders: Mapping[tuple[str, ...], Callable[[], None]] | None = None,
    ) -> None:
        self._player, self._console, self._clock, self._address = player, console, clock, address
        self._report_every_ms = report_every_ms
        self._orders = orders or {}
        self._measuring = True
        self._draining = self._stopping = False
        self._drain_until_ms = self._report_ms = 0.0
        self._started_ms = clock.monotonic_ms()

    def obey(self, command: Sequence[str]) -> None:
        match list(command):
            case ["resume"]:
                self._measuring, self._draining = True, False
            case ["pause"] | ["stop"]:
                self.drain(stopping=command[0] == "stop")
            case words if (order := self._orders.get(tuple(words))) is not None:
                order()
            case words:
                self._console.say("unknown", {"command": " ".join(words)})

    def drain(self, *, stopping: bool) -> None:
        """Take no more readings; wait for acknowledgements, `DRAIN_MS_MAX` at most."""
        self._measuring, self._draining = False, True
        self._stopping |= stopping
        self._drain_until_ms = self._clock.monotonic_ms() + DRAIN_MS_MAX

    def run(self) -> None:
        """Until told to stop, or all is played. Raises `UserError` when no gateway has ever answered."""
        player = self._player
        while True:
            if player.step(self._console.inputs, measuring=self._measuring):
                for command in self._console.commands():
                    self.obey(command)
            now_ms = self._clock.monotonic_ms()
            if now_ms >= self._report_ms:
                self._report_ms = now_ms + self._report_every_ms
                self._console.say("counters", player.counters())
                if player.publishers:
                    check_answered(player.publishers, self._address, now_ms - self._started_ms)
            if self._measuring and player.over:
                self.drain(stopping=True)
            if self._draining and (not player.unacknowledged or now_ms >= self._drain_until_ms):
                self._draining = False
                player.commit()
                self._console.say("drained", player.counters())
            if self._stopping and not self._draining:
                return
