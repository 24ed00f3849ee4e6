"""The topics of a group on its cluster: looked up, made where they are missing, and the changelog read back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from headwater.errors import UserError
from processors.group.changelog import ChangelogView
from processors.group.clients import Admin
from processors.group.refusals import other_partitions
from processors.group.settings import GroupSettings
from processors.job import RELAY_CONFIG

ANSWER_S_MAX = 20.0
READ_S_MAX = 120.0
RETRY_S = 1.0
LISTED_S = 0.05
LOOK_EVERY_S, LOOK_S_MAX = 10.0, 2.0
_DAY_MS = 86_400_000
_CHUNK, _CHUNK_S = 1_000, 0.02


class NoAnswerError(UserError):
    """The cluster says nothing: for somebody's eyes at a first start, to be waited out by whoever was in its group."""


class Topics:
    """How many partitions the group's topics have. Raises `UserError` for a cluster that does not answer."""

    def __init__(
        self,
        settings: GroupSettings,
        inputs: list[str],
        made: Mapping[str, Mapping[str, str]],
        relays: Mapping[str, str],
    ) -> None:
        """`made`: outputs with their configuration; `relays`: written and read, each with the input it is cut like."""
        self._settings = settings
        self._inputs = inputs
        self._made = made
        self._relays = relays
        self._admin = Admin(settings)
        self._looker = ThreadPoolExecutor(1, "look at topics")
        self._look: Future[Any] | None = None
        self._looked_s = -LOOK_EVERY_S
        self.partitions: dict[str, int] = {}
        self.outputs = 1

    def prepare(self) -> None:
        """Look the input topics up; make outputs and changelog where they are missing."""
        settings = self._settings
        inputs = self._look_up(self._inputs)
        retention = str(int(settings.output_retention_days * _DAY_MS))
        made = {
            **{
                f"{settings.topic_prefix}{topic}": (
                    settings.output_partitions,
                    {"retention.ms": retention, **config},
                )
                for topic, config in self._made.items()
            },
            **{
                f"{settings.topic_prefix}{relay}": (inputs[topic], dict(RELAY_CONFIG))
                for relay, topic in self._relays.items()
            },
            settings.changelog: (max(inputs.values()), {"cleanup.policy": "compact"}),
        }
        listed = self._list()
        missing = [
            NewTopic(name, num_partitions=count, replication_factor=settings.replication_factor or -1, config=config)
            for name, (count, config) in made.items()
            if name not in listed
        ]
        for name, future in (self._admin.client.create_topics(missing) if missing else {}).items():
            try:
                future.result(ANSWER_S_MAX)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another member was quicker
                    raise UserError(f"topic {name} cannot be made: {error.args[0].str()}") from None
        listed = self._list_with(made)
        self.look_up()
        self.outputs = min((listed[f"{settings.topic_prefix}{topic}"] for topic in self._made), default=1)
        if listed.get(settings.changelog, 0) < max(self.partitions.values()):
            raise UserError(
                f"{settings.changelog} has fewer partitions than {', '.join(self._inputs)}: they were given more",
                hint="Start it once with --rebuild: state is made anew from the start of the log.",
            )

    def _list_with(self, names: Iterable[str]) -> dict[str, int]:
        """All topics, once these are listed: a cluster's brokers hear of a new one a moment after it was made."""
        until_s = time.monotonic() + ANSWER_S_MAX
        while not all((listed := self._list()).get(name) for name in names):
            if time.monotonic() > until_s:
                missing = ", ".join(name for name in names if not listed.get(name))
                raise TimeoutError(f"{missing} was made, and is not listed {ANSWER_S_MAX:.0f} s later")
            time.sleep(LISTED_S)
        return listed

    def look_up(self) -> None:
        """The partitions of what is read, as they are now."""
        self._look = None  # what an earlier look finds is older
        self.partitions = self._look_up([*self._inputs, *self._relays])

    def check(self, now_s: float) -> None:
        """Raises `UserError` when what is read has other partitions than `look_up` has found.

        It is looked at every `LOOK_EVERY_S`, in a thread: nobody waits for a cluster that is slow to answer, and one
        that does not answer soon is asked another time.
        """
        if self._look is None:
            if now_s - self._looked_s >= LOOK_EVERY_S:
                self._looked_s = now_s
                self._look = self._looker.submit(self._admin.client.list_topics, timeout=LOOK_S_MAX)
            return
        if not self._look.done():
            return
        look, self._look = self._look, None
        try:
            listed = look.result().topics
        except KafkaException as error:
            self._admin.cause(str(error))  # what it heard meanwhile is no cause of what fails later
            return
        for topic, before in self.partitions.items():
            found = listed.get(f"{self._settings.topic_prefix}{topic}")
            if found is not None and found.partitions and len(found.partitions) != before:
                raise other_partitions(topic, len(found.partitions), before)

    def _look_up(self, topics: Iterable[str]) -> dict[str, int]:
        listed = self._list()
        found = {}
        for topic in topics:
            count = listed.get(f"{self._settings.topic_prefix}{topic}", 0)
            if not count:
                raise UserError(
                    f"{self._settings.bootstrap_servers} has no topic {self._settings.topic_prefix}{topic}",
                    hint="It comes with the first edge that replicates there; or check topic_prefix.",
                )
            found[topic] = count
        return found

    def _list(self) -> dict[str, int]:
        try:
            found = self._admin.client.list_topics(timeout=ANSWER_S_MAX).topics
        except KafkaException as error:
            raise NoAnswerError(
                f"{self._settings.bootstrap_servers} does not answer: {self._admin.cause(error.args[0].str())}",
                hint="Check bootstrap_servers, and security_protocol if the cluster asks who we are.",
            ) from None
        return {name: len(topic.partitions) for name, topic in found.items()}

    def forget(self) -> None:
        """Delete the group's offsets and its state: the next start computes everything again.

        A member that stopped a moment ago counts as one until its session is over, and is waited for.
        """
        settings = self._settings
        until_s = time.monotonic() + settings.session_timeout_ms / 1000.0 + ANSWER_S_MAX
        while not self._forget_offsets():
            if time.monotonic() > until_s:
                raise UserError(f"group {settings.group_id} still has members", hint="Stop them all first.")
            time.sleep(RETRY_S)
        # What the first stages wrote into relay topics they write again.
        made = {settings.changelog, *(f"{settings.topic_prefix}{relay}" for relay in self._relays)}
        if gone := sorted(made & self._list().keys()):
            for future in self._admin.client.delete_topics(gone).values():
                future.result(ANSWER_S_MAX)

    def _forget_offsets(self) -> bool:
        """False while the group has members."""
        group = self._settings.group_id
        try:
            self._admin.client.delete_consumer_groups([group])[group].result(ANSWER_S_MAX)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.NON_EMPTY_GROUP:
                return False
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
        return True


def read_changelog(settings: GroupSettings, partitions: Iterable[int]) -> dict[int, ChangelogView]:
    """Partitions of the changelog, from their start to their end, at `read_committed`. Raises `TimeoutError`."""
    views = {partition: ChangelogView() for partition in partitions}
    own = {
        "group.id": f"{settings.group_id}-restore",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 10,
    }
    reader = Consumer(settings.client() | own)
    try:
        reader.assign([TopicPartition(settings.changelog, partition, 0) for partition in views])
        unread = set(views)
        until_s = time.monotonic() + READ_S_MAX
        while unread:
            if time.monotonic() > until_s:
                raise TimeoutError(f"{settings.changelog} was not read to its end within {READ_S_MAX:.0f} s")
            for message in reader.consume(_CHUNK, _CHUNK_S):
                error = message.error()
                if error is None:
                    views[message.partition()].take(message.key(), message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)
    finally:
        reader.close()
    return views
