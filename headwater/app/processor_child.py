"""The process that runs one user's processor: `python -P -m headwater.app.processor_child`.

It is a whole driver, inline or group, with this one processor: what it reads, writes and remembers is exactly once
however it ends. stdin brings one frame (`Hello`) and then nothing; when it closes, the process stops cleanly. stdout
takes JSON lines: `{"status": …}` once a second, `{"log": [level, text]}`, and last `{"end": …, "reason": …}`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from headwater.app.no_fork import refuse_forks
from headwater.app.processor_watch import ProcessWatches
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.errors import UserError
from headwater.net import RealNet
from processors.group.settings import GroupSettings
from processors.settings import ProcessorSettings
from processors.user.job import Suspects, UserJob
from processors.user.loading import Loaded, load
from processors.user.rule import ProcessorRule
from processors.user.settings import UserLimits

PAUSED, BROKEN, FAILED, STOPPED = "paused", "broken", "failed", "stopped"
LOAD_S = 30.0
"""A Raspberry Pi that boots takes its time over an import."""
STATUS_EVERY_S = 1.0
_PR_SET_PDEATHSIG = 1


class Hello(msgspec.Struct, kw_only=True):
    """What the parent says first. `group` or (`inline`, `kafka`, `data_dir`): where it runs."""

    rule: ProcessorRule
    limits: UserLimits
    parent: int
    trace: int
    suspects: Suspects
    inline: ProcessorSettings | None = None
    kafka: tuple[str, int] = ("", 0)
    data_dir: str = ""
    group: GroupSettings | None = None
    instance: str = ""
    rebuild: bool = False


class Teller:
    """Writes lines to the parent, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, **what: Any) -> None:
        with self._lock:
            self._stream.write(msgspec.json.encode(what) + b"\n")
            self._stream.flush()


class _LogHandler(logging.Handler):
    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        self._teller.tell(log=[record.levelno, record.getMessage()])


def main() -> int:
    """Until stdin ends, or the processor does."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what the user's code prints is no line of ours
    size = requests.read(4)
    hello = msgspec.msgpack.decode(requests.read(int.from_bytes(size, "big")), type=Hello)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != hello.parent:
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    resource.setrlimit(resource.RLIMIT_AS, (hello.limits.memory_max_bytes, hello.limits.memory_max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.set_threshold(50_000, 20, 50)
    teller = Teller(answers)
    logging.basicConfig(level=logging.INFO, handlers=[_LogHandler(teller)])
    end, reason = _live(hello, teller, requests)
    teller.tell(end=end, reason=reason)
    return 0


def _live(hello: Hello, teller: Teller, requests: BinaryIO) -> tuple[str, str]:
    watches = ProcessWatches(hello.trace, hello.limits.time_max_ms / 1000)
    watches.alarm(LOAD_S)
    refuse_forks()
    try:
        loaded = load(hello.rule)
        if hello.inline is not None and not loaded.cls.deterministic:
            raise UserError(
                f"{loaded.cls.__name__} is not declared deterministic, and inside a node only such processors run",
                hint="Write deterministic = True in the class if the same readings always make the same output; else"
                " run it with `headwater process`.",
            )
    except UserError as error:
        return BROKEN, _said(error)
    finally:
        watches.calm()
    job = UserJob(loaded, hello.limits, watches, hello.suspects)
    driver = _group(hello, job, loaded) if hello.group is not None else _inline(hello, job)
    for target in (lambda: _tell_status(driver, teller), lambda: _stop_with_parent(driver, requests)):
        threading.Thread(target=target, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: driver.stop())
    try:
        if hello.group is not None:
            if hello.rebuild:
                driver.rebuild()
            driver.run()
        else:
            asyncio.run(driver.run())
    except UserError as error:
        return FAILED, _said(error)
    finally:
        teller.tell(status=driver.status())
    return (PAUSED, job.problem) if job.problem else (STOPPED, "")


def _said(error: UserError) -> str:
    return f"{error.what}. {error.hint}".rstrip(". ")


def _inline(hello: Hello, job: UserJob) -> Any:
    from processors.inline import make_processors

    assert hello.inline is not None  # noqa: S101 - the caller looked
    place = (*hello.kafka, RealNet(), SystemClock(), hello.data_dir, RealDisk())
    return make_processors(hello.inline, job, *place, name=f"processor-{hello.rule.name}")


def _group(hello: Hello, job: UserJob, loaded: Loaded) -> Any:
    from processors.group.driver import GroupProcessor

    assert hello.group is not None  # noqa: S101 - the caller looked
    settings = msgspec.structs.replace(hello.group, name=f"{hello.group.name}.{hello.rule.name}")
    if not loaded.cls.deterministic:
        # Nothing can be computed again, so its state goes with every transaction.
        settings = msgspec.structs.replace(settings, snapshot_every_ms=0)
    return GroupProcessor(settings, job, instance=hello.instance)


def _tell_status(driver: Any, teller: Teller) -> None:
    waiting = threading.Event()
    while not waiting.wait(STATUS_EVERY_S):
        teller.tell(status=driver.status())


def _stop_with_parent(driver: Any, requests: BinaryIO) -> None:
    requests.read()
    driver.stop()


if __name__ == "__main__":
    sys.exit(main())
