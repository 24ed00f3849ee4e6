"""The directories of partitions: opened and recovered, and removed, with the files that lie beside them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

from gateway.log import checkpoints, clean_stop
from gateway.log.catalog import TopicEntry
from gateway.log.errors import LogFailed
from gateway.log.files import PartitionFiles
from gateway.log.flusher import Flusher
from gateway.log.offset_files import OffsetFiles, log_start
from gateway.log.partition import PartitionLog
from gateway.log.proofread import Unread
from gateway.log.recovery import Outcome, Recovery
from gateway.log.segment import SegmentCache
from gateway.log.segments import Segments
from gateway.log.settings import LogSettings
from gateway.log.steps import Step
from gateway.log.topic_config import lenient_config
from headwater.clock import Clock
from headwater.disk import Disk, read_or_none

_log = logging.getLogger(__name__)
_BESIDE = ("chain", "aborted", "rewritten")  # folders below `<data>/node/` with a file per partition


class Directories:
    """`recovered` and `unread` gather what opening found; `clean_ends` is what a clean stop left, see `prepare`."""

    def __init__(
        self,
        disk: Disk,
        *,
        log_dir: str,
        node_dir: str,
        settings: LogSettings,
        cache: SegmentCache,
        offsets: OffsetFiles,
        clock: Clock,
        flusher: Flusher,
        alarm: Callable[[str], None],
    ) -> None:
        self._disk = disk
        self._log_dir = log_dir
        self._node_dir = node_dir
        self._settings = settings
        self._cache = cache
        self._offsets = offsets
        self._clock = clock
        self._flusher = flusher
        self._alarm = alarm
        self.clean_ends: clean_stop.Ends = {}
        self.unread: deque[Unread] = deque()  # active segments that were taken on trust
        self.recovered: list[Recovery] = []

    def prepare(self) -> bool:
        """Before the first one is opened; whether the last stop was a clean one."""
        for folder in _BESIDE:
            self._disk.make_directory(f"{self._node_dir}/{folder}")
        stopped_cleanly, self.clean_ends = clean_stop.take(self._disk, self._log_dir, self._node_dir)
        return stopped_cleanly

    def open(self, name: str, entry: TopicEntry) -> list[PartitionLog]:
        """A topic's partitions, recovered. Raises `OSError`, with none of them open."""
        logs: list[PartitionLog] = []
        try:
            for number in range(entry.partitions):
                logs.append(self._open_one(name, entry, number))  # noqa: PERF401  (closed below)
        except OSError:
            for log in logs:
                log.abandon()
            raise
        return logs

    def making(
        self, name: str, entry: TopicEntry, first: int, put: Callable[[], None], *, here: bool = False
    ) -> Generator[Step, None, list[PartitionLog]]:
        """New partitions from number `first` on, in steps that may run in any thread. Raises `LogFailed`.

        `put`, at the end, makes them durable in the list of topics; in the loop if `here`.
        """
        logs: list[PartitionLog] = []
        try:
            for number in range(first, entry.partitions):
                yield partial(self._make, logs, name, entry, number)
            if here:
                put()
            else:
                yield put
        except BaseException as error:  # that others end it too
            for log in logs:
                log.abandon()
            if isinstance(error, OSError):
                raise LogFailed(f"Cannot create topic {name}: {error.strerror or error}") from error
            raise
        return logs

    def _make(self, logs: list[PartitionLog], name: str, entry: TopicEntry, number: int) -> None:
        logs.append(self._open_one(name, entry, number, is_new=True))

    def _open_one(self, name: str, entry: TopicEntry, number: int, *, is_new: bool = False) -> PartitionLog:
        directory, key = f"{self._log_dir}/{name}-{number}", (name, number)
        self._disk.make_directory(directory)
        topic_id = checkpoints.decode_id(entry.id)
        metadata = f"{directory}/{checkpoints.PARTITION_METADATA}"
        wanted = checkpoints.encode_partition_metadata(topic_id)
        if read_or_none(self._disk, metadata) != wanted:
            self._disk.replace_file(metadata, wanted)
        files = PartitionFiles(
            self._disk,
            self._cache,
            directory=directory,
            topic=name,
            partition=number,
            chain_path=f"{self._node_dir}/chain/{name}-{number}",
            aborted_sums_path=f"{self._node_dir}/aborted/{name}-{number}",
            rewritten_path=f"{self._node_dir}/rewritten/{name}-{number}",
            index_interval_bytes=self._settings.index_interval_bytes,
            set_recovery_point=partial(self._offsets.set_recovery_point, key),
        )
        start = self._offsets.starts.get(key, 0)
        config = lenient_config(entry.config)
        compacted = config.compact or key in self._offsets.cleaned
        found, on_trust = clean_stop.recover(
            files,
            self.clean_ends.get(key),
            recovery_point=self._offsets.recovery_points.get(key, 0),
            log_start_offset=start,
            quarantine=f"{self._node_dir}/quarantine",
            compacted=compacted,
        )
        self.recovered += [] if is_new else found.findings  # an empty new log is no finding
        for finding in found.findings:
            if finding.outcome is not Outcome.CLEAN:
                _log.warning("%s-%d: %s, %s", name, number, finding.outcome.value, finding.detail)
        segments = Segments(self._disk, self._cache, found.segments)
        log = PartitionLog(
            files,
            segments,
            found.state,
            topic_id=topic_id,
            epochs=found.epochs,
            base_snapshot=found.base_snapshot,
            chain=found.chain,
            log_start_offset=log_start(start, [segment.base_offset for segment in found.segments]),
            settings=config.log_settings(self._settings),
            clock=self._clock,
            flusher=self._flusher,
            alarm=self._alarm,
            compacted=compacted,
        )
        log.compacts = config.compact
        log.delete_below(entry.deleted.get(str(number), 0))
        if on_trust:
            self.unread.append(Unread(log))
        self._offsets.recovery_points[key] = log.log_end_offset
        return log

    def remove(self, name: str, partitions: int) -> None:
        """Whatever there is of a topic's partitions; durable when it returns. Raises `OSError`."""
        for number in range(partitions):
            directory = f"{self._log_dir}/{name}-{number}"
            if self._disk.exists(directory):
                for file in self._disk.names(directory):
                    self._disk.remove(f"{directory}/{file}")
                self._disk.remove_directory(directory)
            for folder in _BESIDE:
                if self._disk.exists(beside := f"{self._node_dir}/{folder}/{name}-{number}"):
                    self._disk.remove(beside)
        for folder in _BESIDE:
            self._disk.sync_directory(f"{self._node_dir}/{folder}")
        self._disk.sync_directory(self._log_dir)
        # Last: a topic that gets its name must not begin where this one had come to.
        self._offsets.forget((name, number) for number in range(partitions))
