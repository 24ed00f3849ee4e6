"""Settings of parts that have not moved beside their part yet."""

from __future__ import annotations

import msgspec


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log on disk."""

    fsync_interval_ms: int = 50
    fsync_bytes: int = 65536
    segment_bytes: int = 64 << 20


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Kafka listener."""

    listen: str = "127.0.0.1:9092"
    advertised: str | None = None


class SerialSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One serial port."""

    port: str


class MarkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How event time is reported upstream."""

    every_ms: int = 1000
