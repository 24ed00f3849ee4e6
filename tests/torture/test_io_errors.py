"""The n-th file call of the reference workload fails: whatever was acknowledged is there, and clients go on.

Where the failure hits a start, the next one works: no file is left behind that stops it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from headwater.disk import Disk
from headwater.errors import HeadwaterError
from tests.torture.crashes import judge
from tests.torture.ledger import Ledger, Violation
from tests.torture.simulated_os import SHORT, WRITE_SIDE, Crash, SimulatedOs
from tests.torture.world import World, script

CALLS = WRITE_SIDE | {"open", "pread", "read"}
KINDS: dict[str, tuple[frozenset[str], int]] = {
    "EIO": (CALLS, 1),
    "ENOSPC": (frozenset({"create", "write", "mkdir", "fsync", "fdatasync", "replace"}), 30),
    "EROFS": (WRITE_SIDE - {"fsync", "fdatasync"}, 30),
    "EMFILE": (frozenset({"create", "open"}), 5),
    "short write": (frozenset({"write"}), 1),
}
"""Which calls may fail so, and how many of them in a row do."""


class Faults:
    """Lets the n-th call of a kind fail, and those that follow for a while."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind = kind
        self.calls, self.lasts = KINDS[kind]
        self.at = at
        self.seen = 0
        self.planned: dict[str, OSError] = {}

    def before(self, call: str, path: str) -> object:
        if call in self.planned:
            raise self.planned.pop(call)
        if call not in self.calls:
            return None
        self.seen += 1
        if not self.at <= self.seen < self.at + self.lasts:
            return None
        if self.kind == "short write":
            return SHORT
        number = getattr(errno, self.kind)
        raise OSError(number, errno.errorcode[number], path)


def started(make: Callable[[], World]) -> World:
    """As a supervisor does it: again, when a start ends in an error."""
    for _ in range(40):
        try:
            return make()
        except (HeadwaterError, OSError):
            continue
    raise Violation("no start works any more")


def run(kind: str, at: int) -> int:
    """The workload with this failure, then a power cut; returns how many calls of the kind there were."""
    simulated, faults = SimulatedOs(), Faults(kind, at)
    simulated.before = faults.before
    disk: Disk = simulated.disk()
    ledger = Ledger()
    world = first = started(lambda: World(disk, ledger))
    try:
        for world in script(
            first,
            faults.planned.__setitem__,
            lambda old: started(lambda: World(disk, old.ledger, wall_ms=old.clock.wall_ms())),
        ):
            world.clock.advance(1_500)  # a log that failed may try again
        simulated.before = lambda call, path: None
        world.settle()
        judge(simulated.after_crash(Crash.FORGET), world.ledger, world.clock.wall_ms())
    except Exception as error:
        raise Violation(f"{kind} at call {at}: {error!r}") from error
    return faults.seen


def every(kind: str, step: int, first: int = 1) -> int:
    """Each `step`-th call; returns how many runs that were."""
    last, at, runs = run(kind, 1 << 60), first, 0
    while at <= last:
        run(kind, at)
        at, runs = at + step, runs + 1
    return runs


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_sample_of_failures(kind: str) -> None:
    run(kind, 150)


@pytest.mark.long("io-eio", count=1)
def test_every_call_fails_with_eio(count: int) -> None:
    """Each `count`-th."""
    print(f"EIO at {every('EIO', count)} calls: 0 acknowledged lost, 0 twice, every later start works")


@pytest.mark.long("io-others", count=1)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "EIO"])
def test_every_call_fails_otherwise(kind: str, count: int) -> None:
    """Each `count`-th."""
    print(f"{kind} at {every(kind, count)} calls: 0 acknowledged lost, 0 twice, every later start works")
