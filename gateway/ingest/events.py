"""Node life in topic `events`: start, stop, link up and down, for people and for the books (design §4)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.log.partition import PartitionLog
from gateway.log.records import NO_HEADERS, encode_batch
from gateway.log.store import LogStore
from headwater.clock import Clock

EVENTS_TOPIC = "events"


class Events:
    """Appends to topic `events`: key the node, value `{"kind", "at", …detail}`, synced with the next group."""

    def __init__(self, store: LogStore, *, node: str, clock: Clock) -> None:
        self._log = ensure_partition(store, EVENTS_TOPIC)
        self._key = node.encode()
        self._clock = clock

    def emit(self, kind: str, **detail: object) -> None:
        """Raises `StorageError` when the log cannot take it; `detail` must be JSON."""
        now_ms = self._clock.wall_ms()
        value = msgspec.json.encode({"kind": kind, "at": now_ms, **detail})
        self._log.append(encode_batch([(now_ms, self._key, value, NO_HEADERS)]), now_ms=now_ms, verify=False)

    def when_synced(self, callback: Callable[[], None], failed: Callable[[], None] | None = None) -> None:
        """Call back once everything emitted so far is on disk; `failed` instead where a failed sync has lost it."""
        self._log.when_synced(self._log.log_end_offset, callback, failed)


def ensure_partition(store: LogStore, topic: str) -> PartitionLog:
    """Partition 0 of a topic, which is made when it is not there."""
    log = store.partition(topic, 0)
    return log if log is not None else store.create_topic(topic, partitions=1).partitions[0]
