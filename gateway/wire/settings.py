"""Settings of the Kafka listener: the table `[kafka]` of a node's configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=1)]
_Bytes = Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 30)]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how a node serves the Kafka protocol."""

    listen: str = "127.0.0.1:9092"
    """Address to listen on, host:port."""

    advertised: str | None = None
    """The host:port that clients are told; without it the listening address, for 0.0.0.0 the host's name."""

    connections_max: _Count = 500
    """Open connections; further ones are closed at once and counted."""

    connection_idle_ms: _Milliseconds = 600_000
    """A connection without a request for so long is closed: a peer behind a broken link never says goodbye."""

    frame_bytes_max: _Bytes = 32 << 20
    """The longest Produce request; every other request may have 1 MiB."""

    batch_bytes_max: _Bytes = 10 << 20
    """The longest record batch (Kafka's max.message.bytes)."""

    fetch_bytes_max: _Bytes = 16 << 20
    """The longest Fetch answer, whatever the client asks for; the first batch is always sent whole (KIP-74)."""

    auto_create_topics: bool = True
    """Create a topic when a client asks for its metadata."""

    partitions_default: _Count = 1
    """Partitions of a topic that is created without a number."""

    partitions: dict[str, _Count] = {}
    """Partitions by topic name, before `partitions_default`."""

    partitions_max: _Count = 1000
    """Partitions of all topics together; nothing is created past it."""

    transaction_timeout_max_ms: _Milliseconds = 900_000
    """The longest transaction time-out that a producer may ask for."""

    abandoned_transaction_ms: _Milliseconds = 2000
    """A transaction of a `headwater.` transactional id is aborted so long after its connection ended."""

    groups_max: _Count = 1000
    """Consumer groups; a new one past it is refused. Groups without members and offsets make room."""

    group_members_max: _Count = 200
    """Members of one consumer group."""

    group_metadata_bytes_max: _Bytes = 1 << 20
    """What the members of one consumer group may say of themselves, all together."""

    group_session_min_ms: _Milliseconds = 1000
    """The shortest session time-out that a group's member may ask for."""

    group_session_max_ms: _Milliseconds = 1_800_000
    """The longest session time-out that a group's member may ask for."""
