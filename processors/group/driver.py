"""The group driver: processors as members of a Kafka consumer group, with transactions (KIP-98, KIP-447).

librdkafka carries membership and transactions, `fetcher.Fetcher` the records; `core.Member` decides. One thread, one
loop: take a block, process it, and every `commit_every_ms` commit what was said together with the positions. What is
fetched ahead lies in sockets and in bytes meanwhile, and is dropped with its partition. Whatever goes wrong, the
transaction is aborted, everything in memory is dropped, and the member begins again from what is committed.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from gateway.consume.batches import Block
from gateway.consume.fetching import LostPlaceError
from gateway.log.headers import decode_headers
from headwater.errors import HeadwaterError, UserError
from processors.budget import Limits
from processors.group.changelog import ChangelogError
from processors.group.clients import new_consumer, new_producer
from processors.group.core import Member, Source
from processors.group.fetcher import Fetcher
from processors.group.refusals import lost_records
from processors.group.settings import GroupSettings
from processors.group.silences import Silences
from processors.group.topics import ANSWER_S_MAX, NoAnswerError, Topics, read_changelog
from processors.group.waiting import Waiting
from processors.job import Job, as_job
from processors.late import late_news
from processors.processor import Output
from processors.rules.model import Rules
from processors.unread import unread_record

log = logging.getLogger(__name__)

POLL_S = 0.05
STATUS_EVERY_S = 1.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.2, 5.0
COMMIT_S_MAX = 30.0
_FATAL = (KafkaError._FENCED, KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL)


class GroupProcessor:
    """One member. `run` until `stop`; both `stop` and `status` from any thread."""

    def __init__(self, settings: GroupSettings, rules: Rules | Job, *, instance: str) -> None:
        self._settings = settings
        self._job = as_job(rules, settings.place, settings.name)
        self._instance = instance
        self._topics = Topics(settings, self._job.topics, self._job.outputs, self._job.relays)
        self._waiting = Waiting(settings.topic_prefix, self._job.relays, answer_s_max=ANSWER_S_MAX)
        self._stopping = False
        self._told: set[str] = set()  # what became of changed rules: logged once
        self._status: dict[str, Any] = {"state": "connecting"}
        self._rebalances = self._restarts = self._transactions = 0
        self._member: Member
        self._consumer: Any
        self._producer: Any
        self._fetcher: Fetcher
        self._open = False
        self._problem: BaseException | None = None
        self._committed_s = self._saved_s = self._commit_took_s = 0.0
        self._was_up = False
        self._begun_s = math.inf
        """When the open transaction began; in seconds that also pass while the machine sleeps."""

    # the outside

    def stop(self) -> None:
        self._stopping = True

    def status(self) -> dict[str, Any]:
        """Replaced as a whole."""
        return self._status

    def rebuild(self) -> None:
        """Forget state and offsets, before `run`. Raises `UserError` while the group has members."""
        self._topics.forget()

    def run(self) -> None:
        """Until `stop`. Raises `UserError` for what only a person can mend."""
        backoff_s, said = BACKOFF_S_MIN, ""
        while not self._stopping:
            began_s = time.monotonic()
            try:
                self._run_once()
            except (KafkaException, HeadwaterError, TimeoutError, OSError) as error:
                if isinstance(error, UserError) and not (self._was_up and isinstance(error, NoAnswerError)):
                    raise
                if _code(error) in _FATAL and not self._overdue():
                    raise UserError(
                        f"another process has taken the place of “{self._instance}” in group {self._settings.group_id}",
                        hint="Give each process an instance of its own (--instance), or stop the other one.",
                    ) from None
                if str(error) != said:
                    log.warning("back to what is committed: %s", error)
                said = str(error)
                self._restarts += 1
                backoff_s = BACKOFF_S_MIN if time.monotonic() - began_s > 60 else min(backoff_s * 2, BACKOFF_S_MAX)
                self._status = {**self._status, "state": "connecting", "error": str(error), "restarts": self._restarts}
                time.sleep(backoff_s)
        self._status = {**self._status, "state": "stopped"}

    # one life

    def _run_once(self) -> None:
        settings = self._settings
        self._topics.prepare()
        self._job.know(self._topics.partitions)
        limits = Limits.of_partition(settings, sum(self._topics.partitions.values()))
        self._member = Member(self._job, place=settings.place, limits=limits)
        self._producer = new_producer(settings, self._instance)
        self._consumer = new_consumer(settings, self._instance)
        self._open, self._problem = False, None
        self._committed_s = self._saved_s = time.monotonic()
        self._silences = Silences(settings.silent_after_s if settings.place == "central" else 0.0)
        with closing(Fetcher(settings)) as self._fetcher:
            self._live()

    def _live(self) -> None:
        clean = False
        try:
            self._producer.init_transactions(ANSWER_S_MAX)
            self._consumer.subscribe(
                [f"{self._settings.topic_prefix}{topic}" for topic in (*self._job.topics, *self._job.relays)],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            self._work()
            clean = True
        finally:
            self._leave(clean=clean)

    def _work(self) -> None:
        told_s = 0.0
        while not self._stopping:
            blocks = self._fetch()
            for block in blocks:
                outputs = self._member.process(block)
                if outputs:
                    self._write(outputs, block.partition % self._topics.outputs)
            self._stopping |= self._member.wants_to_stop
            now_s = time.monotonic()
            behind = sum(len(block.offsets) for block in blocks) >= self._settings.fetch_records_max
            pause_s = self._settings.commit_pause_s(self._commit_took_s, behind=behind)
            if now_s - self._committed_s >= pause_s:
                self._commit(now_s)
                self._commit_took_s = time.monotonic() - now_s
            if now_s - told_s >= STATUS_EVERY_S:
                told_s = now_s
                self._tell_unread(self._consumer)
                self._tell("up")
                self._speak_for_the_silent(now_s)
                self._topics.check(now_s)

    def _fetch(self) -> list[Block]:
        """What comes within `POLL_S`. The group is heard first: partitions come and go only here."""
        heard = self._consumer.poll(0)
        if self._problem is not None:
            raise self._problem
        if heard is not None and heard.error() is not None:
            raise KafkaException(heard.error())
        try:
            return self._fetcher.poll(POLL_S)
        except LostPlaceError as error:
            self._check_place(error)
            raise  # expired: it begins again, and says so

    def _check_place(self, lost: LostPlaceError) -> None:
        """Raises `UserError` when the log has lost records that this group's results hold."""
        topic, partition = lost.where
        end = lost.end
        if end is None:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_S_MAX)
        said = self._member.said_up_to((topic[len(self._settings.topic_prefix) :], partition))
        if said > end:  # what was only fetched, or not committed yet, a new beginning forgets
            raise lost_records(topic, partition, end, said)

    def _leave(self, *, clean: bool) -> None:
        """A clean end commits and saves; any other leaves what is committed as it is."""
        settled = False
        try:
            if clean:
                self._commit(time.monotonic(), everything=True)
                settled = True
            elif self._open:
                self._producer.abort_transaction(ANSWER_S_MAX)
        finally:
            self._open = False
            if not settled and self._problem is None:
                # `close` calls `_revoked`, which would commit positions whose outputs have just been taken back.
                self._problem = HeadwaterError("what it said since the last commit was taken back")
            self._consumer.close()
            self._producer.close()
            self._tell("stopped" if clean else "connecting")

    # partitions come and go; librdkafka calls these inside `poll`, and would swallow what they raise

    def _assigned(self, consumer: Any, assigned: list[TopicPartition]) -> None:
        try:
            self._take_over(consumer, assigned)
        except Exception as error:  # told by the loop, which can
            self._problem = error

    def _take_over(self, consumer: Any, assigned: list[TopicPartition]) -> None:
        if not assigned:
            return
        self._rebalances += 1
        prefix = len(self._settings.topic_prefix)
        self._topics.look_up()
        self._job.know(self._topics.partitions)
        views = read_changelog(self._settings, {at.partition for at in assigned})
        begin: dict[Source, int] = {}
        for offset in consumer.committed(assigned, ANSWER_S_MAX):
            source = (offset.topic[prefix:], offset.partition)
            start, end = consumer.get_watermark_offsets(TopicPartition(offset.topic, offset.partition), ANSWER_S_MAX)
            try:
                snapshot = views[offset.partition].snapshot(f"{source[0]}/{source[1]}")
            except ChangelogError as error:
                log.warning("%s; computing it again from the log's start", error.what)
                snapshot = None
            begun = self._member.begin(
                source,
                snapshot,
                partitions=self._topics.partitions[source[0]],
                committed=None if offset.offset == OFFSET_INVALID or offset.offset < 0 else offset.offset,
                start=start,
                end=end,
            )
            for said in self._member.status().get("changes", ()):
                if said not in self._told:
                    log.info("%s", said)
                self._told.add(said)
            for version in begun.fresh:
                log.info("%s/%d: new or changed from here on: %s", *source, version)
            if begun.expired:
                log.warning("%s/%d: %d records before offset %d expired unread", *source, begun.expired, begun.offset)
            begin[source] = begun.offset
        consumer.assign([])  # it keeps the membership; who reads is the fetcher
        self._fetcher.assign(begin)
        self._waiting.begin(consumer, self._topics.partitions)
        self._tell_unread(consumer)
        self._was_up = True
        log.info("took over %s", ", ".join(f"{topic}/{part} from {at}" for (topic, part), at in begin.items()))

    def _revoked(self, consumer: Any, revoked: list[TopicPartition]) -> None:
        try:
            self._rebalances += bool(revoked)
            sources = self._sources(revoked)
            if self._problem is None:
                self._commit(time.monotonic(), save=sources)  # so that the next owner has nothing to read again
            self._give_up(consumer, revoked)
        except Exception as error:  # as in `_assigned`
            self._problem = error

    def _lost(self, consumer: Any, lost: list[TopicPartition]) -> None:
        """Another member may have them already: whatever is open belongs to nobody."""
        self._give_up(consumer, lost)
        self._problem = TimeoutError("the group went on without this member")

    def _give_up(self, consumer: Any, gone: list[TopicPartition]) -> None:
        sources = self._sources(gone)
        self._fetcher.drop(sources)
        for source in sources:
            self._member.end(source)
        consumer.unassign()
        if gone:
            log.info("gave up %s", ", ".join(f"{at.topic}/{at.partition}" for at in gone))

    def _sources(self, partitions: list[TopicPartition]) -> set[Source]:
        prefix = len(self._settings.topic_prefix)
        return {(at.topic[prefix:], at.partition) for at in partitions}

    # transactions

    def _begin(self) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open, self._begun_s = True, time.clock_gettime(time.CLOCK_BOOTTIME)

    def _write(self, outputs: list[Output], partition: int) -> None:
        self._begin()
        prefix = self._settings.topic_prefix
        for output in outputs:
            timestamp, key, value, headers = output.record
            target = partition if output.partition is None else output.partition
            self._produce(f"{prefix}{output.topic}", target, key, value, timestamp, decode_headers(headers))

    def _tell_unread(self, consumer: Any) -> None:
        """Say in relay topics which inputs are to be waited for, before anything else is said there."""
        for relay, unread in self._waiting.due(consumer, time.monotonic()).items():
            record = unread_record(unread)
            self._write([Output(relay, record, "", 0, to) for to in range(self._topics.partitions[relay])], 0)

    def _speak_for_the_silent(self, now_s: float) -> None:
        behind = self._status.get("lag_by_partition", {})
        due = self._silences.due(self._member.parts, behind, now_s=now_s, wall_ms=round(time.time() * 1000))
        for (topic, partition), record in due:
            self._write([Output(topic, record, "", 0, partition)], 0)

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, timestamp: int, headers: Any = None
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, timestamp=timestamp, headers=headers, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(POLL_S)  # what waits goes out first
            else:
                return

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._problem = KafkaException(error)

    def _commit(self, now_s: float, *, everything: bool = False, save: set[Source] | None = None) -> None:
        """Outputs, positions and what snapshots are due, in one transaction."""
        self._committed_s = now_s
        due = everything or (now_s - self._saved_s) * 1000.0 >= self._settings.snapshot_every_ms
        only = None if due else self._member.unsaved | (save or set())
        snapshots = self._member.snapshots(self._topics.partitions, only)
        # With a snapshot goes its position, though it was committed before: the group refuses it from a member that
        # has lost the partition without knowing it (KIP-447).
        positions = self._member.positions(snapshots)
        if not positions and not self._open:
            return
        self._begin()
        for source, records in snapshots.items():
            for key, value in records:
                self._produce(self._settings.changelog, source[1], key, value, round(time.time() * 1000))
        prefix = self._settings.topic_prefix
        offsets = [TopicPartition(f"{prefix}{topic}", part, at) for (topic, part), at in positions.items()]
        if offsets:
            self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata(), ANSWER_S_MAX)
        self._commit_transaction()
        self._member.committed()
        self._open, self._begun_s = False, math.inf
        self._transactions += 1
        if due:
            self._saved_s = now_s

    def _overdue(self) -> bool:
        """Whether the cluster has given the transaction up by itself: it then fences as if another process had come."""
        lasted_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._begun_s
        return lasted_s * 1000.0 >= self._settings.transaction_timeout_ms

    def _commit_transaction(self) -> None:
        until_s = time.monotonic() + COMMIT_S_MAX
        while True:
            try:
                self._producer.commit_transaction(ANSWER_S_MAX)
            except KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < until_s:
                    continue  # the same call again finds out what became of it
                raise
            if self._problem is not None:
                raise self._problem
            return

    # for people

    def _tell(self, state: str) -> None:
        told = self._member.status()
        behind = self._fetcher.lags(told["positions"]) if state == "up" else {}
        trouble = self._fetcher.trouble or None
        if trouble and trouble != self._status.get("error"):
            log.warning("%s", trouble)
        for news in late_news(self._status.get("too_late_by_rule", {}), told.get("too_late_by_rule", {})):
            log.warning("%s: topic late names each", news)
        self._status = {
            "state": state,
            "error": trouble,
            "group": self._settings.group_id,
            "instance": self._instance,
            "rebalances": self._rebalances,
            "restarts": self._restarts,
            "transactions": self._transactions,
            **told,
            "lag_records": sum(behind.values()),
            "lag_by_partition": behind,
        }


def _code(error: BaseException) -> int | None:
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        return int(error.args[0].code())
    return None
