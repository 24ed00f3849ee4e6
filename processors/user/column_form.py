"""A user's processor over columns: a NumPy array per field with a present-mask, and state as arrays.

class Totals(ColumnState):
    litres: Floats

class Meter(ColumnProcessor[Totals]):
    def on_columns(self, readings: Readings, state: Totals) -> None:
        flow = readings.numbers("flow")
        np.add.at(state.litres, readings.device[flow.present], flow.values[flow.present])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from headwater.errors import UserError
from processors.user.names import Base

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
Rows = npt.NDArray[Any] | Sequence[int] | slice
C = TypeVar("C", bound="ColumnState")
_KINDS = {np.float64: np.dtype(np.float64), np.int64: np.dtype(np.int64), np.bool_: np.dtype(np.bool_)}


class Filled(NamedTuple):
    """What `filled` returns."""

    value: float


def filled(value: float) -> Any:
    """The value with which a column of a state begins; 0 or false without it: `last: Floats = filled(math.nan)`."""
    return Filled(value)


class Column(NamedTuple):
    """A numeric field: its values, NaN where a reading has none, and where it has one."""

    values: Floats
    present: Bools


class ColumnState:
    """State as columns: each attribute annotated `Floats`, `Ints` or `Bools` is an array with a row per device."""

    _columns: ClassVar[dict[str, tuple[np.dtype[Any], float]]] = {}

    def __init__(self) -> None:
        for name, (dtype, fill) in self._columns.items():
            setattr(self, name, np.full(0, fill, dtype))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._columns = {}

    @classmethod
    def columns(cls) -> dict[str, tuple[np.dtype[Any], float]]:
        """Type and first value of each column. Raises `UserError`."""
        if not cls._columns:
            hints = {name: kind for name, kind in get_type_hints(cls).items() if not name.startswith("_")}
            cls._columns = {name: (_dtype(cls, name, kind), _fill(cls, name)) for name, kind in hints.items()}
        return cls._columns


def _dtype(cls: type, name: str, kind: Any) -> np.dtype[Any]:
    try:
        return _KINDS[get_args(get_args(kind)[1])[0]]
    except (IndexError, KeyError, TypeError):
        raise UserError(f"{cls.__name__}.{name} cannot be a column", hint="Use Floats, Ints or Bools.") from None


def _fill(cls: type, name: str) -> float:
    value = cls.__dict__.get(name)
    return value.value if isinstance(value, Filled) else 0


Said = tuple[int, int, str, str, int, dict[str, Any]]
"""(row, number of the call, topic, key, event time, value)"""


class _Emitting:
    """Outputs of rows; in the order of rows, whatever the order of calls, so that no cut into blocks shows."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._calls = 0

    def _emit(self, rows: Rows, fields: Mapping[str, Any], topic: str, size: int, about: Any) -> None:
        picked = np.arange(size)[rows if isinstance(rows, slice) else np.asarray(rows)]
        columns = [(name, _listed(values, len(picked), name)) for name, values in fields.items()]
        self._calls += 1
        for at, row in enumerate(picked.tolist()):
            key, time_ms = about(row)
            self.said.append((row, self._calls, topic, key, time_ms, {name: one[at] for name, one in columns}))


def _listed(values: Any, count: int, name: str) -> list[Any]:
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        return [values.item() if isinstance(values, np.generic) else values] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} rows")
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


class Readings(_Emitting):
    """Readings of one partition in the order of its log, some or many: never rely on how many come together.

    device    for each reading its device's row in the state's arrays
    time_ms   event times
    late      see `StoredReading.late`
    """

    def __init__(
        self,
        device: Ints,
        time_ms: Ints,
        late: Bools,
        documents: list[dict[str, Any]],
        keys: list[str],
        about: Callable[[str, int], str | None],
    ) -> None:
        super().__init__()
        self._about = about
        self.device = device
        self.time_ms = time_ms
        self.late = late
        self._documents = documents
        self._keys = keys

    def __len__(self) -> int:
        return len(self.device)

    def key(self, device: int) -> str:
        """`<node>/<device>` of a row of the state's arrays."""
        return self._keys[device]

    def numbers(self, name: str) -> Column:
        """A numeric field of all readings."""
        values = np.array([_number(one.get(name)) for one in self._documents], dtype=np.float64)
        return Column(values, ~np.isnan(values))

    def texts(self, name: str) -> Texts:
        """A text field of all readings; None where a reading has none."""
        found = np.empty(len(self), dtype=object)
        found[:] = [value if type(value := one.get(name)) is str else None for one in self._documents]
        return found

    def about(self, name: str) -> Texts:
        """What is known of each one's device: `site`, `zone`, `type` or `labels.NAME`; None where nothing is."""
        found = np.empty(len(self), dtype=object)
        found[:] = [self._about(name, row) for row in range(len(self))]
        return found

    def emit(self, rows: Rows, fields: Mapping[str, Any], *, topic: str = "") -> None:
        """A record for each of these readings (a mask, row numbers or a slice), under its key and at its time.

        `fields`: for each an array as long as the rows are many, or one value for all; NaN is stored as null.
        """
        self._emit(rows, fields, topic, len(self), lambda row: (self._keys[self.device[row]], int(self.time_ms[row])))


def _number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        try:
            return float(value)
        except OverflowError:
            pass
    return np.nan


class ColumnMark(_Emitting):
    """A node has said that its readings are complete up to `watermark_ms`; `devices` are its rows in the state."""

    def __init__(
        self,
        node: str,
        watermark_ms: int,
        devices: Ints,
        keys: list[str],
        about: Callable[[str, int], str | None],
    ) -> None:
        super().__init__()
        self._about = about
        self.node = node
        self.watermark_ms = watermark_ms
        self.devices = devices
        self._keys = keys

    def key(self, device: int) -> str:
        """`<node>/<device>` of a row of the state's arrays."""
        return self._keys[device]

    def about(self, name: str) -> Texts:
        """What is known of each of `devices`: `site`, `zone`, `type` or `labels.NAME`; None where nothing is."""
        found = np.empty(len(self.devices), dtype=object)
        found[:] = [self._about(name, device) for device in self.devices.tolist()]
        return found

    def emit(self, devices: Rows, fields: Mapping[str, Any], *, topic: str = "") -> None:
        """A record for each of these devices (rows of the state's arrays), under its key and at the watermark."""
        self._emit(devices, fields, topic, len(self._keys), lambda row: (self._keys[row], self.watermark_ms))


class ColumnProcessor(Base, Generic[C]):
    """A processor that is handed many readings at once; `C` is a subclass of `ColumnState`."""

    def on_columns(self, readings: Readings, state: C) -> None:
        """Called with readings between two marks, some or many: what it does must not depend on how many."""

    def on_mark(self, mark: ColumnMark, state: C) -> None:
        """Called when a node's watermark has moved, about once a second."""


def grow(state: ColumnState, count: int) -> None:
    """Give the arrays a row for each of `count` devices."""
    for name, (dtype, fill) in type(state).columns().items():
        old = getattr(state, name, None)
        have = 0 if old is None else len(old)
        if have < count:
            new = np.full(count, fill, dtype)
            new[:have] = old if have else new[:0]
            setattr(state, name, new)


def arrays(state: ColumnState, count: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a state. Raises `TypeError` for one that the user's code has put out of shape."""
    found = {}
    for name, (dtype, _) in type(state).columns().items():
        array = getattr(state, name)
        if not isinstance(array, np.ndarray) or array.shape != (count,) or array.dtype != dtype:
            kind = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"state.{name} is {kind}; it should be {dtype} with {count} rows")
        found[name] = array
    return found
