"""SIGKILL at the system calls of the reference workload that change files, the n-th of each kind, by strace.

The ledger is in memory that the dead process shared; what it left is opened again and judged as after a power cut.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.tree import ROOT
from tests.torture.crashes import judge
from tests.torture.ledger import Ledger
from tests.torture.simulated_os import Directory, File, SimulatedOs
from tests.torture.workload import make_ledger, read_ledger
from tests.torture.world import DATA

KINDS = {
    "sync": ["fsync", "fdatasync"],
    "write": ["write", "pwrite64", "writev", "ftruncate"],
    "name": ["rename", "unlink", "mkdir", "rmdir"],
}
CALLS = [call for calls in KINDS.values() for call in calls]
SAMPLE = [("fsync", 211), ("fdatasync", 17), ("write", 83), ("rename", 101), ("unlink", 23)]
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


def kill_at_each(directory: Path, kills: Iterable[tuple[str, int]]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(kill_at, directory / f"{call}-{number}", call, number) for call, number in kills]:
            done.result()


@pytest.mark.peer("strace")
def test_a_sample_of_kills_at_system_calls(tmp_path: Path) -> None:
    kill_at_each(tmp_path, SAMPLE)


def kill_everywhere(directory: Path, kind: str, every: int) -> None:
    """At every `every`-th call of a kind that a whole run makes; 1: at every one."""
    status, whole, wall_ms = traced(directory / "whole", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}")
    assert status == 0
    acked = sum(each.acked for each in whole.sent)
    assert acked > 50
    judge(loaded(directory / "whole" / "data"), whole, wall_ms)
    made = Counter(re.findall(r"^\d+ +(\w+)\(", (directory / "whole" / "trace").read_text(), re.MULTILINE))
    there = {call: made[call] for call in KINDS[kind] if made[call]}
    kills = [(call, number) for call, times in there.items() for number in range(1 + (every > 1), times + 1, every)]
    kill_at_each(directory, kills)
    print(f"{len(kills)} SIGKILLs at {there}, {acked} records acknowledged when none came: 0 lost, 0 twice")
    assert len(kills) >= sum(there.values()) // every - len(there)


@pytest.mark.long("syscalls-sync", count=1)
@pytest.mark.peer("strace")
def test_a_kill_at_every_sync(tmp_path: Path, count: int) -> None:
    kill_everywhere(tmp_path, "sync", count)


@pytest.mark.long("syscalls-write", count=1)
@pytest.mark.peer("strace")
def test_a_kill_at_every_write_and_truncation(tmp_path: Path, count: int) -> None:
    kill_everywhere(tmp_path, "write", count)


@pytest.mark.long("syscalls-name", count=1)
@pytest.mark.peer("strace")
def test_a_kill_at_every_change_of_a_directory(tmp_path: Path, count: int) -> None:
    kill_everywhere(tmp_path, "name", count)
