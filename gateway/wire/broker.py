"""What the served APIs share: the log, who waits, groups and transactions, deadlines and counters. Sans-IO.

Requests come in through `gateway.wire.apis`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random, SystemRandom
from typing import Any

from gateway.log.steps import Step, run_steps
from gateway.log.store import LogStore
from gateway.wire.compiler import Body
from gateway.wire.coordinator import Coordinator
from gateway.wire.groups.registry import Groups
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request
from gateway.wire.settings import KafkaSettings
from gateway.wire.timers import Timers
from gateway.wire.waits import Waits
from headwater.clock import Clock


class Broker:
    """Serves one `LogStore` over the Kafka protocol, as the only node of its cluster.

    `advertised` is where clients are sent; a driver that listens on a free port sets it when it knows the port.
    After a start call `tick` at the times that `timers` asks for.
    """

    def __init__(
        self,
        store: LogStore,
        clock: Clock,
        *,
        node_id: int = 1,
        settings: KafkaSettings | None = None,
        advertised: tuple[str, int] = ("127.0.0.1", 9092),
        random: Random | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.node_id = node_id
        self.settings = settings or KafkaSettings()
        self.advertised = advertised
        self.random = random or SystemRandom()  # for member ids, which no restart may give again
        self.timers = Timers()
        self.requests: dict[ApiKey, int] = dict.fromkeys(ApiKey, 0)
        self.produced_bytes = 0
        self.produced_batches = 0
        self.fetched_bytes = 0
        # Long work in steps, for whom, and who is told what came of it; a driver with a loop has it done beside
        # everything else, and ends the connection when it fails.
        self.work: Callable[[Generator[Step, None, Body], Peer, Reply], None] = lambda steps, _, done: done(
            run_steps(steps)
        )
        # The longest answer that may be made just now; a driver that knows what its clients have not read says so.
        self.answer_bytes_max: Callable[[], int] = lambda: self.settings.fetch_bytes_max
        self.refused_batches = 0
        self.denied = 0
        self.unreadable: set[tuple[str, int]] = set()
        self.waits = Waits(self.timers, clock)
        self.groups = Groups(store, clock, self.timers, self.settings)
        # After the groups: its recovery ends some of their offsets.
        self.transactions = Coordinator(store, clock, self.timers, self.settings, self.groups)
        self.groups.settle(self.transactions.holding(OFFSETS_TOPIC))

    def disconnected(self, peer: Peer) -> None:
        """A connection has ended: its long polls end, its abandoned transactions will be aborted."""
        peer.close()
        self.transactions.disconnected(peer)

    def tick(self) -> None:
        """Run the deadlines that are due."""
        self.timers.run(self.clock.monotonic_ms())

    def status(self) -> dict[str, Any]:
        """Counters since the start, for the status document and metrics."""
        return {
            "requests": {key.name.lower(): count for key, count in self.requests.items() if count},
            "produced_batches": self.produced_batches,
            "produced_bytes": self.produced_bytes,
            "refused_batches": self.refused_batches,
            "fetched_bytes": self.fetched_bytes,
            "denied": self.denied,
            "waiting_for_sync": len(self.waits.open),
            "transactions": self.transactions.status(),
            "groups": self.groups.status(),
        }


Handler = Callable[[Broker, Request, Peer, Reply], None]
"""Answers one request of one API, by `reply`."""
