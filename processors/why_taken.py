"""Which records of a log are readings of one window's device or group, as the processors judge them. Sans-IO.

A rule's filter, computed fields and labels are applied as the processors apply them (`rules.derive`, `repartition`),
so that nothing is explained by readings that the rule leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from processors.columns import KeyTable, Lanes, Records, to_columns
from processors.facts import HEADER, DeviceFacts
from processors.repartition import Relay
from processors.rules.model import WindowRule


class Offsets(Records, Protocol):
    """Records with their place: what is read here of `gateway.consume.reader.Block`."""

    @property
    def partition(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...


class _Rows(NamedTuple):
    """Some rows of a block."""

    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes]


class Taken:
    """The readings of one group (or one device) of a rule."""

    def __init__(self, rule: WindowRule, group: str) -> None:
        self._group = group.encode()
        self._relay = Relay(rule, "", 1)
        self._grouped = bool(rule.group_by)
        self._keys = KeyTable()
        self._facts = DeviceFacts()
        self._plain = not (rule.where or rule.group_by)

    def rows(self, block: Offsets, start: int, end: int) -> tuple[list[int], list[int]]:
        """Of the group's readings with times in [start, end): the rows that are taken, and those that `where` drops.

        To be called with all blocks in the order of their partitions: what a device is is said by its readings.
        """
        mine = [row for row, key in enumerate(block.keys) if key is not None and self._may_be(key)]
        times = block.timestamps
        if self._plain:
            return [row for row in mine if start <= times[row] < end], []
        wanted = [row for row in mine if start <= times[row] < end or HEADER in block.headers[row]]
        if not wanted:
            return [], []
        some = _Rows(
            [times[row] for row in wanted],
            [block.keys[row] for row in wanted],
            [block.values[row] for row in wanted],
            [block.headers[row] for row in wanted],
        )
        columns = to_columns(some, self._keys, Lanes(), self._relay.derive.texts)
        self._facts.take(some)
        own = self._relay.derive.apply(columns, self._keys, self._facts)
        groups = self._relay.groups_of(own.texts, np.arange(len(wanted))) if self._grouped else None
        taken: list[int] = []
        left_out: list[int] = []
        for place, row in enumerate(wanted):
            if columns.key[place] < 0 or not start <= times[row] < end:
                continue
            if groups is not None and groups[place] != self._group:
                continue
            (taken if own.key[place] >= 0 else left_out).append(row)
        return taken, left_out

    def _may_be(self, key: bytes) -> bool:
        return self._relay.takes(key) if self._grouped else key == self._group
