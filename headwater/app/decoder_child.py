"""The process that runs one user's decoder: `python -m headwater.app.decoder_child`.

It reads frames (`headwater.app.frames`) from stdin and answers each on what was stdout; the decoder's own prints go to
stderr. The first frame is `[profile, memory_max_bytes, time_max_ms, parent pid, trace descriptor]`, answered with ""
or with what keeps the decoder from being loaded. Each further one is a list of `[topic, payload, arrival_ms, source,
device]`, answered with a list of `[readings, reason, failed]`. Just before the time is over, the place where it hangs
is written to the trace descriptor, and then the parent kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import sys
from typing import Any, BinaryIO

import msgspec

from devices.profiles import Profile
from devices.user_code import Message, UserDecoder
from headwater.errors import UserError

_PR_SET_PDEATHSIG = 1
_TRACE_SHARE = 0.9


def main() -> int:
    """Until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    profile, memory_max_bytes, time_max_ms, parent, trace = msgspec.msgpack.decode(_read(requests) or b"\x90")
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the node decides
    resource.setrlimit(resource.RLIMIT_AS, (memory_max_bytes, memory_max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = time_max_ms / 1000 * _TRACE_SHARE
    _watch(trace, seconds)
    try:
        decoder = UserDecoder(msgspec.convert(profile, Profile))
    except UserError as error:
        _write(answers, f"{error.what}. {error.hint}".rstrip())
        return 2
    _write(answers, "")
    while (frame := _read(requests)) is not None:
        _watch(trace, seconds)
        _write(answers, [_result(decoder, message) for message in msgspec.msgpack.decode(frame)])
        faulthandler.cancel_dump_traceback_later()
    return 0


def _result(decoder: UserDecoder, message: list[Any]) -> tuple[list[Any], str, bool]:
    *told, device = message
    result = decoder.result(Message(*told), device)
    try:
        msgspec.msgpack.encode(result.readings)
    except (ValueError, TypeError, OverflowError) as error:  # text with lone surrogates
        return [], f"its readings cannot be stored: {error}", True
    return result.readings, result.reason, result.failed


def _watch(trace: int, seconds: float) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(trace, 0)
    faulthandler.dump_traceback_later(seconds, file=trace)


def _read(stream: BinaryIO) -> bytes | None:
    size = stream.read(4)
    return stream.read(int.from_bytes(size, "big")) if len(size) == 4 else None


def _write(stream: BinaryIO, value: Any) -> None:
    body = msgspec.msgpack.encode(value)
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
