"""Topics of a group's cluster for `headwater aggregates`, read as those of a running node are: by `GroupLog`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from gateway.consume.batches import Block, no_records
from gateway.log.records import Record, encode_headers
from headwater.errors import UserError
from processors.group.changelog import ChangelogError, Snapshot
from processors.group.settings import GroupSettings
from processors.group.topics import read_changelog
from processors.repartition import MergedMarks, group_node, relay_topic
from processors.results import NEVER
from processors.rules.model import Rules, WindowRule

ANSWER_S_MAX = 10.0
WRITE_S_MAX = 30.0
_CHUNK = 5_000
_END = 1 << 62


class GroupLog:
    """A cluster's topics as of now, at `read_committed`, without the group's prefix; the reading part of `outputs.Log`.

    Raises `UserError` for a cluster that does not answer. It blocks: a command has nothing else to do.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self._settings = settings
        self._prefix = settings.topic_prefix
        own = {
            "group.id": settings.group_id,  # whose offsets are looked up; nothing joins it
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
        self._consumer = Consumer(settings.client() | own)
        self._assigned: frozenset[tuple[str, int]] = frozenset()
        self.ends: dict[tuple[str, int], int] = {}

    async def close(self) -> None:
        """Close all connections."""
        self._consumer.close()

    async def partitions(self, topic: str) -> int:
        """How many a topic has; 0 when there is no such topic."""
        listed = self._asked("list_topics", timeout=ANSWER_S_MAX).topics.get(self._prefix + topic)
        return len(listed.partitions) if listed is not None else 0

    async def offset(self, topic: str, partition: int, at: str | int) -> int:
        """As `Reader.offset`."""
        where = TopicPartition(self._prefix + topic, partition, at if isinstance(at, int) else 0)
        if isinstance(at, int):
            [found] = self._asked("offsets_for_times", [where], timeout=ANSWER_S_MAX)
            if found.offset >= 0:
                return int(found.offset)
        low, high = self._asked("get_watermark_offsets", where, timeout=ANSWER_S_MAX)
        return int(low if at == "earliest" else high)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read these from there on; what is being read goes on where it is."""
        wanted = frozenset(positions)
        if wanted < self._assigned:
            gone = self._assigned - wanted
            self._consumer.incremental_unassign([TopicPartition(self._prefix + topic, one) for topic, one in gone])
        elif wanted != self._assigned:
            self._consumer.unassign()
            places = [TopicPartition(self._prefix + topic, one, at) for (topic, one), at in positions.items()]
            self._consumer.incremental_assign(places)
        self._assigned = wanted

    async def poll(self, *, max_wait_ms: int = 500, max_bytes: int = 1 << 20) -> list[Block]:
        """What comes within a while; a partition that is read to its end says so by its `next_offset`."""
        records: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
        ends: dict[tuple[str, int], int] = {}
        for message in self._asked("consume", _CHUNK, max_wait_ms / 1000):
            where = (message.topic().removeprefix(self._prefix), message.partition())
            mine = records.setdefault(where, [])
            if (error := message.error()) is None:
                headers = encode_headers(message.headers() or [])
                mine.append((message.offset(), message.timestamp()[1], message.key(), message.value(), headers))
                ends[where] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[where] = _END
            elif not error.retriable():
                raise UserError(f"{self._settings.bootstrap_servers}, {'/'.join(map(str, where))}: {error.str()}")
        return [_block(where, records[where], end) for where, end in ends.items()]

    def committed(self, places: Iterable[tuple[str, int]]) -> list[int]:
        """The group's offset in each; 0 where it has none."""
        asked = [TopicPartition(self._prefix + topic, one) for topic, one in places]
        return [max(0, at.offset) for at in self._asked("committed", asked, timeout=ANSWER_S_MAX)] if asked else []

    def write(self, topic: str, records: Sequence[tuple[int, Record]]) -> None:
        """Records for its partitions, in order; all of them stand in the cluster afterwards. Raises `UserError`."""
        producer = Producer(self._settings.client() | {"enable.idempotence": True, "log_level": 0})
        failed: list[str] = []
        for partition, (timestamp, key, value, _) in records:
            more = {"on_delivery": lambda error, _: failed.append(error.str()) if error is not None else None}
            while True:
                try:
                    producer.produce(self._prefix + topic, value, key, partition, timestamp=timestamp, **more)
                except BufferError:
                    producer.poll(1.0)  # what waits goes out first
                else:
                    break
        if (left := producer.flush(WRITE_S_MAX)) or failed:
            why = failed[0] if failed else f"{left} records were not taken within {WRITE_S_MAX:.0f} s"
            hint = "What was written stands; the same command writes the rest."
            raise UserError(f"{self._settings.bootstrap_servers}: {why}", hint=hint)

    def lag(self, topics: list[str]) -> int:
        """How many records the group has still to read of these."""
        total = 0
        for topic in topics:
            name = self._prefix + topic
            listed = self._asked("list_topics", timeout=ANSWER_S_MAX).topics.get(name)
            places = [TopicPartition(name, one) for one in (listed.partitions if listed is not None else ())]
            for at in self._asked("committed", places, timeout=ANSWER_S_MAX):
                low, high = self._asked("get_watermark_offsets", at, timeout=ANSWER_S_MAX)
                total += high - max(low, at.offset)
        return total

    def _asked(self, method: str, *given: Any, **named: Any) -> Any:
        try:
            return getattr(self._consumer, method)(*given, **named)
        except KafkaException as error:
            hint = "Check bootstrap_servers, and security_protocol if the cluster asks who we are."
            raise UserError(f"{self._settings.bootstrap_servers}: {error.args[0].str()}", hint=hint) from None


def _block(where: tuple[str, int], records: list[tuple[Any, ...]], next_offset: int) -> Block:
    if not records:
        return no_records(*where, next_offset)
    offsets, timestamps, keys, values, headers = zip(*records, strict=True)
    return Block(*where, offsets, timestamps, keys, values, headers, next_offset)


def group_status(log: GroupLog, settings: GroupSettings, rules: Rules) -> dict[str, Any]:
    """What a node's status says of its processors, of a group: as far as its offsets and its changelog know."""
    report: dict[str, Any] = {"state": "up", "lag_records": log.lag(rules.topics), "who": f"Group {settings.group_id}"}
    grouped = {relay_topic(settings.name, rule): rule for rule in rules.windows if rule.group_by}
    if grouped:
        report["groups"] = _remembered(settings, grouped)
    return {"work": {"report": {"processors": report}}}


def begins_of(settings: GroupSettings, rules: Sequence[WindowRule]) -> dict[str, dict[str, int]]:
    """By `<topic>/<partition>` since when rules have whole windows, where they are younger than the log.

    Raises `UserError` for a rule that the group has not run yet as it is now.
    """
    found: dict[str, dict[str, int]] = {}
    missing = {rule.version: rule.name for rule in rules}
    for source, snapshot in _snapshots(settings):
        for rule in rules:
            state = snapshot.state.get("windows", {}).get(rule.version)
            if state is not None:
                missing.pop(rule.version, None)
                if state["begin"] != NEVER:
                    found.setdefault(source, {})[rule.name] = state["begin"]
    for name in missing.values():
        raise UserError(
            f"group {settings.group_id} has not computed rule “{name}” yet as it is in the file",
            hint="Start its members with the file as it is, and run this again.",
        )
    return found


def _remembered(settings: GroupSettings, grouped: Mapping[str, Any]) -> dict[str, Any]:
    """How far the nodes are that windows over groups wait for, by the last snapshots."""
    found: dict[str, Any] = {}
    for source, snapshot in _snapshots(settings):
        if (rule := grouped.get(source.rpartition("/")[0])) is not None:
            marks = MergedMarks(group_node(rule))
            marks.restore(snapshot.state["marks"])
            behind = found.setdefault(rule.name, {"behind": {}, "unread": set()})
            behind["unread"].update(marks.unread)
            for node, live in marks.waits_for().items():
                lives = behind["behind"].get(node, live), live
                behind["behind"][node] = None if None in lives else min(lives)
    return found


def _snapshots(settings: GroupSettings) -> Iterator[tuple[str, Snapshot]]:
    """The group's latest state, by `<topic>/<partition>`."""
    consumer = Consumer(settings.client() | {"group.id": f"{settings.group_id}-look", "log_level": 0})
    try:
        listed = consumer.list_topics(settings.changelog, timeout=ANSWER_S_MAX).topics[settings.changelog].partitions
        views = read_changelog(settings, listed)
    except (KafkaException, TimeoutError) as error:
        raise UserError(f"{settings.changelog} cannot be read: {error}") from None
    finally:
        consumer.close()
    for view in views.values():
        for source in view.sources():
            try:
                snapshot = view.snapshot(source)
            except ChangelogError as error:
                raise UserError(f"{settings.changelog}: {error}") from None
            if snapshot is not None:
                yield source, snapshot
