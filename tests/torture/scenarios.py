"""Scenarios that each promise must hold in, to be run with the real code and with mutants of it.

Each takes what makes the disk that the code under test sees, and raises when a promise is broken.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from gateway import users
from gateway.log.clean_stop import FILE as CLEAN_STOP
from gateway.log.recovery import Outcome
from gateway.log.reserve import (
    make_reserve,
    make_start_reserve,
    release_for_start,
    release_when_full,
    reserve_path,
    start_reserve_path,
)
from gateway.replicate.journal import RunJournal
from headwater.disk import Disk
from tests.torture.closing import closed
from tests.torture.crashes import Wrap, each_cut, power_cuts
from tests.torture.damage import DATA, build, on, open_store, put, views_of
from tests.torture.ledger import Ledger, Violation
from tests.torture.seams import copied, expired, exported, linked, mended, put_aside, rolled_back, taken
from tests.torture.simulated_os import WRITE_SIDE, Crash, SimulatedOs
from tests.torture.swaps import orders, swap, swap_damaged
from tests.torture.world import World

_LOSING = [Crash.FORGET, Crash.NAMES]


def cuts_coarse(wrap: Wrap) -> None:
    """Power cuts at every 23rd write-side call of the reference workload."""
    power_cuts(_LOSING, every=23, wrap=wrap)


def cuts_fine(wrap: Wrap) -> None:
    """Power cuts at every write-side call of the reference workload."""
    power_cuts(_LOSING, every=1, wrap=wrap)


def cuts_torn(wrap: Wrap) -> None:
    """The same with torn and reordered writes, at every second call."""
    power_cuts([Crash.TORN, Crash.SHUFFLED], every=2, wrap=wrap)


def mending(wrap: Wrap) -> None:
    """Power cuts while a start mends damage: in the middle of the last segment, at its end, in an old one."""
    reference = build(clean=True)
    del reference.files[f"{DATA}/node/{CLEAN_STOP}"]  # else the last segment is read after the start
    last = "/data/log/t-0/00000000000000000007.log"
    old = "/data/log/t-0/00000000000000000002.log"
    for path, position in ((last, 80), (last, len(reference.files[last]) - 1), (old, len(reference.files[old]) - 70)):
        data = bytearray(reference.files[path])
        data[position] ^= 1
        if path == old:
            data[position - 60 : position] = bytes(60)
        broken = on({**reference.files, path: bytes(data)})
        whole = on(broken.files())
        store = open_store(whole.disk())
        wanted, named = views_of(store), {each[:5] for each in store.recovered if each.outcome is Outcome.QUARANTINED}
        evidence = {path: data for path, data in whole.files().items() if "/quarantine/" in path}
        if not evidence:
            raise Violation(f"the reference for {path} quarantines nothing")
        for where, left in each_cut(lambda simulated: open_store(wrap(simulated)), broken):
            store = open_store(left.disk())
            shown = views_of(store)
            if shown != wanted:
                raise Violation(f"{where}: {shown} is shown, not {wanted}")
            files = left.files()
            if lost := [name for name, data in evidence.items() if not files.get(name, b"").startswith(data)]:
                raise Violation(f"{where}: {lost} are not what was quarantined")
            strange = {each.outcome for each in store.recovered} - {
                *(Outcome.CLEAN, Outcome.QUARANTINED, Outcome.INDEX_REBUILT),
                *(Outcome.TORN_TAIL, Outcome.RANGE_MISSING),
            }
            if strange:
                raise Violation(f"{where}: {strange} instead of {named}")


def kept_tail(wrap: Wrap) -> None:
    """A process dies, its unsynced batches are served by the next start: from then on they must stay."""
    simulated = SimulatedOs()
    store = open_store(simulated.disk())
    log = store.create_topic("t").partitions[0]
    for number in range(3):
        put(log, b"%d" % number)
    for handled in (False, True):
        again = on_pending(simulated)
        store = open_store(wrap(again))
        log = store.topics["t"].partitions[0]
        if handled:
            log.roll_now()
            put(log, b"next")
            store.flush_now()
        shown = views_of(store)
        after = views_of(open_store(again.after_crash(Crash.FORGET).disk()))
        if after != shown:
            raise Violation(f"{shown} was served, and after a power cut {after}")


def kept_closed(wrap: Wrap) -> None:
    """The same where the log had begun another segment: what stands in the one before it must stay too."""
    simulated = SimulatedOs()
    log = open_store(simulated.disk()).create_topic("t").partitions[0]
    put(log, b"unsynced")
    log.roll_now()
    again = on_pending(simulated)
    shown = views_of(open_store(wrap(again)))
    for crash in _LOSING:
        after = views_of(open_store(again.after_crash(crash).disk()))
        if after != shown:
            raise Violation(f"{shown} was served, and after {crash} {after}")


def on_pending(simulated: SimulatedOs) -> SimulatedOs:
    """The same files and names as another process finds them, still as unsynced as they were."""
    copied = SimulatedOs()
    copied.root = simulated.root.copy()
    return copied


def cut_end(wrap: Wrap) -> None:
    """What lay beyond a successor's base is cut for good: it must not come back behind the successor's batches."""
    simulated = SimulatedOs()
    world = World(simulated.disk())
    for _ in range(2):
        world.append("t", producer=11)
    world.flush()
    world.append("t", producer=11)
    failing = {"fdatasync": OSError(5, "Input/output error")}

    def before(call: str, _path: str) -> None:
        if call in failing:
            raise failing.pop(call)

    simulated.before = before
    world.flush()
    simulated.before = lambda call, path: None
    world.clock.advance(2_000)
    world.settle()
    left = simulated.after_crash(Crash.KEEP)
    World(wrap(left), world.ledger.copy(), wall_ms=world.clock.wall_ms())
    size = len(left.files()["/data/log/t-0/00000000000000000000.log"])
    again = left.after_crash(Crash.FORGET)
    if len(again.files()["/data/log/t-0/00000000000000000000.log"]) != size:
        raise Violation("what a start cut off is there again after a power cut")


def reserve(wrap: Wrap) -> None:
    """The reserve is there in full after a power cut, and gone for good once it was given up."""
    simulated = SimulatedOs()
    simulated.disk().make_directory(f"{DATA}/node")
    disk = wrap(simulated)
    make_reserve(disk, f"{DATA}/node", 3_000)
    path = reserve_path(f"{DATA}/node")
    for crash in _LOSING:
        if len(simulated.after_crash(crash).files().get(path, b"")) != 3_000:
            raise Violation(f"the reserve is not whole after {crash}")
    simulated.free_bytes = 0
    if not release_when_full(disk, f"{DATA}/node"):
        raise Violation("the reserve is not given up")
    if path in simulated.after_crash(Crash.FORGET).files():
        raise Violation("the reserve is back after a power cut")
    simulated.free_bytes = 1 << 30
    make_start_reserve(disk, f"{DATA}/node")
    simulated.free_bytes = 0
    release_for_start(disk, f"{DATA}/node")
    if start_reserve_path(f"{DATA}/node") in simulated.after_crash(Crash.FORGET).files():
        raise Violation("the reserve for starts is back after a power cut")


def journal(wrap: Wrap) -> None:
    """A damaged run journal is moved aside, and stays to be looked at; what was forgotten stays forgotten."""
    simulated = on({f"{DATA}/node/runs": b"\0\0", f"{DATA}/node/central": b"{}"})
    disk = wrap(simulated)
    RunJournal(disk, f"{DATA}/node")
    after = simulated.after_crash(Crash.FORGET).files()
    for name in ("runs", "central"):
        if f"{DATA}/node/{name}.damaged" not in after:
            raise Violation(f"the damaged {name} is not kept")
    world = World(SimulatedOs().disk())
    world.journals()
    known = world.runs.remembered
    simulated = on({f"{DATA}/node/lock": b""})
    kept = RunJournal(wrap(simulated), f"{DATA}/node")
    kept.remember(known)
    kept.remember(None)
    if f"{DATA}/node/central" in simulated.after_crash(Crash.FORGET).files():
        raise Violation("what was forgotten of the central is known again after a power cut")


def deleted(wrap: Wrap) -> None:
    """When a topic's deletion is told, nothing of it comes back; a power cut before leaves it whole, or goes on."""
    simulated = SimulatedOs()
    store = open_store(simulated.disk())
    put(store.create_topic("x").partitions[0], b"old")
    store.flush_now()
    store.close()
    before = simulated.after_crash(Crash.KEEP)
    told = on(before.files())
    store = open_store(wrap(told))
    store.delete_topic("x")
    for crash in _LOSING:
        if left := [path for path in told.after_crash(crash).files() if "x-0" in path]:
            raise Violation(f"{left} are back after {crash}")
    for where, cut in each_cut(lambda each: open_store(wrap(each)).delete_topic("x"), before):
        alarms: list[str] = []
        store = open_store(cut.disk(), alarms)
        if alarms:
            raise Violation(f"{where}: {alarms}")
        if "x" in store.topics and views_of(store)["x"][0] != [(0, b"k", b"old")]:
            raise Violation(f"{where}: the topic is there without its records")


def clean_mark(wrap: Wrap) -> None:
    """A start after a power cut does not take the stop before for a clean one."""
    simulated = SimulatedOs()
    store = open_store(simulated.disk())
    store.create_topic("t")
    store.close()
    again = on(simulated.files())
    store = open_store(wrap(again))
    put(store.topics["t"].partitions[0], b"x")
    if open_store(again.after_crash(Crash.FORGET).disk()).stopped_cleanly:
        raise Violation("a stop by power cut counts as clean")


def folders(wrap: Wrap) -> None:
    """A directory that was made is there after a power cut."""
    simulated = SimulatedOs()
    wrap(simulated).make_directory("/data/node/chain")
    found = simulated.after_crash(Crash.FORGET).disk()
    if not found.exists("/data/node/chain"):
        raise Violation("a directory that was made is gone")


def fresh(wrap: Wrap) -> None:
    """A first start whose topics are announced: there after a power cut."""
    simulated = SimulatedOs()
    world = World(wrap(simulated), Ledger())
    World(simulated.after_crash(Crash.FORGET).disk(), world.ledger).check_start()


class _Os:
    """What `gateway.users` asks of `os`, on simulated files."""

    def __init__(self, simulated: SimulatedOs) -> None:
        self._simulated = simulated
        self.path = SimpleNamespace(
            dirname=posixpath.dirname, abspath=lambda path: path, lexists=lambda path: path in simulated.files()
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulated if hasattr(self._simulated, name) else os, name)

    def makedirs(self, path: str, *, exist_ok: bool) -> None:
        self._simulated.disk().make_directory(path)

    def geteuid(self) -> int:
        return 1

    def fdopen(self, handle: int, *_: object, **__: object) -> contextlib.AbstractContextManager[Any]:
        def write(text: str) -> None:
            self._simulated.write(handle, text.encode())

        file = SimpleNamespace(write=write, flush=lambda: None, fileno=lambda: handle)
        return contextlib.nullcontext(file)


def users_file(wrap: Wrap) -> None:
    """A user that was added is there after a power cut; one in between leaves the file as it was."""
    path = f"{DATA}/node/users"
    simulated = SimulatedOs()
    simulated.disk().make_directory(f"{DATA}/node")
    states: list[SimulatedOs] = []

    def look(call: str, _path: str) -> None:
        if call in WRITE_SIDE:
            states.extend(simulated.after_crash(crash) for crash in _LOSING)

    simulated.before = look
    disk = wrap(simulated)
    with patch.object(users, "os", _Os(simulated)), patch.object(users, "RealDisk", lambda: disk):
        users._write(path, users.Users({}, b"decoy"))
    whole = simulated.files().get(path, b"")
    for state in states:
        if state.files().get(path, whole) != whole:
            raise Violation("half a file of users after a power cut")
    for crash in _LOSING:
        if simulated.after_crash(crash).files().get(path) != whole or not whole:
            raise Violation(f"the file of users is not there after {crash}")


Scenario = Callable[[Wrap], None]
# The quick ones first: the first that turns red is what the documentation names.
SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        *(
            folders,
            users_file,
            taken,
            exported,
            put_aside,
            linked,
            copied,
            mended,
            rolled_back,
            reserve,
            journal,
            clean_mark,
            fresh,
            kept_tail,
            kept_closed,
            closed,
            cut_end,
            deleted,
            swap,
            expired,
            orders,
            swap_damaged,
            mending,
        ),
        *(cuts_coarse, cuts_torn, cuts_fine),
    )
}

__all__ = ["SCENARIOS", "Disk", "Scenario"]
