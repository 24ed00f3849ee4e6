"""Topics made, grown, set and deleted: each change durable before it is told of, and in steps for a loop with others.

What a step does in a thread reads and changes the list of topics under its lock; `_topics`, which everybody looks
into, is changed in the loop alone, between steps.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Mapping
from functools import partial

import msgspec

from gateway.log import checkpoints
from gateway.log.catalog import Catalog, TopicEntry, check_collision, check_partitions, check_topic_name, new_id
from gateway.log.directories import Directories
from gateway.log.errors import InvalidTopic, LogFailed, TopicExists
from gateway.log.flusher import Flusher
from gateway.log.partition import PartitionLog
from gateway.log.settings import LogSettings
from gateway.log.steps import Step, run_steps
from gateway.log.topic import Topic
from gateway.log.topic_config import TopicConfig, lenient_config, parse_config

Settings = Mapping[str, str]
"""A topic's own, as Kafka writes them."""


class TopicChanges:
    """The part of `LogStore` that changes its topics."""

    flusher: Flusher
    _catalog: Catalog
    _directories: Directories
    _settings: LogSettings
    _topics: dict[str, Topic]
    _coming: dict[str, int]  # topics that are being made, with the partitions that they will have more
    _leaving: set[str]  # topics whose deletion has begun, and has not ended

    def create_topic(self, name: str, *, partitions: int = 1, config: Settings | None = None) -> Topic:
        """Durable when it returns. Raises `InvalidTopic`, `TopicExists`, `LogFailed`."""
        return run_steps(self.creating_topic(name, partitions=partitions, config=config or {}))

    def creating_topic(self, name: str, *, partitions: int, config: Settings) -> Generator[Step, None, Topic]:
        """The same in steps: the topic is there at the end, and not before."""
        self._check_new(name, partitions, config)
        entry = TopicEntry(id=new_id(), partitions=partitions, config=dict(config))
        self._coming[name] = partitions
        try:
            logs = yield from self._directories.making(name, entry, 0, partial(self._catalog.put_topic, name, entry))
            self._topics[name] = self._topic(name, entry, logs)
        finally:
            del self._coming[name]
        return self._topics[name]

    def _topic(self, name: str, entry: TopicEntry, logs: list[PartitionLog]) -> Topic:
        return Topic(name, checkpoints.decode_id(entry.id), dict(entry.config), logs)

    def _check_new(self, name: str, partitions: int, config: Settings) -> None:
        check_topic_name(name)
        check_partitions(name, partitions)
        parse_config(config)
        if name in self._leaving:
            raise TopicExists(f"Topic {name} is just being deleted")
        if name in self._topics or name in self._coming:
            raise TopicExists(f"Topic {name} {'exists already' if name in self._topics else 'is just being made'}")
        check_collision(name, (*self._topics, *self._coming))

    def is_changing(self, name: str) -> bool:
        """Whether a topic is just being made, given more partitions, or deleted."""
        return name in self._coming or name in self._leaving

    def growing_topic(self, name: str, partitions: int) -> Generator[Step, None, None]:
        """More partitions, in steps; durable at the end. Raises `InvalidTopic`, `LogFailed`."""
        check_partitions(name, partitions)
        if self.is_changing(name):
            doing = "given more partitions" if name in self._coming else "deleted"
            raise InvalidTopic(f"Topic {name} is just being {doing}")
        topic = self._topics[name]
        entry = msgspec.structs.replace(self._catalog.topics[name], partitions=partitions)
        self._coming[name] = partitions - len(topic.partitions)

        def put() -> None:
            if self._topics.get(name) is not topic or name in self._leaving:
                raise OSError(errno.ENOENT, "it was deleted meanwhile")
            # Of the entry as it is now: settings may have changed meanwhile.
            self._catalog.change_topic(name, partial(msgspec.structs.replace, partitions=partitions))

        try:
            logs = yield from self._directories.making(name, entry, len(topic.partitions), put, here=True)
            self._set(logs, lenient_config(topic.config))  # they may have changed meanwhile
            topic.partitions.extend(logs)
        finally:
            del self._coming[name]

    @property
    def partitions_coming(self) -> int:
        """Of topics that are just being made, or given more."""
        return sum(self._coming.values())

    def configure_topic(self, name: str, config: Settings) -> None:
        """Replace a topic's settings; durable when it returns. Raises `InvalidTopic`, `LogFailed`."""
        run_steps(self.configuring_topic(name, lambda _: config))

    def configuring_topic(self, name: str, changed: Callable[[Settings], Settings]) -> Generator[Step, None, None]:
        """The same in steps: `changed`, in a thread, makes the new settings of those that there are just then."""
        topic = self._topics.get(name)
        if topic is None:
            raise InvalidTopic(f"There is no topic {name}")
        parse_config(changed(topic.config))

        def change(entry: TopicEntry) -> TopicEntry:
            if checkpoints.decode_id(entry.id) != topic.topic_id:
                return entry  # another one of that name
            config = dict(changed(entry.config))
            parse_config(config)
            return msgspec.structs.replace(entry, config=config)

        try:
            yield partial(self._catalog.change_topic, name, change)
        except OSError as error:
            raise LogFailed(f"Cannot change topic {name}: {error.strerror or error}") from error
        if self._topics.get(name) is not topic:
            raise InvalidTopic(f"Topic {name} was deleted meanwhile")
        config = dict(self._catalog.topics[name].config)  # with what others have changed since
        topic.config.clear()
        topic.config.update(config)
        self._set(topic.partitions, parse_config(config))

    def _set(self, logs: list[PartitionLog], config: TopicConfig) -> None:
        for log in logs:
            log.obey(config.log_settings(self._settings), compacted=config.compact)

    def delete_topic(self, name: str) -> None:
        """Durable when it returns. Raises `InvalidTopic` for an unknown one, `LogFailed`."""
        run_steps(self.deleting_topic(name))

    def deleting_topic(self, name: str) -> Generator[Step, None, None]:
        """The same in steps: served until its end is on disk; the name is free again when its files are gone.

        Where a file cannot be removed the next start does it, and the name is not free before.
        """
        topic = self._topics.get(name)
        if topic is None or name in self._leaving:
            raise InvalidTopic(f"There is no topic {name}")
        self._leaving.add(name)
        try:
            yield partial(self._catalog.change_topic, name, partial(msgspec.structs.replace, deleting=True))
        except OSError as error:
            self._leaving.discard(name)
            raise LogFailed(f"Cannot delete topic {name}: {error.strerror or error}") from error
        del self._topics[name]
        with self.flusher.between_rounds():
            for log in topic.partitions:
                log.abandon()

        def remove() -> None:
            self._directories.remove(name, self._catalog.topics[name].partitions)
            self._catalog.drop_topic(name)

        try:
            yield remove
        except OSError as error:
            raise LogFailed(f"Cannot remove topic {name}: {error.strerror or error}") from error
        self._leaving.discard(name)
