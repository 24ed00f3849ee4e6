"""What a benchmark needs to know of the programs it measures: started, ready, how much CPU and memory, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(command: Sequence[str], log: Path, *, output: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the time of the block; what it says goes to `log`, or its standard output to `output`."""
    # What is installed has its bytecode; without it a start compiles for two seconds of CPU, which would be counted.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with log.open("ab") as said:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output or said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(condition: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
    """Poll until true; raises `TimeoutError` naming what did not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {within_s:g} s")
        time.sleep(0.005)


def accepts(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time that the processes and their waited-for children have had, in seconds."""
    total = 0
    for pid in pids:
        # the name in parentheses may hold anything; utime is the 12th field after it (proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def thread_cpu_s() -> dict[str, float]:
    """The same of each thread of this process, by its number."""
    spent = {}
    for path in Path("/proc/self/task").iterdir():
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            continue
        spent[path.name] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return spent


def peak_rss_bytes(pids: Sequence[int]) -> int:
    """The most memory each process ever held, added up."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total
