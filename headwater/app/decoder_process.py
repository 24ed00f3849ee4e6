"""The work process's side of a decoder's own process: start it, ask it, kill it when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence

import msgspec

from devices.profiles import Profile
from devices.reading import Reading
from devices.user_settings import DecoderSettings
from headwater.app.frames import encode_frame, read_frame
from headwater.app.prints import PRINTS_S, pass_prints
from headwater.errors import UNREADABLE, HeadwaterError, PeerError

log = logging.getLogger("headwater.decoders")

Item = tuple[str, bytes, int, str, str]
"""(topic, payload, arrival_ms, source, device): what `headwater.app.decoder_child` reads."""

START_S = 20.0
"""A Raspberry Pi that boots takes its time over an import."""
ANSWER_BYTES_MAX = 8 << 20
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Of one message: its readings, or the reason why there are none; `failed`: the decoder's own fault."""

    readings: list[Reading]
    reason: str
    failed: bool


class DecoderDied(HeadwaterError):  # noqa: N818 - an event that its caller deals with
    """The process was killed, or ended by itself; `what` says where and why."""


class DecoderBroken(HeadwaterError):  # noqa: N818 - as above
    """The decoder cannot be loaded: no message is to blame."""


_answers = msgspec.msgpack.Decoder(list[Answer])


class DecoderProcess:
    """One decoder's process, started when first asked and again after it died."""

    def __init__(self, profile: Profile, settings: DecoderSettings) -> None:
        self._profile = profile
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._trace = -1
        self._prints: asyncio.Task[None] | None = None
        self.kills = 0

    async def decode(self, items: Sequence[Item]) -> list[Answer]:
        """One answer per item. Raises `DecoderDied`, `DecoderBroken`."""
        if self._process is None:
            await self._start()
        answer = await self._ask(list(items), self._settings.time_max_ms / 1000)
        try:
            answers = _answers.decode(answer)
        except UNREADABLE as error:
            await self.kill()
            raise DecoderDied(f"the decoder's process answered with what is no answer: {error}") from None
        if len(answers) != len(items):
            await self.kill()
            raise DecoderDied(f"{len(answers)} answers for {len(items)} messages")
        return answers

    async def _start(self) -> None:
        self._trace = os.memfd_create("headwater-trace")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "headwater.app.decoder_child"),  # -P: no folder of the user's shadows ours
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(self._trace,),
            start_new_session=True,  # a group of its own: what it starts ends with it
        )
        self._prints = asyncio.create_task(pass_prints(self._process, self._say))
        settings = self._settings
        plain = msgspec.to_builtins(self._profile)
        hello = [plain, settings.memory_max_bytes, settings.time_max_ms, os.getpid(), self._trace]
        try:
            problem = msgspec.msgpack.decode(await self._ask(hello, START_S), type=str)
        except DecoderDied as error:
            raise DecoderBroken(error.what) from None
        if problem:
            await self.kill()
            raise DecoderBroken(problem)

    async def _ask(self, value: object, seconds: float) -> bytes:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - it runs
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(encode_frame(value))
                await process.stdin.drain()
                answer = await read_frame(process.stdout)
        except TimeoutError:
            place = self._place()
            await self.kill()
            raise DecoderDied(f"{place}still at it after {seconds:g} s, so it was killed") from None
        except ConnectionError:
            answer = None
        except PeerError as error:
            await self.kill()
            raise DecoderDied(f"what it makes of a message is too much: {error}") from None
        if answer is not None and len(answer) > ANSWER_BYTES_MAX:
            await self.kill()
            raise DecoderDied(f"it makes {len(answer)} bytes of readings, {ANSWER_BYTES_MAX} is the most")
        if answer is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), PRINTS_S)
            code = process.returncode or 0
            await self.kill()
            how = f"ended by signal {-code}" if code < 0 else f"ended itself with status {code}"
            raise DecoderDied(f"the decoder's process {how}")
        return answer

    def _place(self) -> str:
        """Where it hangs, from the traceback that it left: the innermost line of the decoder's own file."""
        with contextlib.suppress(OSError):
            text = os.pread(self._trace, 64 << 10, 0).decode("utf-8", "replace")
            found = _FRAME.findall(text)
            file = self._profile.decoder.rpartition(":")[0]
            for name, line in [one for one in found if one[0] == file] or found:
                return f"{name.rpartition('/')[2]}, line {line}: "
        return ""

    async def kill(self) -> None:
        """End it at once; `decode` starts it anew."""
        process, self._process = self._process, None
        if process is None:
            return
        self.kills += 1
        if process.returncode is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if self._prints is not None:
            # What the decoder has started and left behind may hold its stderr open for ever.
            await asyncio.wait([self._prints], timeout=PRINTS_S)
            self._prints.cancel()
        with contextlib.suppress(TimeoutError):  # some versions of asyncio wait for the pipes too
            await asyncio.wait_for(process.wait(), PRINTS_S)
        process._transport.close()  # type: ignore[attr-defined]  # pipes that others hold open: nothing else closes them
        os.close(self._trace)

    def _say(self, line: str) -> None:
        log.info("decoder of profile %s says: %s", self._profile.name, line)
