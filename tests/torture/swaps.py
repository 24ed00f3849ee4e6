"""Compaction's swap: what must hold when a step of it is refused, or comes upon damage, and what kills in it leave."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from gateway.log.verify import TAIL, Fault, verify_data
from headwater.disk import Disk
from tests.torture.crashes import Wrap, each_cut, each_kept
from tests.torture.damage import DATA, Reference, on, open_store, views_of
from tests.torture.ledger import Violation
from tests.torture.simulated_os import Crash, SimulatedOs
from tests.torture.world import World


def grown(*, size: int, apart_ms: int = 0) -> tuple[SimulatedOs, World]:
    """A compacted log of several segments, which the next turn of upkeep puts one in the place of."""
    simulated = SimulatedOs()
    world = World(simulated.disk())
    for _ in range(24):
        world.clock.advance(apart_ms)
        world.append("c", size=size)
        world.flush()
    return simulated, world


def swap(wrap: Wrap) -> None:
    """Compaction puts a segment in the place of others: nothing of them stays, and a refused step leaves them whole."""
    simulated, world = grown(size=60)
    world.close()
    before, ledger = simulated.files(), world.ledger
    for refused in range(6):
        again = on(before)
        world = World(wrap(again), ledger.copy())
        again.before = _refusing(refused)
        world.turn()
        again.before = lambda call, path: None
        world.check(settled=True)
        names = again.disk().names(f"{DATA}/log/c-0")
        bases = [f"{base:020d}.log" for base, _ in world.log("c").segment_sizes()]
        if [name for name in names if name.endswith(".log")] != bases:
            raise Violation(f"{names} lie there, and {bases} are served")
        if not refused and (left := [name for name in names if name.endswith((".swap", ".deleted", ".cleaned"))]):
            raise Violation(f"{left} are left")
        if len(bases) != (4 if refused else 2):
            raise Violation(f"{len(bases)} segments after compaction, step {refused} refused")
        pending = [name[:20] for name in names if name.endswith(".log.swap")]
        if [base for base in pending if f"{base}.index.swap" not in names]:
            raise Violation(f"a swap that the next start is to finish has lost its index: {names}")
        if faults := faults_in(again.disk()):
            raise Violation(f"{faults}")
        for crash in (Crash.FORGET, Crash.KEEP):
            World(again.after_crash(crash).disk(), world.ledger.copy()).check_start()


def swapping() -> list[Reference]:
    """What kills leave before each step of a swap that puts a compacted segment in the place of others."""
    simulated, world = grown(size=40, apart_ms=1)
    rows = frozenset(views_of(world.store)["c"][0])
    world.close()
    again = on(simulated.files())
    world = World(again.disk(), world.ledger)
    found: list[dict[str, bytes]] = []

    def before(call: str, path: str) -> None:
        if call == "replace" and "/c-0/" in path and any(name.endswith(".log.swap") for name in again.files()):
            found.append(again.files())

    again.before = before
    world.turn()
    references = []
    for files in found:
        store = open_store(on(files).disk())
        views = views_of(store)
        dropped = rows - frozenset(views["c"][0])
        references.append(Reference(files, views, store.topics["t"].partitions[0].leader_epoch, dropped))
    return references


def swap_damaged(wrap: Wrap) -> None:
    """A swap under way whose new segment is damaged: what it was to replace stays, also when the power goes again."""
    reference = swapping()[-1]
    path = f"{DATA}/log/c-0/{0:020d}.log.swap"
    wanted = frozenset(reference.views["c"][0]) | reference.dropped
    for position in (100, 7):  # where a CRC looks, and where none does
        data = bytearray(reference.files[path])
        data[position] ^= 1
        for where, left in each_cut(
            lambda simulated: open_store(wrap(simulated)), on({**reference.files, path: bytes(data)}), seeds=8
        ):
            disk = left.disk()
            shown = views_of(open_store(disk))["c"][0]
            if frozenset(shown) != wanted:
                raise Violation(f"{where}: {shown} is shown of what was to be replaced")
            if faults := faults_in(disk):
                raise Violation(f"{where}: {faults}")


def cut_while_swapping(every: int) -> int:
    """Cut the power in a pass of compaction: no start, and no check after it, finds a fault. `every` n-th state."""
    simulated, world = grown(size=40)
    world.close()
    states = 0

    def turn(simulated: SimulatedOs) -> None:
        World(simulated.disk(), world.ledger.copy()).turn()

    for where, left in islice(each_cut(turn, simulated), 0, None, every):
        disk = left.disk()
        World(disk, world.ledger.copy()).check_start()
        if faults := faults_in(disk):
            raise Violation(f"{where}: {faults}")
        states += 1
    return states


def orders(wrap: Wrap) -> None:
    """Cut the power in a swap: whichever of its changes to names are kept, all of the log is there."""
    each_order(wrap)


def each_order(wrap: Wrap = SimulatedOs.disk) -> int:
    """The same; returns how many states there were: every subset of few changes, of many those near all or none."""
    simulated, world = grown(size=60)
    world.begin("c", 22)
    world.flush()
    world.end("c", 22, commit=False)
    world.log("c").roll_now()
    world.close()
    again, ledger = on(simulated.files()), world.ledger
    left: list[tuple[str, SimulatedOs]] = []

    def before(call: str, path: str) -> None:
        if call in ("fsync", "unlink", "replace") and "/c-0" in path:
            changes = again.changes(f"{DATA}/log/c-0")
            few = range(1 << changes) if changes <= 6 else _nearly(changes)
            left.extend((f"{number:b} before {call} of {path}", each_kept(again, number)) for number in few)

    World(again.disk(), ledger.copy()).close()
    world = World(wrap(again), ledger.copy())
    again.before = before
    world.turn()
    again.before = lambda call, path: None
    changes = again.changes(f"{DATA}/log/c-0")
    left.extend((f"{number:b} after it", each_kept(again, number)) for number in _nearly(changes))
    for where, each in left:
        disk = each.disk()
        try:
            World(disk, ledger.copy()).check_start()
        except Violation as error:
            raise Violation(f"kept of the renames: {where}: {error}") from error
        if faults := faults_in(disk):
            raise Violation(f"kept of the renames: {where}: {faults}")
    return len(left)


def _nearly(changes: int) -> list[int]:
    """Numbers of so many bits: all but up to two, none but up to two, the first ones, the last ones."""
    whole = (1 << changes) - 1
    pairs = {1 << a | 1 << b for a in range(changes) for b in range(changes)}
    ends = {whole >> number for number in range(changes + 1)}
    return sorted({0} | pairs | {whole ^ each for each in pairs} | ends | {whole ^ each for each in ends})


def faults_in(disk: Disk) -> list[Fault]:
    """What `headwater log verify` names as damaged."""
    return [fault for each in verify_data(disk, DATA) for fault in each.faults if fault.kind != TAIL]


def _refusing(number: int) -> Callable[[str, str], None]:
    """The n-th rename of a compaction's swap fails."""
    seen = 0

    def before(call: str, path: str) -> None:
        nonlocal seen
        swapping = path.endswith(".swap") or (path.endswith(".log") and "/c-0/" in path)
        if call == "replace" and swapping:
            seen += 1
            if seen == number:
                raise OSError(5, "Input/output error", path)

    return before
