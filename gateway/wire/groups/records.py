"""Kafka's records of groups in `__consumer_offsets`: OffsetCommitKey/Value and GroupMetadataKey/Value.

A key begins with a version that says what it is: 0 and 1 an offset, 2 a group. Values of version 3 are written, which
every Kafka since 2.3 reads; versions 0 to 4 are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.wire.groups.group import Committed, Group, Member, Partition, State
from gateway.wire.versioned import decode_versioned, encode_versioned

_OFFSET_VERSION, _GROUP_VERSION, _VALUE_VERSION = 1, 2, 3


class Key(NamedTuple):
    """What a record is about: a group, or one partition's offset in it."""

    group_id: str
    partition: Partition | None


def encode_offset_key(group_id: str, where: Partition) -> bytes:
    """The key of a committed offset."""
    return encode_versioned(
        "OffsetCommitKey", _OFFSET_VERSION, {"group": group_id, "topic": where[0], "partition": where[1]}
    )


def encode_offset(committed: Committed) -> bytes:
    """The value of a committed offset."""
    body = {
        "offset": committed.offset,
        "leader_epoch": committed.leader_epoch,
        "metadata": committed.metadata,
        "commit_timestamp": committed.committed_ms,
    }
    return encode_versioned("OffsetCommitValue", _VALUE_VERSION, body)


def encode_group_key(group_id: str) -> bytes:
    """The key of a group's metadata."""
    return encode_versioned("GroupMetadataKey", _GROUP_VERSION, {"group": group_id})


def encode_group(group: Group, assignments: Mapping[str, bytes] | None = None) -> bytes:
    """The value of a group: its generation and members, with `assignments` in place of what they have."""
    members = [
        {
            "member_id": member.member_id,
            "group_instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": member.client_host,
            "rebalance_timeout": member.rebalance_timeout_ms,
            "session_timeout": member.session_timeout_ms,
            "subscription": member.metadata(group.protocol),
            "assignment": member.assignment if assignments is None else assignments.get(member.member_id, b""),
        }
        for member in group.members.values()
    ]
    body = {
        "protocol_type": group.protocol_type or "",
        "generation": group.generation,
        "protocol": group.protocol,
        "leader": group.leader_id,
        "current_state_timestamp": group.changed_ms,
        "members": members,
    }
    return encode_versioned("GroupMetadataValue", _VALUE_VERSION, body)


def decode_key(key: bytes) -> Key:
    """Raises `PeerError` for a record of another kind (KIP-848 and later ones have kinds of their own)."""
    version = int.from_bytes(key[:2], "big")
    if version == _GROUP_VERSION:
        return Key(str(decode_versioned("GroupMetadataKey", key)["group"]), None)
    body = decode_versioned("OffsetCommitKey", key)
    return Key(body["group"], (body["topic"], body["partition"]))


def decode_offset(value: bytes, position: int) -> Committed:
    """Raises `PeerError`."""
    body = decode_versioned("OffsetCommitValue", value)
    return Committed(body["offset"], body["leader_epoch"], body["metadata"], body["commit_timestamp"], position)


def apply_group(group: Group, value: bytes) -> None:
    """Bring `group` to what the value says; a group that had members then is stable. Raises `PeerError`."""
    body = decode_versioned("GroupMetadataValue", value)
    group.protocol_type = body["protocol_type"] or None
    group.protocol, group.leader_id = body["protocol"], body["leader"]
    group.generation, group.changed_ms = body["generation"], body["current_state_timestamp"]
    group.recorded = True
    group.members = {}
    group.instances = {}
    for each in body["members"]:
        session_ms = each["session_timeout"]
        member = Member(
            each["member_id"],
            each["group_instance_id"],
            each["client_id"],
            each["client_host"],
            session_ms,
            each["rebalance_timeout"] if each["rebalance_timeout"] >= 0 else session_ms,
            [(group.protocol or "", each["subscription"])],
            each["assignment"],
        )
        group.members[member.member_id] = member
        if member.instance_id is not None:
            group.instances[member.instance_id] = member.member_id
    group.state = State.STABLE if group.members else State.EMPTY
