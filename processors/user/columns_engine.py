"""Columns: state as arrays with a row per device; a reading that fails is found by halves."""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.errors import UserError
from processors.columns import TIME_MAX_MS
from processors.user.column_form import ColumnMark, ColumnProcessor, ColumnState, Readings, Said, arrays, grow
from processors.user.host import Failure, Host, Record, Rows, call_of


class ColumnEngine:
    """Calls `on_columns` and `on_mark` of one processor over one partition."""

    def __init__(self, processor: ColumnProcessor[Any], state: Any, host: Host) -> None:
        if not (isinstance(state, type) and issubclass(state, ColumnState)):
            raise UserError(
                f"{type(processor).__name__} has no state of columns",
                hint="Write class Mine(ColumnProcessor[State]) with a subclass of ColumnState.",
            )
        state.columns()
        self._processor = processor
        self._host = host
        self._state: ColumnState = state()
        self._keys: list[str] = []
        self._ids: dict[str, int] = {}
        self._nodes: dict[str, list[int]] = {}
        self._hears_marks = type(processor).on_mark is not ColumnProcessor.on_mark

    def take(self, rows: Rows, begin: int, end: int) -> None:
        """Readings between two marks."""
        times = rows.block.timestamps
        mine: list[int] = []
        for row in range(begin, end):
            if not rows.keys[row] or not 0 <= times[row] <= TIME_MAX_MS:
                continue
            has_room, careful = self._has_room(rows.keys[row]), self._host.careful(rows.block.offsets[row])
            if mine and (careful or not has_room):
                self._take(rows, mine)
                mine = []
            if not has_room:
                self._refuse(rows, row, Failure("there is no room for one device more (devices_max, state_max_bytes)"))
            elif careful:
                self._take(rows, [row])
            else:
                mine.append(row)
        self._take(rows, mine)

    def _has_room(self, key: str) -> bool:
        limits = self._host.limits
        if key not in self._ids:
            if len(self._keys) >= limits.devices_max or self.size_bytes >= limits.state_max_bytes:
                return False
            self._add(key)
        return True

    def _add(self, key: str) -> None:
        self._ids[key] = len(self._keys)
        self._nodes.setdefault(key.partition("/")[0], []).append(len(self._keys))
        self._keys.append(key)

    def _take(self, rows: Rows, mine: list[int]) -> None:
        """These rows together; where that fails, halves, until the one that fails is alone."""
        if not mine:
            return
        block = rows.block
        kept = {name: array.copy() for name, array in self._arrays().items()}
        try:
            with self._host.call(block.offsets[mine[0]], block.offsets[mine[-1]]):
                readings = self._readings(rows, mine)
                self._processor.on_columns(readings, self._state)
                self._arrays()
                said = [(block.offsets[mine[one[0]]], self._record(one)) for one in _sorted(readings.said)]
        except Failure as failure:
            for name, array in kept.items():
                setattr(self._state, name, array)
            if len(mine) == 1:
                self._refuse(rows, mine[0], failure)
                return
            half = len(mine) // 2
            self._take(rows, mine[:half])
            self._take(rows, mine[half:])
            return
        for offset, record in said:
            self._host.say(offset, [record])
        self._host.well(len(mine))

    def _readings(self, rows: Rows, mine: list[int]) -> Readings:
        block, watermarks = rows.block, self._host.watermarks
        keys = [rows.keys[row] for row in mine]
        time_ms = np.array([block.timestamps[row] for row in mine], dtype=np.int64)
        floors = [watermarks.get(key.partition("/")[0], -1) for key in keys]
        late = time_ms < np.array(floors, dtype=np.int64)
        if rows.backfill is not None:
            late |= rows.backfill[mine]
        device = np.array([self._ids[key] for key in keys], dtype=np.int64)

        def about(name: str, turn: int) -> str | None:
            return self._host.about(keys[turn], block.offsets[mine[turn]]).get(f"device.{name}")

        return Readings(device, time_ms, late, [rows.documents[row] for row in mine], self._keys, about)

    def _record(self, said: Said) -> Record:
        _, _, topic, key, time_ms, value = said
        return self._host.emitted(value, topic, key, time_ms)

    def _arrays(self) -> dict[str, Any]:
        grow(self._state, len(self._keys))
        return arrays(self._state, len(self._keys))

    def _refuse(self, rows: Rows, row: int, failure: Failure) -> None:
        block = rows.block
        self._host.failed(
            *(failure, block.offsets[row], block.timestamps[row], rows.keys[row], block.values[row] or b"{}"),
            before=True,
        )

    def mark(self, node: str, watermark_ms: int, at: int) -> None:
        """`on_mark` with the node's rows."""
        if not self._hears_marks:
            return
        kept = {name: array.copy() for name, array in self._arrays().items()}
        devices = np.array(self._nodes.get(node, []), dtype=np.int64)

        def about(name: str, device: int) -> str | None:
            return self._host.about(self._keys[device], at).get(f"device.{name}")

        try:
            call = call_of(node, "$mark", watermark_ms)
            with self._host.call(call, call):
                mark = ColumnMark(node, watermark_ms, devices, self._keys, about)
                self._processor.on_mark(mark, self._state)
                self._arrays()
                said = [self._record(one) for one in _sorted(mark.said)]
        except Failure as failure:
            for name, array in kept.items():
                setattr(self._state, name, array)
            self._host.failed(failure, at, watermark_ms, f"{node}/$mark", b"{}", before=False)
        else:
            self._host.say(at, said)

    def snapshot(self) -> dict[str, Any]:
        little = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in self._arrays().items()}
        return {"keys": list(self._keys), "columns": {name: array.tobytes() for name, array in little.items()}}

    def restore(self, data: dict[str, Any]) -> None:
        """A column that is new begins with its first value; one that is gone is forgotten."""
        for key in data["keys"]:
            self._add(key)
        for name, (dtype, _) in type(self._state).columns().items():
            if (saved := data["columns"].get(name)) is None:
                continue
            found = np.frombuffer(saved, dtype.newbyteorder("<"))
            if len(saved) != len(self._keys) * dtype.itemsize:
                raise UserError(
                    f"the state's column {name} was of another type",
                    hint="Give it another name, or raise the processor's version to begin with empty state.",
                )
            setattr(self._state, name, found.astype(dtype))

    def state_of(self, key: str) -> Any:
        """For a user's tests: the row of one device."""
        row = self._ids[key]
        return {name: array[row].item() for name, array in self._arrays().items()}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def size_bytes(self) -> int:
        row = sum(dtype.itemsize for dtype, _ in type(self._state).columns().values())
        return len(self._keys) * (row + 200)


def _sorted(said: list[Said]) -> list[Said]:
    return sorted(said, key=lambda one: one[:2])  # stable: within a call as it was given
