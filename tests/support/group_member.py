"""A consumer group's member that does nothing on its own, over a `World`."""

from __future__ import annotations

from typing import Any

from gateway.wire.peer import Peer
from gateway.wire.schema import SERVED, ApiKey
from tests.support.broker_world import Asked, Body, World

SESSION_MS = 10_000
REBALANCE_MS = 60_000


class GroupMember:
    """Each has a connection of its own, as clients do; `id` and `generation` are what it was last told."""

    def __init__(self, world: World, group: str = "g", *, instance: str | None = None, version: int = 9) -> None:
        self.world = world
        self.group = group
        self.instance = instance
        self.version = version
        self.peer = Peer(f"10.0.0.{id(self) % 250}:1234")
        self.id = ""
        self.generation = -1
        self.protocols: list[tuple[str, bytes]] = [("range", b"topics")]

    def version_of(self, api: ApiKey) -> int:
        return min(self.version, SERVED[api][1])

    def ask_join(self, *, member_id: str | None = None, **change: Any) -> Asked:
        protocols = [{"name": name, "metadata": metadata} for name, metadata in self.protocols]
        body = {
            "group_id": self.group,
            "session_timeout_ms": SESSION_MS,
            "rebalance_timeout_ms": REBALANCE_MS,
            "member_id": self.id if member_id is None else member_id,
            "group_instance_id": self.instance,
            "protocol_type": "consumer",
            "protocols": protocols,
            **change,
        }
        return self.world.send(ApiKey.JOIN_GROUP, body, version=self.version_of(ApiKey.JOIN_GROUP), peer=self.peer)

    def ask_first_join(self, **change: Any) -> Asked:
        """Join with the id that the first answer hands out (KIP-394)."""
        if self.instance is None and self.version >= 4:
            handed = self.ask_join(**change).body
            assert handed["error_code"] == 79
            self.id = handed["member_id"]
        return self.ask_join(**change)

    def joined(self, asked: Asked) -> Body:
        """What the answer says, taken in."""
        self.world.settle()
        body = asked.body
        if body["error_code"] == 0:
            self.id, self.generation = body["member_id"], body["generation_id"]
        return body

    def join(self, **change: Any) -> Body:
        return self.joined(self.ask_first_join(**change) if not self.id else self.ask_join(**change))

    def ask_sync(self, assignments: dict[str, bytes] | None = None, **change: Any) -> Asked:
        body = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance,
            "assignments": [{"member_id": key, "assignment": value} for key, value in (assignments or {}).items()],
            **change,
        }
        return self.world.send(ApiKey.SYNC_GROUP, body, version=self.version_of(ApiKey.SYNC_GROUP), peer=self.peer)

    def sync(self, assignments: dict[str, bytes] | None = None, **change: Any) -> tuple[int, bytes]:
        asked = self.ask_sync(assignments, **change)
        self.world.settle()
        return asked.body["error_code"], asked.body["assignment"]

    def beat(self, **change: Any) -> int:
        body = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance,
            **change,
        }
        version = self.version_of(ApiKey.HEARTBEAT)
        code: int = self.world.send(ApiKey.HEARTBEAT, body, version=version, peer=self.peer).body["error_code"]
        return code

    def leave(self) -> int:
        version = self.version_of(ApiKey.LEAVE_GROUP)
        member = {"member_id": self.id, "group_instance_id": self.instance}
        body = {"group_id": self.group, "member_id": self.id, "members": [member]}
        found = self.world.call(ApiKey.LEAVE_GROUP, body, version=version, peer=self.peer)
        code: int = found["error_code"] if version < 3 else found["members"][0]["error_code"]
        return code

    def commit(self, offset: int, topic: str = "t", partition: int = 0, **change: Any) -> int:
        asked = self.ask_commit(offset, topic, partition, **change)
        self.world.settle()
        code: int = asked.body["topics"][0]["partitions"][0]["error_code"]
        return code

    def ask_commit(self, offset: int, topic: str = "t", partition: int = 0, **change: Any) -> Asked:
        metadata = change.pop("metadata", "")
        part = {
            "partition_index": partition,
            "committed_offset": offset,
            "committed_leader_epoch": change.pop("epoch", -1),
            "committed_metadata": metadata,
        }
        body = {
            "group_id": self.group,
            "generation_id_or_member_epoch": self.generation,
            "member_id": self.id,
            "group_instance_id": self.instance,
            "topics": [{"name": topic, "partitions": [part]}],
            **change,
        }
        version = max(self.version_of(ApiKey.OFFSET_COMMIT), 2)
        return self.world.send(ApiKey.OFFSET_COMMIT, body, version=version, peer=self.peer)


def committed(
    world: World, group: str = "g", topic: str = "t", partition: int = 0, *, version: int = 9, stable: bool = False
) -> Body:
    """What OffsetFetch says of one partition."""
    topics = [{"name": topic, "partition_indexes": [partition]}]
    if version < 8:
        body = {"group_id": group, "topics": topics, "require_stable": stable}
        found = world.send(ApiKey.OFFSET_FETCH, body, version=version).body["topics"]
    else:
        body = {"groups": [{"group_id": group, "topics": topics}], "require_stable": stable}
        found = world.send(ApiKey.OFFSET_FETCH, body, version=version).body["groups"][0]["topics"]
    part: Body = found[0]["partitions"][0]
    return part


def gather(*members: GroupMember) -> None:
    """Bring members into one stable generation that the first of them leads; each is assigned its own id."""
    first, *others = members
    if not first.id:
        first.join()
    waiting = [each.ask_join() if each.id else each.ask_first_join() for each in others]
    first.joined(first.ask_join())
    for each, asked in zip(others, waiting, strict=True):
        each.joined(asked)
    syncing = [each.ask_sync() for each in others]
    assert first.sync({each.id: each.id.encode() for each in members})[0] == 0
    assert [asked.body["assignment"] for asked in syncing] == [each.id.encode() for each in others]


def described(world: World, group: str = "g", *, version: int = 5) -> Body:
    (found,) = world.call(ApiKey.DESCRIBE_GROUPS, {"groups": [group]}, version=version)["groups"]
    return dict(found)
