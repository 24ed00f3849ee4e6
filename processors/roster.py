"""Which devices of a partition are known, by when each was last heard: new ones are admitted, silent ones forgotten.

A device that has not been heard for `forget_after_ms` of its node's event time is forgotten at the next mark, unless
some window of it is open or may still be revised. When it is heard again it is a new device. Decisions follow the
order of the log; that numbers of the forgotten are given to others comes later, between two blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.columns import Columns, Ints, KeyTable
from processors.results import NEVER
from processors.rhythms import DEVICE_BYTES, Rhythms

Bools = npt.NDArray[np.bool_]

KEYS_MAX = 200_000
KEY_BYTES = 320
"""What a key takes in its tables as measured, beside its name, which stands in them twice."""
_SWEEPS = 16  # in the time after which a device is forgotten: so long, and at most a sixteenth more
_SPARE_MIN = 1024


class Roster:
    """The devices of one partition. `forgotten` counts them. `learns`: also how often each speaks (`rhythms`)."""

    def __init__(self, keys: KeyTable, *, learns: bool = False) -> None:
        self._keys = keys
        self.rhythms = Rhythms() if learns else None
        self._heard: Ints = np.zeros(1, dtype=np.int64)  # NEVER: not known; one element more, which key -1 finds
        self._swept: dict[str, int] = {}
        self.alive = 0
        self.state_bytes = 0
        self.forgotten = 0

    def take(self, columns: Columns, begin: int, end: int, *, full: bool) -> list[int]:
        """Rows [begin, end) are heard; returns those whose device is new and was not admitted.

        While memory is `full`, and beyond `KEYS_MAX`, no new device is.
        """
        self._learn()
        key, time = columns.key[begin:end], columns.time[begin:end]
        refused: list[int] = []
        unknown = np.flatnonzero(self._heard[key] == NEVER)
        if len(unknown):
            for row, name in zip(unknown.tolist(), key[unknown].tolist(), strict=True):
                if self._heard[name] != NEVER:
                    continue
                if full or self.alive >= KEYS_MAX:
                    refused.append(begin + row)
                else:
                    self._heard[name] = time[row]
                    self.alive += 1
                    self.state_bytes += self._cost(name)
            if refused:
                known = np.flatnonzero(self._heard[key] != NEVER)
                key, time = key[known], time[known]
        if self.rhythms is not None:
            of_devices = key >= 0
            self.rhythms.take(key[of_devices], time[of_devices], self._heard)
        np.maximum.at(self._heard, key, time)
        return refused

    def _learn(self) -> None:
        missing = len(self._keys) + 1 - len(self._heard)
        if missing > 0:
            fresh = np.full(missing, NEVER, dtype=np.int64)
            self._heard = np.concatenate([self._heard[:-1], fresh, self._heard[-1:]])
        if self.rhythms is not None:
            self.rhythms.grow(len(self._keys))

    def _cost(self, key: int) -> int:
        return KEY_BYTES + 2 * len(self._keys.names[key]) + (DEVICE_BYTES if self.rhythms is not None else 0)

    # forgetting

    def silent(self, node: str, watermark: int, forget_after_ms: int) -> Ints:
        """The node's devices that were not heard for so long; looked for a few times in that span only."""
        step = watermark // max(forget_after_ms // _SWEEPS, 1)
        if not forget_after_ms or self._swept.get(node) == step:
            return np.zeros(0, dtype=np.int64)
        self._swept[node] = step
        self._learn()
        index = self._keys.node_id(node)
        heard, nodes = self._heard[:-1], self._keys.nodes_of
        return np.flatnonzero((nodes == index) & (heard != NEVER) & (heard <= watermark - forget_after_ms))

    def heard(self, node: str, takes: Callable[[Ints], Bools]) -> tuple[Ints, Ints]:
        """Those of the node's devices that a rule `takes`, and the times of their newest readings."""
        self._learn()
        keys = np.flatnonzero((self._keys.nodes_of == self._keys.node_id(node)) & (self._heard[:-1] != NEVER))
        keys = keys[takes(keys)]
        return keys, self._heard[keys]

    def names(self, keys: Ints) -> list[str]:
        """`<node>/<device>` of each."""
        return [self._keys.names[key] for key in keys.tolist()]

    def by_silence(self) -> Ints:
        """All known devices, the longest silent first."""
        self._learn()
        heard = self._heard[:-1]
        known = np.flatnonzero(heard != NEVER)
        # by name among equals: numbers do not only follow from the log's order
        names = [self._keys.names[key] for key in known.tolist()]
        return known[np.lexsort((np.array(names, dtype=object).astype(str), heard[known]))]

    def forget(self, keys: Ints) -> None:
        """They are not known any more."""
        self._heard[keys] = NEVER
        if self.rhythms is not None:
            self.rhythms.forget(keys)
        self.alive -= len(keys)
        self.forgotten += len(keys)
        self.state_bytes -= sum(self._cost(key) for key in keys.tolist())

    def bytes_of(self, keys: Ints) -> Ints:
        """What each of these takes."""
        return np.array([self._cost(key) for key in keys.tolist()], dtype=np.int64)

    @property
    def crowded(self) -> bool:
        """Whether so many numbers belong to nobody that they should be given to others."""
        return len(self._keys) - self.alive > max(_SPARE_MIN, self.alive // 4)

    def renumber(self, nodes: Container[str]) -> tuple[Ints, Ints]:
        """Take the unknown out of the key table, and nodes that have nothing in it and are not among `nodes`.

        Returns the new numbers of keys and of nodes, -1 for those gone.
        """
        self._learn()
        known = self._heard[:-1] != NEVER
        new_of, new_node_of = self._keys.keep(known, nodes)
        self._swept = {node: step for node, step in self._swept.items() if node in nodes}
        self._heard = np.append(self._heard[:-1][known], self._heard[-1])
        if self.rhythms is not None:
            self.rhythms.keep(known)
        return new_of, new_node_of

    # checkpoints

    def snapshot(self) -> dict[str, Any]:
        self._learn()
        data = {"heard": self._heard[:-1].tolist(), "swept": self._swept, "forgotten": self.forgotten}
        return data | ({"rhythms": self.rhythms.snapshot()} if self.rhythms is not None else {})

    def restore(self, data: dict[str, Any] | None, newest: int) -> None:
        """The key table must have been restored before. A snapshot of earlier versions has none: all are heard now."""
        heard = [newest] * len(self._keys) if data is None else data["heard"]
        self._heard = np.array([*heard, 0], dtype=np.int64)
        self._swept = {} if data is None else dict(data["swept"])
        self.forgotten = 0 if data is None else data["forgotten"]
        if self.rhythms is not None and data is not None and "rhythms" in data:
            self.rhythms.restore(data["rhythms"])
        known = np.flatnonzero(self._heard[:-1] != NEVER)
        self.alive = len(known)
        self.state_bytes = sum(self._cost(key) for key in known.tolist())
