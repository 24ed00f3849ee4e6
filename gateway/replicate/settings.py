"""What an operator may set about replication to the central (section `[central]`)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gateway.tls_settings import ClientSecuritySettings
from headwater.errors import UserError
from headwater.net import parse_address

PositiveMs = Annotated[int, msgspec.Meta(ge=1)]

KAFKA_PORT = 9092


class UplinkSettings(ClientSecuritySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replication to the central. Without this section a node replicates nothing."""

    bootstrap_servers: str
    """Brokers to ask first, `host:port` separated by commas; the central names the others itself."""
    topic_prefix: str = ""
    """Stands before topics and the transactional id on a cluster shared with others; empty on a Headwater node."""
    topics: tuple[str, ...] = ("readings", "deadletter", "events", "devices")
    """Topics of this node that are copied to the central."""
    transaction_timeout_ms: PositiveMs = 10_000
    """After this long the central aborts a transaction that this node left open (`transaction.timeout.ms`)."""
    request_timeout_ms: PositiveMs = 3_000
    """A request without an answer for this long counts as a broken link."""
    backoff_max_ms: PositiveMs = 1_000
    """The longest pause between two attempts; pauses grow up to it, with jitter."""
    linger_ms: Annotated[int, msgspec.Meta(ge=0)] = 250
    """At least this long between two transactions while readings trickle; a backlog is not held back."""
    transaction_bytes_max: Annotated[int, msgspec.Meta(ge=16 << 10, le=64 << 20)] = 4 << 20
    """The most bytes of the local log that one transaction carries."""
    rate_bytes_per_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The most bytes of the local log that are replicated a second; 0 is without limit."""
    compression: Literal["none", "zstd"] = "zstd"
    """Of the copies: zstd (level 1), or none."""

    def addresses(self) -> list[tuple[str, int]]:
        """The bootstrap brokers; raises `UserError` when there is none or one is no address."""
        texts = [text.strip() for text in self.bootstrap_servers.split(",") if text.strip()]
        if not texts:
            raise UserError(
                "[central] bootstrap_servers is empty",
                hint='Write the central\'s address, for example bootstrap_servers = "central.example:9092".',
            )
        return [parse_address(text, default_port=KAFKA_PORT) for text in texts]
