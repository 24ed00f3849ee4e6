"""All logs of a node: its data directory, its topics, and the flusher that they share.

`<data>/log/` holds what Apache Kafka would write and nothing else; `<data>/node/` holds what is Headwater's own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

from gateway.log import clean_stop
from gateway.log.adoption import find_unlisted
from gateway.log.catalog import Catalog, TopicEntry, write_properties
from gateway.log.deleting import Deletions
from gateway.log.directories import Directories
from gateway.log.flusher import CallInLoop, Flusher
from gateway.log.lock import DirectoryLock
from gateway.log.offset_files import OffsetFiles
from gateway.log.partition import PartitionLog
from gateway.log.reserve import make_start_reserve, release_for_start
from gateway.log.segment import SegmentCache
from gateway.log.settings import LogSettings
from gateway.log.steps import Step, run_steps
from gateway.log.topic import Topic, findings, topics_status
from gateway.log.topic_changes import TopicChanges
from headwater.clock import Clock
from headwater.disk import Disk, RealDisk
from headwater.errors import UserError

__all__ = ["LogStore", "Topic"]

_log = logging.getLogger(__name__)


class LogStore(TopicChanges):
    """Open one per data directory with `open`; all methods are for the loop's thread."""

    def __init__(
        self,
        data_dir: str,
        *,
        settings: LogSettings,
        disk: Disk,
        clock: Clock,
        call_in_loop: CallInLoop,
        call_soon: CallInLoop | None,
        alarm: Callable[[str], None] | None,
    ) -> None:
        self._log_dir = f"{data_dir}/log"
        self._node_dir = f"{data_dir}/node"
        self._settings = settings
        self._disk = disk
        self._clock = clock
        self._alarm = alarm or _log.error
        self._cache = SegmentCache(disk, settings.open_segments_max)
        self._catalog = Catalog(disk, data_dir)
        self.flusher = Flusher(
            interval_ms=settings.fsync_interval_ms,
            hurry_bytes=settings.fsync_bytes,
            clock=clock,
            call_in_loop=call_in_loop,
            call_soon=call_soon,
        )
        self._lock: DirectoryLock | None = None
        self._offsets = OffsetFiles(disk, self._log_dir)
        self._deletions = Deletions(self._catalog, self._offsets, self.partition, self._alarm)
        self._topics: dict[str, Topic] = {}
        self._coming: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._closed = False
        self.cluster_id = ""
        self.directory_id = ""
        self.node = ""
        self.stopped_cleanly = False
        self._directories = Directories(
            disk,
            log_dir=self._log_dir,
            node_dir=self._node_dir,
            settings=settings,
            cache=self._cache,
            offsets=self._offsets,
            clock=clock,
            flusher=self.flusher,
            alarm=self._alarm,
        )
        self.unread = self._directories.unread
        self.recovered = self._directories.recovered

    @classmethod
    def open(
        cls,
        data_dir: str,
        *,
        node: str,
        settings: LogSettings,
        disk: Disk,
        clock: Clock,
        call_in_loop: CallInLoop,
        call_soon: CallInLoop | None = None,
        flusher: Literal["thread", "manual"] = "thread",
        alarm: Callable[[str], None] | None = None,
        trust_clean_stop: bool = True,
    ) -> LogStore:
        """Recover every partition, whatever state the last stop left; `recovered` says what was found.

        `call_in_loop` is for the flusher's thread, `call_soon` for the loop itself: a sync begins after what it is at.
        `manual` leaves syncing to `flush_now`. `alarm` hears, in the loop, of disks that fail. Without
        `trust_clean_stop` active segments are read whole after a clean stop too. Raises `UserError` when the directory
        is another node's, in use, not writable, of a newer format, or not Headwater's.
        """
        store = cls(
            data_dir.rstrip("/"),
            settings=settings,
            disk=disk,
            clock=clock,
            call_in_loop=call_in_loop,
            call_soon=call_soon,
            alarm=alarm,
        )
        try:
            store._prepare(node)
            if not trust_clean_stop:
                store._directories.clean_ends = {}
            store._recover_all()
            if settings.reserve_bytes:
                make_start_reserve(disk, store._node_dir)  # now: what comes in next would take the room
        except OSError as error:
            store._release()
            raise UserError(
                f"Cannot use {error.filename or data_dir} as data: {error.strerror or error}",
                hint="Make data_dir a directory that this user may write." if error.errno in _NOT_ALLOWED else "",
            ) from error
        except BaseException:
            store._release()
            raise
        if flusher == "thread":
            store.flusher.start()
        return store

    # -- opening

    def _prepare(self, node: str) -> None:
        disk = self._disk
        data_dir = self._node_dir.removesuffix("/node")
        if disk.exists(data_dir) and not disk.exists(self._node_dir):
            self._catalog.refuse_foreign()
        # Nothing is touched, and no reserve given up, in a directory that is refused.
        self._catalog.check(node)
        with contextlib.suppress(OSError):  # a new directory, or no room for a lock file: again below
            self._hold()
        disk.make_directory(self._node_dir)
        release_for_start(disk, self._node_dir)
        self._hold()
        identity = self._catalog.identify(node)
        self.node, self.cluster_id, self.directory_id = identity.node, identity.cluster_id, identity.directory_id
        disk.make_directory(self._log_dir)
        self.stopped_cleanly = self._directories.prepare()
        write_properties(disk, self._log_dir, identity, self._clock.wall_ms())

    def _hold(self) -> None:
        """Keep other processes out."""
        if self._lock is None and isinstance(self._disk, RealDisk):
            self._lock = DirectoryLock(f"{self._node_dir}/lock")

    def _recover_all(self) -> None:
        self._offsets.read()
        known = self._catalog.read_topics()
        for name, entry in list(self._catalog.topics.items()):
            if entry.deleting:
                self._directories.remove(name, entry.partitions)
                self._catalog.drop_topic(name)
        self._adopt_directories(known=known)
        # From now on a directory without an entry is a topic that nobody was told of.
        self._catalog.save()
        for name, entry in sorted(self._catalog.topics.items()):
            self._topics[name] = self._topic(name, entry, self._directories.open(name, entry))
        self._deletions.end_vain()
        self._write_checkpoints()

    def _adopt_directories(self, *, known: bool) -> None:
        for name, entry in find_unlisted(self._disk, self._log_dir, self._catalog.topics, list_known=known).items():
            self._alarm(f"Topic {name} was missing from the list of topics; found its directories again")
            if (name, 0) in self._offsets.cleaned:
                entry = TopicEntry(id=entry.id, partitions=entry.partitions, config={"cleanup.policy": "compact"})
            self._catalog.put_topic(name, entry)

    @property
    def disk(self) -> Disk:
        return self._disk

    @property
    def settings(self) -> LogSettings:
        return self._settings

    @property
    def offsets(self) -> OffsetFiles:
        """The checkpoints of log starts and compaction, which upkeep keeps."""
        return self._offsets

    @property
    def data_dir(self) -> str:
        """Absolute; journals of other parts live in its `node/`."""
        return self._node_dir.removesuffix("/node")

    # -- topics

    @property
    def topics(self) -> Mapping[str, Topic]:
        return self._topics

    def partition(self, topic: str, index: int) -> PartitionLog | None:
        found = self._topics.get(topic)
        return found.partitions[index] if found is not None and 0 <= index < len(found.partitions) else None

    def delete_records(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Begin logs at later offsets, at most their synced ends; durable when it returns. Raises `LogFailed`.

        Upkeep tells of it and removes the files.
        """
        run_steps(self.deleting_records(starts))

    def deleting_records(self, starts: Mapping[tuple[str, int], int]) -> Generator[Step, None, None]:
        """The same in steps, for a loop that others wait for: nothing is deleted before the end."""
        return self._deletions.steps(starts)

    # -- durability

    def flush_now(self) -> None:
        """Sync everything written so far, and tell every waiter, before returning."""
        self.flusher.flush_now()

    def _write_checkpoints(self) -> None:
        logs = {(log.topic, log.index): log for topic in self._topics.values() for log in topic.partitions}
        self._offsets.write_all(
            {key: log.synced_offset for key, log in logs.items()},
            {key: log.log_start_offset for key, log in logs.items() if log.log_start_offset > 0},
        )

    def close(self) -> None:
        """Sync, write the files of a clean stop, give the directory back. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.flusher.stop()
        try:
            self.flush_now()
            logs = [log for topic in self._topics.values() for log in topic.partitions]
            ends = {(log.topic, log.index): end for log in logs if (end := log.close()) is not None}
            self._write_checkpoints()
            clean_stop.leave(self._disk, self._log_dir, self._node_dir, ends)
        except OSError as error:
            self._alarm(f"The log could not be closed cleanly: {error.strerror or error}")
        finally:
            self._release()

    def _release(self) -> None:
        self._cache.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def status(self) -> dict[str, Any]:
        """For people and metrics: offsets and bytes per topic and partition, and how syncing goes."""
        syncs = self.flusher.status() | {"stopped_cleanly": self.stopped_cleanly}
        return syncs | {"recovered": findings(self.recovered), "topics": topics_status(self._topics)}


_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
