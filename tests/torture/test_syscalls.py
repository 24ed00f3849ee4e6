"""SIGKILL at the system calls of the reference workload that change files, the n-th of each kind, by strace.

The ledger is in memory that the dead process shared; what it left is opened again and judged as after a power cut.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.tree import ROOT
from tests.torture.crashes import judge
from tests.torture.ledger import Ledger
from tests.torture.simulated_os import Directory, File, SimulatedOs
from tests.torture.workload import make_ledger, read_ledger
from tests.torture.world import DATA

CALLS = "write,pwrite64,writev,fdatasync,fsync,rename,ftruncate,unlink,mkdir,rmdir"
KILLED = -9


def traced(directory: Path, *options: str) -> tuple[int, Ledger, int]:
    """The workload under strace: its exit status, and what it had told."""
    directory.mkdir()
    told = directory / "ledger"
    make_ledger(told)
    command = ["strace", "-f", "-o", str(directory / "trace"), *options]
    command += [sys.executable, "-m", "tests.torture.workload", str(directory / "data"), str(told)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, KILLED, 128 - KILLED), done.stderr[-2_000:]
    return done.returncode, *read_ledger(told)


def loaded(data: Path) -> SimulatedOs:
    """The files as they are, in memory: a killed process's writes are all there."""
    simulated = SimulatedOs()

    def fill(directory: Directory, path: Path) -> None:
        for each in path.iterdir():
            node = File(each.read_bytes()) if each.is_file() else Directory()
            directory.entries[each.name] = directory.durable[each.name] = node
            if isinstance(node, Directory):
                fill(node, each)

    if data.exists():
        simulated.root.entries[DATA.strip("/")] = simulated.root.durable[DATA.strip("/")] = top = Directory()
        fill(top, data)
    return simulated


def kill_at(directory: Path, call: str, number: int) -> None:
    status, ledger, wall_ms = traced(
        directory, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"
    )
    assert status in (KILLED, 128 - KILLED), f"not killed at {call} {number}"
    try:
        judge(loaded(directory / "data"), ledger, wall_ms)
    except Exception as error:
        raise AssertionError(f"killed at {call} {number}: {error}") from error


@pytest.mark.long("syscalls", count=2)
@pytest.mark.peer("strace")
def test_a_kill_at_every_system_call_that_changes_files(tmp_path: Path, count: int) -> None:
    """At every `count`-th of each kind; 1: at every one."""
    status, whole, wall_ms = traced(tmp_path / "whole", "-e", f"trace={CALLS}")
    assert status == 0
    acked = sum(each.acked for each in whole.sent)
    assert acked > 50
    judge(loaded(tmp_path / "whole" / "data"), whole, wall_ms)
    there = Counter(re.findall(r"^\d+ +(\w+)\(", (tmp_path / "whole" / "trace").read_text(), re.MULTILINE))
    kills = [(call, number) for call, times in there.items() for number in range(1 + (count > 1), times + 1, count)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(kill_at, tmp_path / f"{call}-{number}", call, number) for call, number in kills]:
            done.result()
    print(f"{len(kills)} SIGKILLs at {dict(there)}, {acked} records acknowledged when none came: 0 lost, 0 twice")
    assert len(kills) >= there.total() // count - len(there)
