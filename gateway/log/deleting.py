"""Deletions by clients: where logs begin by their wish, in the list of topics and in Kafka's own file of log starts.

In steps, for the disk's part of it is a thread's: others may change the same entries meanwhile, delete the topic, or
make it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import msgspec

from gateway.log import checkpoints
from gateway.log.catalog import Catalog, TopicEntry
from gateway.log.errors import LogFailed
from gateway.log.offset_files import Key, OffsetFiles
from gateway.log.partition import PartitionLog
from gateway.log.steps import Step


class Deletions:
    """Those of one store; `partition` gives a log that is there."""

    def __init__(
        self,
        catalog: Catalog,
        offsets: OffsetFiles,
        partition: Callable[[str, int], PartitionLog | None],
        alarm: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._offsets = offsets
        self._partition = partition
        self._alarm = alarm

    def end_vain(self) -> None:
        """A disk that lost what it had synced may end a log below its start: what comes now was never deleted."""

        def changed(name: str, entry: TopicEntry) -> TopicEntry:
            logs = {at: self._partition(name, int(at)) for at in entry.deleted}
            real = {at: min(entry.deleted[at], log.log_end_offset) for at, log in logs.items() if log is not None}
            return entry if real == entry.deleted else msgspec.structs.replace(entry, deleted=real)

        self._catalog.change_topics(changed)

    def steps(self, starts: Mapping[Key, int]) -> Generator[Step, None, None]:
        """Begin logs at later offsets, at most their synced ends; durable at the end. Raises `LogFailed`."""
        logs = {key: log for key in starts if (log := self._partition(*key)) is not None}
        later = {key: starts[key] for key, log in logs.items() if starts[key] > log.log_start_offset}
        if not later:
            return

        def is_there(key: Key) -> bool:
            return self._partition(*key) is logs[key]

        def changed(name: str, entry: TopicEntry) -> TopicEntry:
            deleted = dict(entry.deleted)
            for (topic, index), offset in later.items():
                if topic == name and is_there((topic, index)):
                    deleted[str(index)] = max(offset, deleted.get(str(index), 0))
            return entry if deleted == entry.deleted else msgspec.structs.replace(entry, deleted=deleted)

        def put() -> None:
            self._catalog.change_topics(changed)

        def note() -> None:
            self._offsets.set_starts(later, is_there)

        try:
            yield put
        except OSError as error:
            raise LogFailed(f"Cannot delete records: {error.strerror or error}") from error
        for key, offset in later.items():
            logs[key].delete_below(offset)
        try:
            yield note
        except OSError as error:  # for a broker that goes on with these files: the list of topics has it for us
            self._alarm(f"{checkpoints.LOG_STARTS} could not be written: {error.strerror or error}")
