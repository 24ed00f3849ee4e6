"""Settings of the Kafka listener: the table `[kafka]` of a node's configuration."""

from __future__ import annotations

import msgspec


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how a node serves the Kafka protocol."""

    listen: str = "127.0.0.1:9092"
    """Address to listen on, host:port."""

    advertised: str | None = None
    """The host:port that clients are told; without it the listening address, for 0.0.0.0 the host's name."""

    connections_max: int = 500
    """Open connections; further ones are closed at once and counted."""

    connection_idle_ms: int = 600_000
    """A connection without a request for so long is closed: a peer behind a broken link never says goodbye."""

    frame_bytes_max: int = 32 << 20
    """The longest Produce request; every other request may have 1 MiB."""

    batch_bytes_max: int = 10 << 20
    """The longest record batch (Kafka's max.message.bytes)."""

    fetch_bytes_max: int = 16 << 20
    """The longest Fetch answer, whatever the client asks for; the first batch is always sent whole (KIP-74)."""

    auto_create_topics: bool = True
    """Create a topic when a client asks for its metadata."""

    partitions_default: int = 1
    """Partitions of a topic that is created without a number."""

    partitions: dict[str, int] = {}
    """Partitions by topic name, before `partitions_default`."""

    partitions_max: int = 1000
    """Partitions of all topics together; nothing is created past it."""

    transaction_timeout_max_ms: int = 900_000
    """The longest transaction time-out that a producer may ask for."""

    abandoned_transaction_ms: int = 2000
    """A transaction of a `headwater.` transactional id is aborted so long after its connection ended."""
