"""A segment that closes while the disk has no room, or no good sector, for the small files beside it."""

from __future__ import annotations

import errno

from tests.torture.crashes import Wrap
from tests.torture.damage import open_store, put, views_of
from tests.torture.ledger import Violation
from tests.torture.simulated_os import Crash, SimulatedOs

_BESIDE = (".index.tmp", ".timeindex.tmp", ".snapshot.tmp", "/chain/t-0.tmp")


def closed(wrap: Wrap) -> None:
    """What is acknowledged in the next segment is there after a power cut, and so is the segment itself."""
    simulated = SimulatedOs()
    store = open_store(wrap(simulated))
    log = store.create_topic("t").partitions[0]
    put(log, b"old")
    store.flush_now()
    refused = 0

    def before(call: str, path: str) -> None:
        nonlocal refused
        if call == "create" and path.endswith(_BESIDE):
            refused += 1
            raise OSError(errno.ENOSPC, "No space left on device", path)

    simulated.before = before
    log.roll_now()
    put(log, b"new")
    store.flush_now()
    simulated.before = lambda call, path: None
    if not refused or log.synced_offset != 2:
        raise Violation(f"{refused} files refused, {log.synced_offset} records acknowledged")
    shown = views_of(store)
    for crash in Crash:
        after = views_of(open_store(simulated.after_crash(crash).disk()))
        if after != shown:
            raise Violation(f"{shown} was acknowledged, and after {crash} there is {after}")
