"""What can go wrong with the log, one class per answer that a client of it must give.

`gateway.wire` maps each to Kafka's error code; ingest and replication act on the class itself.
"""

# ruff: noqa: N818  (the names are Kafka's for the same answers)
from __future__ import annotations

from headwater.errors import HeadwaterError, PeerError, StorageError, UserError


class CorruptBatch(PeerError):
    """Bytes that are no whole, valid record batch of format 2."""


class MissingCodec(HeadwaterError):
    """A batch is compressed with a codec whose library is not installed."""


class OutOfOrderSequence(PeerError):
    """A known idempotent producer skipped sequence numbers: something between its batches is lost."""


class DuplicateSequence(PeerError):
    """A repeat older than the five batches that are remembered: it is in the log, its offset is no longer known."""


class InvalidProducerEpoch(PeerError):
    """A producer that a newer one with the same id has fenced."""


class InvalidTransactionState(PeerError):
    """A batch outside a transaction from a producer that has one open, or a marker from a client."""


class OffsetOutOfRange(PeerError):
    """A read below the log's start or above its end."""


class LogFailed(StorageError):
    """The disk refused a write or a sync; nothing new is acknowledged until the log has a good file again."""


class InvalidTopic(UserError):
    """A topic name, partition count or setting that no log can have."""


class TopicExists(UserError):
    """A topic of that name is there already."""
