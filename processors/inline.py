"""The inline driver: a node's own processors over its own log, in its work process.

It reads the rules' topics at `read_committed` over the node's own Kafka listener, runs the pure processors partition
by partition, and writes what they say to the topics `aggregates` and `alerts`. Exactly once: a checkpoint (state,
next input offset, output numbers, ends of the output topics) is replaced atomically from time to time; after any
failure everything in memory is dropped and the driver goes back to it, reads what it had written since, computes the
same again and drops that. Sequence numbers that go on across starts keep a write with a lost answer from being
in the log twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.consume.reader import Reader
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.clock import Clock
from headwater.disk import Disk, read_or_none
from headwater.errors import HeadwaterError
from headwater.net import Net
from processors import outputs
from processors.batches import decode_batches
from processors.budget import NO_LIMITS, Limits
from processors.checkpoint import (
    Checkpoint,
    CheckpointError,
    InputState,
    Writer,
    decode_checkpoint,
    encode_checkpoint,
    grown,
)
from processors.job import RELAY_CONFIG, Job, PartitionWork, as_job
from processors.marks import WatermarkTracker
from processors.outputs import Log, Written
from processors.processor import Output, PartitionProcessor
from processors.rules.model import Rules
from processors.settings import ProcessorSettings
from processors.silence import SilenceWatch, silence_record
from processors.unread import LOOK_EVERY_MS, UnreadInputs, unread_record

log = logging.getLogger(__name__)

PARTITIONS_EVERY_MS = 10_000
STATUS_EVERY_MS = 250
LISTEN_EVERY_MS = 1_000
_DAY_MS = 86_400_000


class _StaleCheckpointError(HeadwaterError):
    """The checkpoint speaks of another log than the one that is there."""


class Processors:
    """One job of a node. `run` in a loop and thread of its own; `status` and `stop` from any thread.

    `name` is that of its checkpoint: each job has its own.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        rules: Rules | Job,
        *,
        connect: Callable[[], Awaitable[Log]],
        clock: Clock,
        data_dir: str,
        disk: Disk,
        name: str = "processors",
    ) -> None:
        self._settings = settings
        self._job = as_job(rules, settings.place, name)
        self._connect = connect
        self._clock = clock
        self._disk = disk
        self._folder = f"{data_dir}/work"
        self._path = f"{self._folder}/{name}.checkpoint"
        self._stopping = False
        self._forget = ""  # why the checkpoint must not be used, "" when it may be
        self._expired_records = 0
        self._restarts = 0
        self._grown: list[str] = []  # of input topics with more partitions than before, until the next start
        self._status: dict[str, Any] = self._new_status("connecting")
        self._checkpoint: Checkpoint
        self._inputs: dict[tuple[str, int], PartitionWork] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._writers: dict[tuple[str, int], Writer] = {}
        self._silences: dict[tuple[str, int], SilenceWatch] = {}
        self._unread = UnreadInputs({})
        self._output_partitions = 1
        self._limits = NO_LIMITS
        self._said: set[str] = set()  # what became of changed rules: logged once

    # the outside

    def stop(self) -> None:
        """End `run` after the round that is under way, with a checkpoint."""
        self._stopping = True

    def status(self) -> dict[str, Any]:
        """What the page and metrics show; replaced as a whole, so that any thread may read it."""
        return self._status

    async def run(self) -> None:
        """Until `stop` or cancellation. Failures of the connection are waited out; a full disk too."""
        backoff_ms = self._settings.backoff_min_ms
        said = ""
        while not self._stopping:
            try:
                reader = await self._connect()
                try:
                    await self._restore(reader)
                    if said:
                        log.info("processors: at work again")
                    said, backoff_ms = "", self._settings.backoff_min_ms
                    await self._work(reader)
                finally:
                    await reader.close()
            except (HeadwaterError, OSError, TimeoutError) as error:
                if isinstance(error, _StaleCheckpointError):
                    self._forget = error.what
                text = f"{type(error).__name__}: {error}"
                if text != said:
                    log.warning("processors: back to the last checkpoint: %s", text)
                said = text
                self._restarts += 1
                self._status = {**self._status, "state": "connecting", "error": str(error), "restarts": self._restarts}
                await asyncio.sleep(backoff_ms / 1000)
                backoff_ms = min(backoff_ms * 2, self._settings.backoff_max_ms)

    # starting

    def _load(self) -> Checkpoint | None:
        """The checkpoint file; None when there is none to go on from."""
        if self._forget:
            log.warning("processors: %s; rebuilding from the log's start", self._forget)
            return None
        data = read_or_none(self._disk, self._path)
        if data is None and not self._disk.exists(self._path):
            return None
        try:
            return decode_checkpoint(data or b"")
        except CheckpointError as error:
            why = error.what if data is not None else "it lies on a bad sector"
            log.warning("processors: %s cannot be used: %s; rebuilding from the log's start", self._path, why)
            return None

    async def _restore(self, reader: Log) -> None:
        """Everything in memory anew: from the checkpoint, the output topics and the input partitions."""
        checkpoint = self._load()
        rebuilt = checkpoint is None
        self._checkpoint = checkpoint or Checkpoint()
        self._inputs, self._positions, self._writers = {}, {}, {}
        self._unread = UnreadInputs(self._job.relays)
        relays = await self._make_topics(reader)
        # Numbers found in the outputs can only be matched when the log is whole: see `_begin`.
        written = Written(whole=rebuilt, owns=self._job.owns)
        topics = dict.fromkeys(self._job.outputs, self._output_partitions) | relays
        await outputs.read_written(reader, topics, self._checkpoint, written)
        await self._begin_all(reader, written)
        self._forget = ""

    async def _make_topics(self, reader: Log) -> dict[str, int]:
        """Returns the partitions of relay topics."""
        retention = str(int(self._settings.output_retention_days * _DAY_MS))
        for topic, config in self._job.outputs.items():
            await reader.ensure_topic(topic, self._settings.output_partitions, {"retention.ms": retention, **config})
        counts = [await reader.partitions(topic) for topic in self._job.outputs]
        self._output_partitions = max(1, min(counts))
        for relay, topic in self._job.relays.items():
            await reader.ensure_topic(relay, max(1, await reader.partitions(topic)), RELAY_CONFIG)
        return {relay: await reader.partitions(relay) for relay in self._job.relays}

    async def _begin_all(self, reader: Log, written: Written) -> None:
        """Every input partition that is not at work yet; a new writer is on disk before its first write."""
        new_writers = 0
        partitions = {topic: await reader.partitions(topic) for topic in (*self._job.topics, *self._job.relays)}
        self._job.know(partitions)
        known = {f"{topic}/{partition}" for topic, partition in self._inputs} or self._checkpoint.inputs
        self._grown += grown(known, {topic: partitions[topic] for topic in self._job.topics})
        settings = self._settings
        self._limits = Limits.of_partition(settings, sum(partitions.values()))
        self._job.limit(self._inputs.values(), self._limits)
        for topic, count in partitions.items():
            for partition in range(count):
                if (topic, partition) not in self._inputs:
                    new_writers += await self._begin(reader, topic, partition, written)
        if new_writers:
            self._save()
        for said in (*self._job.about(self._inputs.values()).get("changes", ()), *self._grown):
            if said not in self._said:
                log.info("processors: %s", said)
            self._said.add(said)
        await self._tell_unread(reader)
        if self._positions:
            reader.assign(self._positions)

    async def _begin(self, reader: Log, topic: str, partition: int, written: Written) -> bool:
        """One input partition from the checkpoint, or from its start; whether its writer is a new one."""
        where = (topic, partition)
        writer: Writer | None = None
        processor = self._job.begin(topic, partition, self._limits)
        found = {v: n for (v, p), n in written.counts.items() if p == partition}
        saved = self._checkpoint.inputs.get(f"{topic}/{partition}")
        start = await reader.offset(topic, partition, "earliest")
        if saved is not None:
            fresh = processor.restore(saved.state)
            known = dict.fromkeys(processor.versions, 0) | processor.written
            writer = outputs.writer_after(saved.writer, known, written, partition)
            processor.written |= {v: max(n, processor.written.get(v, 0)) for v, n in found.items()}
            if fresh:
                log.info("processors: %s/%d: new or changed from here on: %s", topic, partition, ", ".join(fresh))
            self._positions[where] = saved.offset
        else:
            self._positions[where] = start
            processor.written = found
            if start > 0 and found:
                # The log's start has expired, so numbers cannot be matched: go on after what was written.
                processor.go_on_after(
                    {v: f for (v, p), f in written.floors.items() if p == partition},
                    {v: i for (v, p), i in written.instances.items() if p == partition},
                )
                log.warning(
                    "processors: %s/%d begins at offset %d; windows already written are not revised any more",
                    *(topic, partition, start),
                )
            if start > 0:
                processor.lost_before(start)
        if topic in self._unread.inputs:
            self._unread.begin(where, self._positions[where], await reader.offset(topic, partition, "latest"))
        self._inputs[where] = processor
        self._writers[where] = writer or Writer(await reader.init_producer())
        return writer is None

    # working

    async def _work(self, reader: Log) -> None:
        settings, clock = self._settings, self._clock
        saved_at = looked_at = listened_at = waited_at = clock.monotonic_ms()
        self._silences = {}
        told_at = -float(STATUS_EVERY_MS)
        changed = False
        while not self._stopping:
            changed |= await self._round(reader)
            now = clock.monotonic_ms()
            if now - told_at >= STATUS_EVERY_MS:
                self._status = self._new_status("up", reader)
                told_at = now
            if changed and now - saved_at >= settings.checkpoint_every_ms:
                self._save()
                changed, saved_at = False, now
            if settings.silent_after_s and settings.place == "central" and now - listened_at >= LISTEN_EVERY_MS:
                await self._speak_for_the_silent(reader, now)
                listened_at = now
            if now - waited_at >= LOOK_EVERY_MS:
                await self._tell_unread(reader)
                waited_at = now
            if now - looked_at >= PARTITIONS_EVERY_MS or not self._positions:
                # Topics may come, and be given more partitions.
                await self._begin_all(reader, Written(whole=False, owns=self._job.owns))
                looked_at = now
        if changed:
            self._save()
        self._status = self._new_status("stopped", reader)

    async def _tell_unread(self, reader: Log) -> None:
        """Say in relay topics which inputs are to be waited for, before anything else is said there."""
        for relay, unread in self._unread.due(self._positions, self._clock.monotonic_ms()).items():
            for target in range(await reader.partitions(relay)):
                await reader.produce(relay, target, [unread_record(unread)])

    async def _speak_for_the_silent(self, reader: Log, now_ms: float) -> None:
        """Write marks in the name of silent nodes, into partitions that are read to their end."""
        wall_ms = self._clock.wall_ms()
        for where, part in self._inputs.items():
            if not isinstance(part, PartitionProcessor) or not isinstance(part.marks, WatermarkTracker):
                continue
            watch = self._silences.setdefault(where, SilenceWatch(self._settings.silent_after_s * 1000))
            if self._positions[where] < reader.ends.get(where, 1 << 62):
                continue
            found = watch.look(part.marks.nodes, part, now_ms=now_ms, wall_ms=wall_ms)
            # Who was stopped for a while knows an end of before that: what came meanwhile is to be read first.
            if found and await reader.offset(*where, "latest") > self._positions[where]:
                continue
            for node, silent_ms in found:
                log.warning("processors: %s made no mark for %.0f s: marked as silent", node, silent_ms / 1000)
                await reader.produce(*where, [silence_record(node, silent_ms, wall_ms)])

    async def _round(self, reader: Log) -> bool:
        """One poll, all of its outputs on disk; whether anything was read."""
        if not self._positions:
            await asyncio.sleep(self._settings.poll_wait_ms / 1000)
            return False
        settings = self._settings
        try:
            blocks = await reader.poll(max_wait_ms=settings.poll_wait_ms, max_bytes=settings.poll_bytes_max)
        except KafkaError as error:
            if error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                raise
            await self._find_way(reader)
            return True
        for block in blocks:
            where = (block.topic, block.partition)
            made: list[Output] = self._inputs[where].process(block)
            if made:
                target = block.partition % self._output_partitions
                await outputs.write(reader, self._checkpoint.ends, self._writers[where], made, target)
            stopped_at = self._inputs[where].stopped_at
            self._positions[where] = block.next_offset if stopped_at is None else stopped_at
            if stopped_at is not None:
                self._stopping = True
                break
        return bool(blocks)

    async def _find_way(self, reader: Log) -> None:
        """A position is outside its log: what expired unread is counted and passed over."""
        for (topic, partition), position in self._positions.items():
            start = await reader.offset(topic, partition, "earliest")
            end = await reader.offset(topic, partition, "latest")
            if position > end:
                raise _StaleCheckpointError(
                    f"{topic}/{partition} ends at offset {end}, before the checkpoint's {position}"
                )
            if position < start:
                log.warning("processors: %s/%d: offsets %d to %d expired unread", topic, partition, position, start - 1)
                self._expired_records += start - position
                self._positions[topic, partition] = start
                self._inputs[topic, partition].lost_before(start)
                self._save()  # begun again from here, it says the same
        reader.assign(self._positions)

    def _save(self) -> None:
        self._checkpoint.inputs = {
            f"{topic}/{partition}": InputState(
                self._positions[topic, partition], processor.snapshot(), self._writers[topic, partition]
            )
            for (topic, partition), processor in self._inputs.items()
        }
        if not self._disk.exists(self._folder):
            self._disk.make_directory(self._folder)
        self._disk.replace_file(self._path, encode_checkpoint(self._checkpoint))

    # for people

    def _new_status(self, state: str, reader: Log | None = None) -> dict[str, Any]:
        inputs = getattr(self, "_inputs", {})
        totals = {"windows_emitted": 0, "revisions": 0, "late": 0, "too_late": 0, "overflow": 0, "refused": 0}
        for processor in inputs.values():
            for name, count in processor.counters().items():
                totals[name] = totals.get(name, 0) + count
        ends = reader.ends if reader is not None else {}
        positions = {f"{topic}/{partition}": at for (topic, partition), at in getattr(self, "_positions", {}).items()}
        lag = sum(max(0, ends.get(where, at) - at) for where, at in getattr(self, "_positions", {}).items())
        about = self._job.about(inputs.values())
        if self._grown:
            about["changes"] = [*about.get("changes", ()), *self._grown]
        return {
            "state": state,
            "error": None,
            "restarts": self._restarts,
            "rules": self._job.names,
            **totals,
            **about,
            "expired": self._expired_records,
            "alerts": [alert for processor in inputs.values() for alert in processor.alerts()][:1000],
            "positions": positions,
            "lag_records": lag,
        }


def make_processors(
    settings: ProcessorSettings,
    rules: Rules | Job,
    host: str,
    port: int,
    net: Net,
    clock: Clock,
    data_dir: str,
    disk: Disk,
    *,
    name: str = "processors",
) -> Processors:
    """The processors of the node whose Kafka listener is at `host:port`."""

    async def connect() -> Log:
        return await Reader.connect(net, host, port, client_id="headwater-processors", decode=decode_batches)

    return Processors(settings, rules, connect=connect, clock=clock, data_dir=data_dir, disk=disk, name=name)
