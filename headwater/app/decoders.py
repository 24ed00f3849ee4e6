"""Users' own decoders, in the work process: topic `raw` → a process for each decoder → back to the core.

Each decoder goes through topic `raw` at its own pace, over the node's own Kafka listener; its messages are those that
carry its profile's name. What becomes of them goes back over `headwater.app.outcomes`, a batch at a time. Where it is
follows from the log itself (see `gateway.ingest.raw`); the small file `decoder-<profile>.json` beside the processors'
checkpoint only spares a restart what said nothing worth storing.

A message that kills its decoder (an endless loop, a crash) is tried again alone, then becomes a dead letter. A decoder
that fails over many messages in a row is paused: they wait in the log, and one of them is tried now and then, or
when its file changes. All of that is one decoder's: the others and the page go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from devices.profile_files import read_profiles
from devices.profiles import Profile
from devices.user_settings import DecoderSettings
from gateway.consume.reader import Reader
from gateway.ingest.outcome import Outcome
from gateway.ingest.raw import RAW_TOPIC, with_decoder
from gateway.ingest.serial import port_profile
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.app.decoder_process import Answer, DecoderBroken, DecoderDied, DecoderProcess
from headwater.app.decoder_rows import Row, parts_of, rows_of
from headwater.app.outcomes import OutcomeLink
from headwater.clock import Clock
from headwater.disk import Disk
from headwater.errors import HeadwaterError
from headwater.net import Net
from headwater.sealed import is_there, read_sealed, seal
from headwater.settings.model import Settings

log = logging.getLogger("headwater.decoders")

POLL_WAIT_MS = 500
POLL_BYTES = 1 << 20
BATCH_BYTES = 1 << 20
SAVE_EVERY_MS = 5_000
BACKOFF_S = (0.2, 5.0)
STEADY_MS = 30_000
LOOK_S = 1.0
"""How often a paused decoder's file is looked at."""
KILL_WEIGHT = 5
_PARTITION = (RAW_TOPIC, 0)


class Pause:
    """When a decoder is paused, and for how long."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._wait_ms = settings.pause_min_ms
        self.reason = ""  # "" while it is well

    def goes_on(self, answer: Answer, *, killed: bool) -> bool:
        """What became of the next message; False: the decoder is paused after it."""
        if not answer.failed:
            self._failures, self.reason, self._wait_ms = 0, "", self._settings.pause_min_ms
            return True
        self._failures += KILL_WEIGHT if killed else 1
        if self._failures >= self._settings.failures_max or self.reason:
            self.reason = answer.reason
        return not self.reason

    def broken(self, reason: str) -> None:
        """It cannot even be loaded."""
        self.reason = reason

    def next_wait_ms(self) -> int:
        """How long to wait before the next try; the one after that is later."""
        wait_ms = self._wait_ms
        self._wait_ms = min(wait_ms * 2, self._settings.pause_max_ms)
        return wait_ms


class Decoder:
    """One profile's decoder on its way through topic `raw`."""

    def __init__(
        self,
        profile: Profile,
        settings: DecoderSettings,
        *,
        connect: Callable[[], Awaitable[Reader]],
        clock: Clock,
        data_dir: str,
        disk: Disk,
    ) -> None:
        self.profile = profile
        self._settings = settings
        self._connect = connect
        self._clock = clock
        self._data_dir = data_dir
        self._disk = disk
        self._folder = f"{data_dir}/work"
        self._path = f"{self._folder}/decoder-{profile.name}.json"
        self._process = DecoderProcess(profile, settings)
        self._pause = Pause(settings)
        self._position = 0
        self._saved = (-1, 0.0)  # position, when
        self._found: set[int] = set()
        self._batch_max = settings.batch_messages
        self._state = "starting"
        self._problem = ""
        self._counts = {"messages": 0, "rejected": 0, "failed": 0, "killed": 0, "expired": 0}
        self._lag = 0

    def status(self) -> dict[str, Any]:
        """What `headwater status` shows of it."""
        return {"state": self._state, "lag_records": self._lag, "problem": self._problem or None, **self._counts}

    def problem(self) -> str:
        """A sentence while it is paused, for the verdict on the node; "" while it is well."""
        return self._problem

    async def run(self) -> None:
        """Until cancelled; whatever breaks on the way to the core is waited out."""
        wait_s, said = BACKOFF_S[0], ""
        try:
            while True:
                began_ms = self._clock.monotonic_ms()
                try:
                    await self._work()
                except (HeadwaterError, OSError, TimeoutError) as error:
                    text = f"{type(error).__name__}: {error}"
                    if text != said:
                        log.warning("decoder of profile %s connects anew: %s", self.profile.name, text)
                    said = text
                    if self._clock.monotonic_ms() - began_ms > STEADY_MS:
                        wait_s = BACKOFF_S[0]
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, BACKOFF_S[1])
        finally:
            await self._process.kill()
            self._save()

    async def _work(self) -> None:
        reader = await self._connect()
        try:
            link = await OutcomeLink.connect(self._data_dir)
            try:
                if self._saved[0] < 0:
                    self._position = self._load()
                await self._find_start(reader, link)
                while True:
                    await self._round(reader, link)
            finally:
                link.close()
        finally:
            await reader.close()

    async def _find_start(self, reader: Reader, link: OutcomeLink) -> None:
        earliest, latest = await reader.offset(*_PARTITION, "earliest"), await reader.offset(*_PARTITION, "latest")
        if self._position > latest:
            log.warning("topic raw ends at %d, before %d: another log; reading all of it", latest, self._position)
            self._position = earliest
        start, self._found = await link.hello(self.profile.name, self._position)
        self._go_to(reader, max(earliest, min(start, latest)))

    def _go_to(self, reader: Reader, position: int) -> None:
        self._position = position
        reader.assign({_PARTITION: position})

    async def _round(self, reader: Reader, link: OutcomeLink) -> None:
        try:
            blocks = await reader.poll(max_wait_ms=POLL_WAIT_MS, max_bytes=POLL_BYTES)
        except KafkaError as error:
            if error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                raise
            earliest = await reader.offset(*_PARTITION, "earliest")
            self._counts["expired"] += max(0, earliest - self._position)
            log.warning("decoder of %s: raw %d to %d expired unread", self.profile.name, self._position, earliest - 1)
            self._go_to(reader, earliest)
            return
        end = reader.ends.get(_PARTITION, self._position)
        for block in blocks:
            rows = [row for row in rows_of(block, self.profile.name) if row.offset not in self._found]
            while rows:
                self._lag = max(0, end - rows[0].offset)
                rows = await self._settle(link, rows, block.next_offset)
            self._position = block.next_offset
        self._lag = max(0, end - self._position)
        if not self._pause.reason:
            self._state = "running"
        if self._clock.monotonic_ms() - self._saved[1] >= SAVE_EVERY_MS:
            self._save()

    def _next_batch(self, rows: list[Row]) -> list[Row]:
        if self._pause.reason:
            return rows[:1]
        size, count = 0, 0
        for row in rows[: self._batch_max]:
            size += len(row.payload) + 100
            if count and size > BATCH_BYTES:
                break
            count += 1
        return rows[:count]

    async def _settle(self, link: OutcomeLink, rows: list[Row], end: int) -> list[Row]:
        """Decode the first batch of these and have it stored; returns the others, when it is on disk."""
        if self._pause.reason:
            await self._wait_paused()
        batch = self._next_batch(rows)
        while True:
            try:
                answers = await self._decode(batch)
                break
            except DecoderBroken as error:
                self._pause.broken(error.what)
                await self._wait_paused()
        rest = rows[len(answers) :]
        outcomes = [self._outcome(row, answer) for row, answer in zip(rows, answers, strict=False)]
        parts = list(parts_of(outcomes))
        for part, following in zip(parts, [*(part[0].offset for part in parts[1:]), None], strict=True):
            last = rest[0].offset if rest else end
            next_offset = last if following is None else following
            while True:
                if await link.send(self.profile.name, part, first=part[0].offset, next_offset=next_offset):
                    break
                await asyncio.sleep(LOOK_S)  # the core says what is wrong with the disk
        self._counts["messages"] += len(answers)
        self._counts["rejected"] += sum(bool(answer.reason) and not answer.failed for answer in answers)
        self._counts["failed"] += sum(answer.failed for answer in answers)
        return rest

    def _outcome(self, row: Row, answer: Answer) -> Outcome:
        told = (row.offset, row.source, row.arrival_ms, row.topic)
        # with the payload in any case: the core may have a reason of its own for a dead letter
        return Outcome(*told, answer.readings, answer.reason, self.profile.name if answer.reason else "", row.payload)

    async def _decode(self, batch: list[Row]) -> list[Answer]:
        """Answers to its messages up to where the decoder is paused; one that kills it is found by trying each."""
        tries = self._settings.tries
        answers: list[Answer] = []
        try:
            for answer in await self._process.decode([row.item for row in batch]):
                answers.append(answer)
                if not self._goes_on(answer):
                    break
            self._batch_max = min(self._settings.batch_messages, self._batch_max * 2)
        except DecoderDied as error:
            self._counts["killed"] += 1
            self._batch_max = max(1, len(batch) // 2)
            for row in batch:
                answer, killed = await self._alone(row, tries - (len(batch) == 1), error.what)
                answers.append(answer)
                if not self._goes_on(answer, killed=killed):
                    break
        return answers

    async def _alone(self, row: Row, tries: int, why: str) -> tuple[Answer, bool]:
        """(The answer to one message that is tried alone, whether it killed its decoder)."""
        for _ in range(tries):
            try:
                [answer] = await self._process.decode([row.item])
            except DecoderDied as error:
                self._counts["killed"] += 1
                why = error.what
            else:
                return answer, False
        log.warning("decoder of %s: the message at raw %d killed it: %s", self.profile.name, row.offset, why)
        return Answer([], why, failed=True), True

    def _goes_on(self, answer: Answer, *, killed: bool = False) -> bool:
        goes_on = self._pause.goes_on(answer, killed=killed)
        if goes_on and self._problem:
            self._problem, self._state = "", "running"
            log.info("decoder of profile %s is at work again", self.profile.name)
        return goes_on

    async def _wait_paused(self) -> None:
        """Until it is time for another try, or the decoder's file is another one."""
        reason, wait_ms = self._pause.reason, self._pause.next_wait_ms()
        if not self._problem:
            log.error("decoder of profile %s is paused: %s", self.profile.name, reason)
        self._state = "paused"
        self._problem = (
            f"the decoder of profile {self.profile.name} is paused, its messages wait in topic raw: {reason}; "
            "mend its file and it goes on"
        )
        until_ms, mended = self._clock.monotonic_ms() + wait_ms, self._stamp()
        while True:
            await asyncio.sleep(min(LOOK_S, wait_ms / 1000))
            if self._clock.monotonic_ms() >= until_ms or self._stamp() != mended:
                break
        await self._process.kill()  # what it runs now may be the old file

    def _stamp(self) -> tuple[int, int]:
        try:
            told = os.stat(self.profile.decoder.rpartition(":")[0])
        except OSError:
            return 0, 0
        return told.st_mtime_ns, told.st_size

    # --- where it is

    def _load(self) -> int:
        saved = read_sealed(self._disk, self._path, lambda fields: msgspec.convert(fields, dict[str, int]))
        if saved is None:
            if is_there(self._disk, self._path):
                log.warning("%s is damaged: all of topic raw is read again", self._path)
            return 0
        return max(0, saved.get("position", 0))

    def _save(self) -> None:
        if self._saved[0] != self._position:
            if not self._disk.exists(self._folder):
                self._disk.make_directory(self._folder)
            self._disk.replace_file(self._path, seal({"position": self._position}))
        self._saved = (self._position, self._clock.monotonic_ms())


class Decoders:
    """All decoders of a node. `run` in a loop and thread of its own; the rest from any thread."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders
        self._stopping = False

    def stop(self) -> None:
        """End `run`."""
        self._stopping = True

    def status(self) -> dict[str, Any]:
        return {decoder.profile.name: decoder.status() for decoder in self._decoders}

    def problems(self) -> list[str]:
        return [problem for decoder in self._decoders if (problem := decoder.problem())]

    async def run(self) -> None:
        """Until `stop`; a defect of one ends all, and the work process begins again clean."""
        tasks = [asyncio.ensure_future(decoder.run()) for decoder in self._decoders]
        try:
            while not self._stopping:
                done, _ = await asyncio.wait(tasks, timeout=0.25)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def configured_decoders(
    settings: Settings, host: str, port: int, net: Net, clock: Clock, disk: Disk
) -> Decoders | None:
    """The decoders of the node whose Kafka listener is at `host:port`; None when it has none."""
    ports = [profile for one in settings.serial if (profile := port_profile(one)) is not None]
    profiles = with_decoder([*read_profiles(settings.profiles), *ports])

    async def connect() -> Reader:
        return await Reader.connect(net, host, port, client_id="headwater-decoders", committed=True)

    data_dir = settings.data_dir
    decoders = [
        Decoder(profile, settings.decoders, connect=connect, clock=clock, data_dir=data_dir, disk=disk)
        for profile in profiles
    ]
    return Decoders(decoders) if decoders else None
