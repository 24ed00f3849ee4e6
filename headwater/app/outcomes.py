"""The way back from a user's decoder into the log: `<data>/node/decoded.sock`, mode 0600, core and work process.

A decoder's driver connects, says where it believes to be, and sends what became of the messages, a batch at a time;
each is answered when it is on disk. Frames are those of `headwater.app.frames`:

    ["hello", profile, position]              → [start, [offsets above it that are settled]]
    ["outcomes", profile, first, next, [Outcome…]]  → true, or false: the disk failed, send it again
    ["replayed"]                              → [[first, end]…] of the dead letters that are readings by now
    ["replay", profile or null, [Outcome…]]   → how many of these dead letters are readings now, or the error

One batch per decoder is under way at a time, also over a driver that was killed and came back: its hello is answered
when what the old one sent is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from devices.profiles import Profile
from gateway.ingest.outcome import Outcome
from gateway.ingest.pipeline import Ingest
from gateway.ingest.raw import OUTCOMES_MAX
from headwater.app.control import listen_unix, short_path
from headwater.app.frames import encode_frame, read_frame
from headwater.app.replaying import Replayer
from headwater.disk import Disk
from headwater.errors import UNREADABLE, HeadwaterError, PeerError, UserError

SOCKET_NAME = "decoded.sock"
ANSWER_S = 30.0


class Replay(msgspec.Struct, array_like=True, frozen=True):
    """What a mended profile makes of dead letters (their offsets)."""

    what: Literal["replay"]
    profile: Profile | None
    outcomes: list[Outcome]


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """A driver begins."""

    what: Literal["hello"]
    profile: str
    position: int


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What became of all messages of a profile from offset `first` to `next_offset`, but for those settled before."""

    what: Literal["outcomes"]
    profile: str
    first: int
    next_offset: int
    outcomes: list[Outcome]


_REPLAY = msgspec.msgpack.Decoder(Replay)
_HELLO = msgspec.msgpack.Decoder(Hello)
_BATCH = msgspec.msgpack.Decoder(Batch)


class OutcomeServer:
    """Core's end: hands batches to ingest."""

    def __init__(self, ingest: Ingest, path: str, replayer: Replayer) -> None:
        self._ingest = ingest
        self._path = path
        self._replayer = replayer
        self._server: asyncio.Server | None = None
        self._locks = {name: asyncio.Lock() for name in ingest.raw.profiles}
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    async def start(cls, ingest: Ingest, data_dir: str, disk: Disk) -> OutcomeServer:
        """Listen; the data directory must be locked."""
        self = cls(ingest, os.path.join(data_dir, "node", SOCKET_NAME), Replayer(ingest, disk, data_dir))
        listening = listen_unix(data_dir, SOCKET_NAME, mode=0o600)
        self._server = await asyncio.start_unix_server(self._serve, sock=listening)
        return self

    def close(self) -> None:
        """Take nothing more; what was handed over is settled by ingest."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (frame := await read_frame(reader)) is not None:
                writer.write(encode_frame(await self._answer(frame)))
                await writer.drain()
        except (*UNREADABLE, PeerError, OSError):
            pass  # the driver of another version, or dead: it connects again and begins with hello
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, frame: bytes) -> Any:
        what = frame[2 : 2 + (frame[1] & 31)]  # the first of an array is a short text
        if what == b"replayed":
            return await self._replayer.done()
        if what == b"replay":
            return await self._replay(_REPLAY.decode(frame))
        if what == b"hello":
            hello = _HELLO.decode(frame)
            async with self._lock(hello.profile):
                progress = self._ingest.raw.progress[hello.profile]
                progress.settled(hello.position)
                return progress.start, sorted(progress.found)
        batch = _BATCH.decode(frame)
        if len(batch.outcomes) > OUTCOMES_MAX:
            raise PeerError(f"{len(batch.outcomes)} outcomes, {OUTCOMES_MAX} is the most")
        async with self._lock(batch.profile):
            # shielded: a driver that dies now must not make the next one believe that nothing is under way
            return await asyncio.shield(asyncio.ensure_future(self._store(batch)))

    async def _replay(self, request: Replay) -> int | str:
        try:
            done = await asyncio.shield(asyncio.ensure_future(self._replayer.replay(request.profile, request.outcomes)))
        except (HeadwaterError, OSError) as error:
            return str(error)
        return "the disk failed; nothing of this batch counts as replayed" if done is None else done

    def _lock(self, name: str) -> asyncio.Lock:
        if name not in self._locks:
            raise PeerError(f"no profile with a decoder is called “{name}”")
        return self._locks[name]

    async def _store(self, batch: Batch) -> bool:
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(ok: bool) -> None:  # noqa: FBT001 - as every `done`
            if not stored.done():
                stored.set_result(ok)

        self._ingest.take_outcomes(
            batch.profile, batch.outcomes, first=batch.first, next_offset=batch.next_offset, done=done
        )
        return await stored


class OutcomeLink:
    """The work process's end, of one decoder."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, data_dir: str) -> OutcomeLink:
        """Raises OSError."""
        with short_path(data_dir, SOCKET_NAME) as path:
            return cls(*await asyncio.open_unix_connection(path))

    async def hello(self, profile: str, position: int) -> tuple[int, set[int]]:
        """(Where to go on, offsets above it that are settled already)."""
        start, found = msgspec.msgpack.decode(await self._ask(["hello", profile, position]), type=tuple[int, list[int]])
        return start, set(found)

    async def send(self, profile: str, outcomes: Sequence[Outcome], *, first: int, next_offset: int) -> bool:
        """Whether it is on disk; False: send it again."""
        return msgspec.msgpack.decode(await self._ask(["outcomes", profile, first, next_offset, outcomes]), type=bool)

    async def _ask(self, value: list[Any]) -> bytes:
        async with asyncio.timeout(ANSWER_S):
            self._writer.write(encode_frame(value))
            await self._writer.drain()
            answer = await read_frame(self._reader)
        if answer is None:
            raise HeadwaterError("the core closed the decoders' socket")
        return answer

    async def replayed(self) -> list[tuple[int, int]]:
        """Ranges of the dead letters that are readings by now, the end exclusive."""
        return msgspec.msgpack.decode(await self._ask(["replayed"]), type=list[tuple[int, int]])

    async def replay(self, profile: Profile | None, outcomes: Sequence[Outcome]) -> int:
        """How many of these dead letters became readings, the others were before. Raises UserError."""
        told = profile if profile is None else msgspec.to_builtins(profile)
        answer = msgspec.msgpack.decode(await self._ask(["replay", told, outcomes]), type=int | str)
        if isinstance(answer, str):
            raise UserError(answer, hint="`headwater status` says how the node is.")
        return answer

    def close(self) -> None:
        self._writer.close()
