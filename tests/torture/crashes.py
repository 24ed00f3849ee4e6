"""Power cuts at the write-side calls of the reference workload: after each the log is opened again and judged."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from random import Random

from headwater.disk import Disk
from tests.torture.damage import on
from tests.torture.ledger import Ledger, Violation
from tests.torture.simulated_os import WRITE_SIDE, Crash, SimulatedOs
from tests.torture.world import DATA, World, script

Wrap = Callable[[SimulatedOs], Disk]
"""Makes the disk that the code under test sees; a mutant's leaves a call out."""


class Cut(BaseException):
    """The power went in the middle of a start: nothing may catch it."""


def run(look: Callable[[SimulatedOs, World | None, int], None], *, wrap: Wrap = SimulatedOs.disk) -> int:
    """The whole workload on a good disk; `look` is called before each write-side call. Returns how many there were."""
    simulated = SimulatedOs()
    failing: dict[str, OSError] = {}
    state: dict[str, World | None] = {"world": None}
    calls = 0

    def before(call: str, _path: str) -> None:
        nonlocal calls
        if call in failing:
            raise failing.pop(call)
        if call in WRITE_SIDE:
            calls += 1
            look(simulated, state["world"], calls)

    def reopen(old: World) -> World:
        return World(old.disk, old.ledger, wall_ms=old.clock.wall_ms())

    simulated.before = before
    state["world"] = first = World(wrap(simulated))
    for world in script(first, failing.__setitem__, reopen):
        state["world"] = world
        world.check()
    return calls


def judge(
    crashed: SimulatedOs,
    ledger: Ledger,
    wall_ms: int,
    *,
    torn: bool = False,
    nested: Random | None = None,
    wrap: Wrap = SimulatedOs.disk,
) -> int:
    """Open what a crash left, let the clients go on, cut the power again. Returns how many starts that took.

    With `nested` the power also goes once in the middle of the first start.
    """
    starts = 0
    if nested is not None:
        crashed, starts, torn = _cut_while_starting(crashed, ledger, wall_ms, nested, wrap), 1, True
    ledger = ledger.copy()
    world = World(wrap(crashed), ledger, wall_ms=wall_ms)
    world.check_start(torn=torn)
    world.settle()
    world.check(settled=True, torn=torn)
    world.append("t", producer=11)
    world.journals()
    world.flush()
    world.check(settled=True, torn=torn)
    world.check_expiry()
    again = World(crashed.after_crash(Crash.FORGET).disk(), world.ledger.copy(), wall_ms=world.clock.wall_ms())
    again.check_start(torn=torn)
    again.check(settled=True, torn=torn)
    return starts + 2


def _cut_while_starting(crashed: SimulatedOs, ledger: Ledger, wall_ms: int, random: Random, wrap: Wrap) -> SimulatedOs:
    left = random.randint(1, 60)

    def before(call: str, _path: str) -> None:
        nonlocal left
        if call in WRITE_SIDE:
            left -= 1
            if left <= 0:
                raise Cut

    crashed.before = before
    with contextlib.suppress(Cut):
        World(wrap(crashed), ledger.copy(), wall_ms=wall_ms)
    crashed.before = lambda call, path: None
    return crashed.after_crash(random.choice(list(Crash)), random)


def power_cuts(
    crashes: Sequence[Crash],
    *,
    every: int,
    first: int = 0,
    seeds: int = 1,
    nested: bool = False,
    wrap: Wrap = SimulatedOs.disk,
) -> tuple[int, int, int]:
    """Cut before each `every`-th write-side call, in each way; returns (crash points, crash states, starts)."""
    points = states = starts = 0

    def look(simulated: SimulatedOs, world: World | None, call: int) -> None:
        nonlocal points, states, starts
        if call % every != first % every:
            return
        points += 1
        ledger = world.ledger if world is not None else Ledger()
        wall_ms = world.clock.wall_ms() if world is not None else 1_700_000_000_000
        for crash in crashes:
            for seed in range(seeds if crash in (Crash.TORN, Crash.SHUFFLED) else 1):
                random = Random(f"{call}/{seed}")
                crashed = simulated.after_crash(crash, random)
                states += 1
                try:
                    torn = crash in (Crash.TORN, Crash.SHUFFLED)
                    starts += judge(crashed, ledger, wall_ms, torn=torn, nested=random if nested else None, wrap=wrap)
                except Exception as error:
                    raise Violation(f"crash before write-side call {call}, {crash}, seed {seed}: {error}") from error

    run(look, wrap=wrap)
    return points, states, starts


def cuts_while_going_on(failing: Sequence[str], crashes: Sequence[Crash]) -> int:
    """Cut before each write-side call after a failed one, in each way; returns how many crash states that makes.

    Each call of these kinds fails in its turn, in a round that closes segments which nobody has synced before.
    """
    states = 0
    for kind in failing:
        for number in range(1_000):
            found = list(_going_on(kind, number, crashes))
            if not found:
                break
            states += len(found)
            for where, crash, crashed, ledger, wall_ms in found:
                try:
                    judge(crashed, ledger, wall_ms, torn=crash in (Crash.TORN, Crash.SHUFFLED))
                except Exception as error:
                    raise Violation(f"{where}: {error}") from error
    return states


def _going_on(
    kind: str, number: int, crashes: Sequence[Crash]
) -> Iterator[tuple[str, Crash, SimulatedOs, Ledger, int]]:
    """What cuts leave after the `number`-th call of this kind has failed."""
    simulated = SimulatedOs()
    world = World(simulated.disk())
    for _ in range(3):
        world.append("t", producer=11)
        world.flush()
    for each in range(9):  # in this segment, and in two others
        world.append("t", producer=11 if each % 2 else None)
    states: list[tuple[str, Crash, SimulatedOs, Ledger, int]] = []
    left, failed = number, ""

    def before(call: str, path: str) -> None:
        nonlocal left, failed
        if not failed and call == kind:
            left -= 1
            if left < 0:
                failed = path
                raise OSError(errno.EIO, "Input/output error", path)
        elif failed and call in WRITE_SIDE:
            where = f"{kind} of {failed} failed, power cut before {call} of {path}"
            for crash in crashes:
                crashed = simulated.after_crash(crash, Random(len(states)))
                states.append((f"{where}, {crash}", crash, crashed, world.ledger.copy(), world.clock.wall_ms()))

    simulated.before = before
    world.flush()
    world.clock.advance(2_000)
    world.append("t", producer=11)
    world.flush()
    yield from states


def each_cut(
    start: Callable[[SimulatedOs], object], before: SimulatedOs, *, seeds: int = 1
) -> Iterator[tuple[str, SimulatedOs]]:
    """What power cuts during `start` leave, which works on a copy of the files `before`, and one after it."""
    simulated = on(before.files())
    states: list[tuple[str, SimulatedOs]] = []
    calls = 0

    def look(call: str, _path: str) -> None:
        nonlocal calls
        if call in WRITE_SIDE:
            calls += 1
            random = Random(calls)
            states.extend(
                (f"{crash} before call {calls} ({call})", simulated.after_crash(crash, random))
                for crash in (Crash.FORGET, Crash.NAMES, Crash.KEEP, *[Crash.SHUFFLED] * seeds)
            )

    simulated.before = look
    start(simulated)
    simulated.before = lambda call, path: None
    states.extend((f"{crash} after it", simulated.after_crash(crash)) for crash in (Crash.FORGET, Crash.NAMES))
    yield from states


class _Bits(Random):
    """Decides by the bits of a number which changes of directories a power cut keeps."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self._number = number

    def random(self) -> float:
        self._number, bit = divmod(self._number, 2)
        return 0.0 if bit else 0.9


def each_kept(simulated: SimulatedOs, number: int) -> SimulatedOs:
    """What a power cut now leaves, of the changes that no sync of a directory covers those whose bits are set."""
    return simulated.after_crash(Crash.SHUFFLED, _Bits(number))


__all__ = ["DATA", "Cut", "cuts_while_going_on", "each_cut", "each_kept", "judge", "power_cuts", "run"]
