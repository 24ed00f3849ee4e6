"""Stands before the handlers for clients whose rights are limited: what they may not do never reaches a handler.

Each API has one guard in the table. It lets a request pass as it is, answers it, or takes out what is denied and puts
the refusals into the answer of the rest. Codes and conditions are those of Kafka's KafkaApis and its AclAuthorizer.
Clients of the node's own listener have no rights object and do not come here.
"""

from __future__ import annotations

from gateway.wire.broker import Broker, Handler
from gateway.wire.guards import data, groups, topics
from gateway.wire.guards.verdict import Guard, Rest, passes
from gateway.wire.peer import Peer, Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request


def handle(broker: Broker, request: Request, peer: Peer, reply: Reply, handler: Handler) -> None:
    """Have a request handled as far as its sender may."""
    assert peer.rights is not None  # noqa: S101 - the caller looked
    verdict = GUARDS[request.api](peer.rights, request, broker)
    if verdict is None:
        handler(broker, request, peer, reply)
        return
    broker.denied += not isinstance(verdict, Rest) or verdict.refuses
    if isinstance(verdict, Rest):
        patch = verdict.patch
        handler(broker, request._replace(body=verdict.body), peer, lambda body: reply(body and patch(body)))
    else:
        reply(verdict)


GUARDS: dict[ApiKey, Guard] = {
    ApiKey.API_VERSIONS: passes,
    ApiKey.SASL_HANDSHAKE: passes,
    ApiKey.SASL_AUTHENTICATE: passes,
    ApiKey.DESCRIBE_CLUSTER: passes,
    ApiKey.PRODUCE: data.produce,
    ApiKey.FETCH: data.fetch,
    ApiKey.LIST_OFFSETS: data.list_offsets,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: data.epochs,
    ApiKey.METADATA: data.metadata,
    ApiKey.FIND_COORDINATOR: data.find_coordinator,
    ApiKey.INIT_PRODUCER_ID: data.init_producer_id,
    ApiKey.ADD_PARTITIONS_TO_TXN: data.add_partitions,
    ApiKey.ADD_OFFSETS_TO_TXN: data.add_offsets,
    ApiKey.END_TXN: data.end_txn,
    ApiKey.TXN_OFFSET_COMMIT: groups.txn_offset_commit,
    ApiKey.OFFSET_COMMIT: groups.offset_commit,
    ApiKey.OFFSET_FETCH: groups.offset_fetch,
    ApiKey.JOIN_GROUP: groups.join,
    ApiKey.SYNC_GROUP: groups.sync,
    ApiKey.HEARTBEAT: groups.member,
    ApiKey.LEAVE_GROUP: groups.member,
    ApiKey.DESCRIBE_GROUPS: groups.describe_groups,
    ApiKey.LIST_GROUPS: groups.list_groups,
    ApiKey.DELETE_GROUPS: groups.delete_groups,
    ApiKey.CREATE_TOPICS: topics.create_topics,
    ApiKey.DELETE_TOPICS: topics.delete_topics,
    ApiKey.DELETE_RECORDS: topics.delete_records,
    ApiKey.CREATE_PARTITIONS: topics.create_partitions,
    ApiKey.DESCRIBE_CONFIGS: topics.describe_configs,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: topics.alter_configs,
}
