"""The broker: one request in, one answer out, now or when the disk, the log or a deadline allows it. Sans-IO.

The driver (`gateway.serve`) hands over each request with a `reply` to call with the answer's body, or with None for
"no answer" (a Produce with `acks` 0). Requests of one connection are handed over in order, and none while an earlier
one other than a Produce waits for its answer, as Kafka does; answers to pipelined Produces may come in any order.
A `PeerError` from `handle` closes the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any

from gateway.log.store import LogStore
from gateway.wire import alterations, cluster, epochs, fetch, guard, offsets, produce, sasl, topics
from gateway.wire.alike import Alike, Single
from gateway.wire.compiler import Body
from gateway.wire.coordinator import Coordinator
from gateway.wire.groups import commits, listing, members
from gateway.wire.groups.registry import Groups
from gateway.wire.internal_topics import OFFSETS_TOPIC
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request
from gateway.wire.settings import KafkaSettings
from gateway.wire.timers import Timers
from gateway.wire.waits import Waits
from headwater.clock import Clock

logger = logging.getLogger(__name__)

Handler = Callable[["Broker", Request, Peer, Reply], None]


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
        self.refused_batches = 0
        self.denied = 0
        self.unreadable: set[tuple[str, int]] = set()
        self.waits = Waits(self.timers, clock)
        self.groups = Groups(store, clock, self.timers, self.settings)
        # After the groups: its recovery ends some of their offsets.
        self.transactions = Coordinator(store, clock, self.timers, self.settings, self.groups)
        self.groups.settle(self.transactions.holding(OFFSETS_TOPIC))

    def handle(self, request: Request, peer: Peer, reply: Reply) -> None:
        """Answer one request. Raises `PeerError` when the connection cannot go on."""
        self.requests[request.api] += 1
        if peer.rights is not None:
            guard.handle(self, request, peer, reply, _HANDLERS[request.api])
            return
        _HANDLERS[request.api](self, request, peer, reply)

    def handle_alike(
        self, alike: Alike, singles: list[Single], peer: Peer, reply: Callable[[list[int], Body], None]
    ) -> bool:
        """Have several Produces of one connection handled as one, if they may; see `produce.produce_alike`."""
        return peer.rights is None and len(singles) > 1 and produce.produce_alike(self, alike, singles, reply)

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


def _now(handler: Callable[[Broker, Request, Peer], Body]) -> Handler:
    """A handler whose answer never waits."""

    def handle(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
        reply(handler(broker, request, peer))

    return handle


_HANDLERS: dict[ApiKey, Handler] = {
    ApiKey.PRODUCE: produce.produce,
    ApiKey.FETCH: fetch.fetch,
    ApiKey.LIST_OFFSETS: _now(offsets.list_offsets),
    ApiKey.METADATA: _now(cluster.metadata),
    ApiKey.OFFSET_COMMIT: commits.offset_commit,
    ApiKey.OFFSET_FETCH: _now(commits.offset_fetch),
    ApiKey.JOIN_GROUP: members.join,
    ApiKey.SYNC_GROUP: members.sync,
    ApiKey.HEARTBEAT: _now(members.heartbeat),
    ApiKey.LEAVE_GROUP: _now(members.leave),
    ApiKey.DESCRIBE_GROUPS: _now(listing.describe_groups),
    ApiKey.LIST_GROUPS: _now(listing.list_groups),
    ApiKey.DELETE_GROUPS: listing.delete_groups,
    ApiKey.TXN_OFFSET_COMMIT: commits.txn_offset_commit,
    ApiKey.ADD_OFFSETS_TO_TXN: lambda broker, request, peer, reply: broker.transactions.add_offsets(
        request, peer, reply
    ),
    ApiKey.FIND_COORDINATOR: _now(cluster.find_coordinator),
    ApiKey.API_VERSIONS: _now(cluster.api_versions),
    ApiKey.SASL_HANDSHAKE: lambda broker, request, peer, reply: reply(sasl.handshake_again(request)),
    ApiKey.SASL_AUTHENTICATE: lambda broker, request, peer, reply: reply(sasl.authenticate_again(request)),
    ApiKey.CREATE_TOPICS: _now(topics.create_topics),
    ApiKey.DELETE_TOPICS: _now(topics.delete_topics),
    ApiKey.INIT_PRODUCER_ID: lambda broker, request, peer, reply: broker.transactions.init(request, peer, reply),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _now(epochs.offset_for_leader_epoch),
    ApiKey.ADD_PARTITIONS_TO_TXN: lambda broker, request, peer, reply: broker.transactions.add(request, peer, reply),
    ApiKey.END_TXN: lambda broker, request, peer, reply: broker.transactions.end(request, peer, reply),
    ApiKey.DESCRIBE_CONFIGS: _now(topics.describe_configs),
    ApiKey.CREATE_PARTITIONS: _now(alterations.create_partitions),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: _now(alterations.incremental_alter_configs),
    ApiKey.DESCRIBE_CLUSTER: _now(cluster.describe_cluster),
}
