"""The served APIs: one request in, one answer out, now or when the disk, the log or a deadline allows it. Sans-IO.

The driver (`gateway.serve`) hands over each request with a `reply` to call with the answer's body, or with None for
"no answer" (a Produce with `acks` 0). Requests of one connection are handed over in order, and none while an earlier
one other than a Produce waits for its answer, as Kafka does; answers to pipelined Produces may come in any order.
A `PeerError` from `handle` closes the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.wire import alterations, cluster, deletions, epochs, fetch, guard, offsets, produce, sasl, topics
from gateway.wire.alike import Run
from gateway.wire.broker import Broker, Handler
from gateway.wire.compiler import Body
from gateway.wire.groups import commits, listing, members
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request


def handle(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
    """Answer one request. Raises `PeerError` when the connection cannot go on."""
    broker.requests[request.api] += 1
    if peer.rights is not None:
        guard.handle(broker, request, peer, reply, _HANDLERS[request.api])
        return
    _HANDLERS[request.api](broker, request, peer, reply)


def append_run(broker: Broker, run: Run, peer: Peer) -> bool:
    """Have several Produces of one connection handled as one, if they may; see `produce.append_run`."""
    return peer.rights is None and produce.append_run(broker, run)


def _now(handler: Callable[[Broker, Request, Peer], Body]) -> Handler:
    """A handler whose answer never waits."""

    def handle(broker: Broker, request: Request, peer: Peer, reply: Reply) -> None:
        reply(handler(broker, request, peer))

    return handle


_HANDLERS: dict[ApiKey, Handler] = {
    ApiKey.PRODUCE: produce.produce,
    ApiKey.FETCH: fetch.fetch,
    ApiKey.LIST_OFFSETS: _now(offsets.list_offsets),
    ApiKey.METADATA: cluster.metadata,
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
    ApiKey.CREATE_TOPICS: topics.create_topics,
    ApiKey.DELETE_TOPICS: topics.delete_topics,
    ApiKey.DELETE_RECORDS: deletions.delete_records,
    ApiKey.INIT_PRODUCER_ID: lambda broker, request, peer, reply: broker.transactions.init(request, peer, reply),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _now(epochs.offset_for_leader_epoch),
    ApiKey.ADD_PARTITIONS_TO_TXN: lambda broker, request, peer, reply: broker.transactions.add(request, peer, reply),
    ApiKey.END_TXN: lambda broker, request, peer, reply: broker.transactions.end(request, peer, reply),
    ApiKey.DESCRIBE_CONFIGS: _now(topics.describe_configs),
    ApiKey.CREATE_PARTITIONS: alterations.create_partitions,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: alterations.incremental_alter_configs,
    ApiKey.DESCRIBE_CLUSTER: _now(cluster.describe_cluster),
}
