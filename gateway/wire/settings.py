"""Settings of the Kafka listener: the table `[kafka]` of a node's configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gateway.tls_settings import ServerTlsSettings

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=1)]
_Bytes = Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 30)]


Protocol = Literal["SASL_SSL", "SSL", "SASL_PLAINTEXT", "PLAINTEXT"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Word = Literal[
    "all", "read", "write", "create", "delete", "alter", "describe", "cluster", "idempotent-write"
]  # fmt: skip


class KafkaListenerSettings(ServerTlsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more address at which Kafka clients are served, for those that show who they are: [[kafka.listeners]]."""

    listen: str
    """Address to listen on, host:port."""

    advertised: str | None = None
    """The host:port that its clients are told; without it the listening address, for 0.0.0.0 the host's name."""

    protocol: Protocol = "SASL_SSL"
    """Kafka's security.protocol: SASL_SSL (user and password over TLS), SSL (TLS with client certificates),
    SASL_PLAINTEXT and PLAINTEXT (both without TLS: for networks that nobody else is on)."""

    sasl_mechanisms: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    """How users may sign in. PLAIN sends the password, so without TLS it is left out."""

    principal_mapping: str = "CN"
    """The principal of a client certificate: CN (its common name), DN (its whole subject), or one rule as of Kafka's
    ssl.principal.mapping.rules, such as `RULE:^CN=([^,]+),OU=edges.*$/$1/L`."""


class KafkaAclRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What principals may do off loopback: one [[kafka.acl]]. What no rule allows is denied; deny wins."""

    principals: tuple[str, ...]
    """Users, or the names that certificates give; "*" is everyone who has shown who it is. ANONYMOUS is who came
    without a credential."""

    allow: tuple[Word, ...] = ()
    """Operations: read, write, create, delete, alter, describe, cluster, idempotent-write, or all."""

    deny: tuple[Word, ...] = ()
    """The same, forbidden; a rule has one of the two."""

    topics: tuple[str, ...] = ()
    """Names, or prefixes with a * at the end; %u stands for the principal's name."""

    groups: tuple[str, ...] = ()
    """Consumer groups, likewise."""

    transactional_ids: tuple[str, ...] = ()
    """Transactional ids, likewise."""

    cluster: bool = False
    """The node itself: create any topic, list all groups. A rule that names nothing is about everything."""


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how a node serves the Kafka protocol."""

    listen: str = "127.0.0.1:9092"
    """Address to listen on, host:port, without credentials. Clients on loopback may do anything. Off loopback only
    once an [[kafka.acl]] names ANONYMOUS; better, leave it and add a [[kafka.listeners]]."""

    advertised: str | None = None
    """The host:port that clients are told; without it the listening address, for 0.0.0.0 the host's name."""

    listeners: tuple[KafkaListenerSettings, ...] = ()
    """Further addresses, where clients show who they are."""

    acl: tuple[KafkaAclRule, ...] = ()
    """What principals may do."""

    users_file: str = ""
    """Users and hashes (0600), made by `headwater user add`; empty: `<data_dir>/node/users`."""

    unauthenticated_max: _Count = 100
    """Connections that have not shown who they are; one more ends the oldest of them."""

    authentication_timeout_ms: _Milliseconds = 10_000
    """A connection has so long from accept until it has shown who it is, and for its TLS handshake alone."""

    connections_max: _Count = 500
    """Open connections; further ones are closed at once and counted."""

    connection_idle_ms: _Milliseconds = 600_000
    """A connection without a request for so long is closed: a peer behind a broken link never says goodbye."""

    frame_bytes_max: _Bytes = 32 << 20
    """The longest Produce request; every other request may have 1 MiB."""

    batch_bytes_max: _Bytes = 10 << 20
    """The longest record batch (Kafka's max.message.bytes)."""

    fetch_bytes_max: _Bytes = 4 << 20
    """The longest Fetch answer, whatever the client asks for; the first batch is always sent whole (KIP-74)."""

    unsent_bytes_max: _Bytes = 32 << 20
    """Answers that clients have not read yet, of all connections together; past it the one with the most is closed."""

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

    groups_bytes_max: _Bytes = 32 << 20
    """What all consumer groups may keep in memory: members, assignments, offsets and their metadata, roughly counted.
    Past it members are refused with GROUP_MAX_SIZE_REACHED and commits with INVALID_COMMIT_OFFSET_SIZE."""

    transactional_ids_max: _Count = 10_000
    """Transactional ids that are remembered. Past it the one makes room that was idle longest; while none is, a new one
    is refused with COORDINATOR_NOT_AVAILABLE, which clients retry."""

    group_session_min_ms: _Milliseconds = 1000
    """The shortest session time-out that a group's member may ask for."""

    group_session_max_ms: _Milliseconds = 1_800_000
    """The longest session time-out that a group's member may ask for."""
