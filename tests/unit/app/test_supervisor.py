from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from headwater.app.supervisor import Backoff, Silence, Supervisor
from headwater.clock import SystemClock
from tests.support.processes import running_with
from tests.support.waiting import eventually


def test_short_lives_wait_longer_and_a_long_one_forgives() -> None:
    backoff = Backoff(first_ms=100, most_ms=500)
    assert [backoff.after(5) for _ in range(4)] == [100, 200, 400, 500]
    assert backoff.after(60_000) == 100


def test_a_mistake_of_the_user_is_not_retried_at_once() -> None:
    assert Backoff().after(5, hopeless=True) == 2_000


def test_a_child_that_dies_is_started_again_and_the_end_ends_it(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = (
        "import os, sys\n"
        f"open({str(count)!r}, 'a').write('x')\n"
        f"starts = os.path.getsize({str(count)!r})\n"
        "print('not json')\nprint('{\"page\": 1}', flush=True)\n"
        "sys.exit(3) if starts == 1 else sys.stdin.read()\n"
    )

    async def run() -> None:
        events: list[tuple[str, str]] = []
        supervisor = Supervisor(
            [sys.executable, "-c", script],
            clock=SystemClock(),
            event=lambda kind, *, cause: events.append((kind, cause)),
        )
        task = asyncio.create_task(supervisor.run())
        await eventually(lambda: supervisor.restarts == 1 and supervisor.pid and supervisor.report == {"page": 1})
        assert supervisor.last_end == "ended with status 3"
        assert events == [("work stopped", "ended with status 3")]
        pid = supervisor.pid
        assert pid is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert supervisor.status()["state"] == "stopped"
        gone.append(pid)

    gone: list[int] = []
    asyncio.run(run())
    assert not Path(f"/proc/{gone[0]}").exists()


def test_a_stop_while_the_child_is_being_started_ends_it(tmp_path: Path) -> None:
    async def run() -> int | None:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", str(tmp_path)]
        supervisor = Supervisor(command, clock=SystemClock())
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert supervisor._process is not None
        return supervisor._process.returncode

    assert asyncio.run(run()) == -signal.SIGTERM
    assert running_with(str(tmp_path)) == []


def test_silence_counts_from_the_first_line_and_not_while_nobody_could_hear() -> None:
    silence = Silence(3_000, 1_000)
    assert not any(silence.too_long(now_ms) for now_ms in range(0, 600_000, 1_000))  # a long start
    silence.heard()
    assert [silence.too_long(600_000 + 1_000 * n) for n in range(5)] == [False, False, False, True, True]
    silence.heard()
    assert not silence.too_long(9_000_000)  # the machine slept: one look
    assert not silence.too_long(9_001_000)
    assert silence.too_long(9_002_000)


def test_a_child_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    script = (
        "import time\nprint('{\"page\": 1}', flush=True)\nwhile True:\n    time.sleep(0.02)\n    print(flush=True)\n"
    )
    events: list[tuple[str, str]] = []

    async def run() -> None:
        supervisor = Supervisor(
            [sys.executable, "-c", script, str(tmp_path)],
            clock=SystemClock(),
            event=lambda kind, *, cause: events.append((kind, cause)),
            silence_ms=600,
        )
        task = asyncio.create_task(supervisor.run())
        await eventually(lambda: supervisor.report == {"page": 1})
        await asyncio.sleep(0.9)  # longer than the limit: it beats, with nothing new to report
        pid = supervisor.pid
        assert (supervisor.restarts, supervisor.report) == (0, {"page": 1})
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: supervisor.restarts == 1 and supervisor.pid not in (None, pid))
        assert supervisor.status()["last_end"] == "hung (said nothing for 0.6 s) and was killed"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert events == [("work stopped", "hung (said nothing for 0.6 s) and was killed")]
    assert running_with(str(tmp_path)) == []
