"""Core's part of `headwater deadletter replay`: what a mended profile makes of dead letters, appended once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from devices.profiles import Profile
from gateway.ingest.outcome import Outcome
from gateway.ingest.pipeline import Ingest
from gateway.ingest.replays import REPLAY_HEADER, Replays
from gateway.ingest.tail import headers_of, tail_columns_from
from headwater.disk import Disk
from headwater.errors import UserError
from headwater.sealed import is_there, read_sealed, write_sealed

JOURNAL = "replayed.json"


class Replayer:
    """Keeps the journal; one batch at a time."""

    def __init__(self, ingest: Ingest, disk: Disk, data_dir: str) -> None:
        self._ingest = ingest
        self._disk = disk
        self._path = f"{data_dir}/node/{JOURNAL}"
        self._replays: Replays | None = None
        self._lock = asyncio.Lock()

    async def done(self) -> list[tuple[int, int]]:
        """Ranges of dead letters that are readings by now."""
        async with self._lock:
            return list((await self._open()).done)

    async def replay(self, profile: Profile | None, outcomes: Sequence[Outcome]) -> int | None:
        """Append the readings of dead letters (`Outcome.offset` is theirs) that were not replayed before.

        Returns how many dead letters that were; None: the disk failed, and nothing counts as done.
        """
        async with self._lock:
            replays = await self._open()
            end = self._ingest.deadletter.synced_offset
            fresh = [one for one in outcomes if one.offset not in replays and one.readings and one.offset < end]
            if not fresh:
                return 0
            offsets = [one.offset for one in fresh]
            replays.begun(offsets, self._ingest.readings.log_end_offset)
            await self._save(replays)
            stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._ingest.take_replayed(profile, fresh, stored.set_result)
            if not await stored:
                self._replays = None  # what is on disk of it, the log tells
                return None
            replays.finished(offsets)
            replays.forget_below(self._ingest.deadletter.log_start_offset)
            await self._save(replays)
            return len(fresh)

    async def _open(self) -> Replays:
        if self._replays is None:
            replays = await asyncio.to_thread(self._load)
            if (start := replays.unsettled) is not None:
                found: list[bytes] = []
                # In the loop, which alone may read the log; piece by piece, so that it does not stand still.
                for columns in tail_columns_from(self._ingest.readings, start):
                    found += [headers_of(blob).get(REPLAY_HEADER, b"") for blob in columns.headers if len(blob) > 1]
                    await asyncio.sleep(0)
                replays.found(found)
                await self._save(replays)
            self._replays = replays
        return self._replays

    def _load(self) -> Replays:
        found = read_sealed(self._disk, self._path, Replays.of)
        if found is None and is_there(self._disk, self._path):
            raise UserError(
                f"{self._path} is damaged, and so is its copy",
                hint="Without them a dead letter could be stored twice; remove both if none was ever replayed.",
            )
        return found or Replays()

    async def _save(self, replays: Replays) -> None:
        await asyncio.to_thread(write_sealed, self._disk, self._path, replays.members())
