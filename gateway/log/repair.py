"""Mending what `verify` found, on a node that is stopped: the same recovery as at a start, made to read everything.

A start reads whole only what the newest snapshot does not cover. Without snapshots it reads every batch of the
partition: damage is copied to quarantine and cut out, the rest is served, indexes are made again.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.log.catalog import read_node
from gateway.log.recovery import Outcome, Recovery
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.log.verify import INDEX, Verified
from headwater.clock import Clock
from headwater.disk import Disk
from headwater.errors import UserError


def repair(disk: Disk, data_dir: str, verified: Iterable[Verified], *, clock: Clock) -> list[Recovery]:
    """Mend the partitions that have faults; returns what was done. Raises `UserError`: the node runs, or none is here.

    What is left tells `verify` again: a chain that disagrees, and ranges that are missing, cannot be mended.
    """
    node = read_node(disk, f"{data_dir}/node")
    if node is None:
        raise UserError(f"{data_dir} is no node's data directory", hint="Name the folder that data_dir is set to.")
    first = _open(disk, data_dir, node, clock)  # raises when the node runs; cuts tails as any start does
    first.close()
    for partition in verified:
        if partition.damaged:
            _forget_derived(disk, data_dir, partition)
    store = _open(disk, data_dir, node, clock)
    store.close()
    # What no start can mend, such as a range that is missing, both have found.
    return [each for each in dict.fromkeys([*first.recovered, *store.recovered]) if each.outcome is not Outcome.CLEAN]


def _open(disk: Disk, data_dir: str, node: str, clock: Clock) -> LogStore:
    return LogStore.open(
        data_dir,
        node=node,
        settings=LogSettings(),
        disk=disk,
        clock=clock,
        call_in_loop=lambda callback: callback(),
        flusher="manual",
        trust_clean_stop=False,
    )


def _forget_derived(disk: Disk, data_dir: str, partition: Verified) -> None:
    directory = f"{data_dir}/log/{partition.topic}-{partition.partition}"
    for name in disk.names(directory):
        if name.endswith(".snapshot"):
            disk.remove(f"{directory}/{name}")
    for fault in partition.faults:
        for suffix in (".index", ".timeindex") if fault.kind == INDEX else ():
            if disk.exists(fault.path + suffix):
                disk.remove(fault.path + suffix)
