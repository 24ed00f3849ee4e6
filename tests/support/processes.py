"""Headwater's commands as processes, for end-to-end tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from headwater.app.control import read_status

_MAIN = "import sys; sys.argv[0] = 'headwater'; from headwater.cli.entry import main; main()"
HEADWATER = [sys.executable, "-c", _MAIN]
START_S_MAX = 30.0


def running_with(text: str) -> list[str]:
    """The command lines of living processes that name `text`, for example a test's own folder."""
    found = []
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in command and int(pid) != os.getpid():
                found.append(f"{pid}: {command}")
    return found


@contextlib.contextmanager
def node(config: Path, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`headwater run` on a configuration, from its first status to its clean end; its log lies beside the file."""
    log = config.with_suffix(".log")
    with open(log, "wb") as file:
        process = subprocess.Popen([*HEADWATER, "run", "--config", str(config)], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + START_S_MAX
        while (status := read_status(str(data_dir))) is None or status["pid"] != process.pid:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def headwater(arguments: Sequence[str], *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*HEADWATER, *arguments], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
    )
