"""What readings say of their devices (header `hw-device`), in the order of the partition. Sans-IO.

So what a rule joins a reading with depends on nothing but the partition: a replay, another owner and the other driver
join the same (ADR 0020).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gateway.log.own_headers import read_place
from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.columns import Columns, KeyTable, Records
from processors.documents import Texts

PREFIX = "device."
LABELS = "device.labels."
MEMBERS = ("site", "zone", "type")
DEVICES_MAX = 200_000
BYTES_MAX = 32 << 20
"""What is known of the devices of a partition takes no more; beyond it what was said of the first ones is forgotten."""
SAID_EVERY_MS = 600_000
"""How often a device's readings say what it is (ADR 0020)."""
_ENTRY_BYTES, _FACT_BYTES = 400, 100  # of CPython's objects, about, beside the texts themselves
_LABELS_MAX, _TEXT_MAX = 16, 256
_INTERVAL = "expected_interval_ms"  # no name that an expression could have: theirs begin with `device.`
_INTERVAL_END_MS = 1 << 40
HEADER = b"\x12hw-device"  # as an encoded header section holds it: its length as a zigzag varint, then the key
_NOTHING: Mapping[str, str] = {}


class _Told(msgspec.Struct):
    """The value of the header; members that are not known are somebody else's."""

    site: str | None = None
    zone: str | None = None
    type: str | None = None
    labels: dict[str, str] = {}
    expected_interval_ms: int | None = None


_DECODER = msgspec.json.Decoder(_Told)


class _Known(NamedTuple):
    """Facts by their names in expressions; of a copy also its leader epoch and offset at home."""

    facts: dict[str, str]
    place: tuple[int, int] | None


class _Change(NamedTuple):
    row: int
    key: bytes
    known: _Known | None

    @property
    def before(self) -> Mapping[str, str]:
        return self.known.facts if self.known is not None else _NOTHING


class DeviceFacts:
    """The devices of one partition. `take` a block, then ask for its `column`s, before the next one is taken."""

    def __init__(self) -> None:
        self._version = 0
        self._row = 0
        self._of: dict[bytes, _Known] = {}
        self.held_bytes = 0
        self._changes: list[_Change] = []
        self._changes_of: dict[bytes, list[_Change]] = {}

    def take(self, records: Records, joined: bytes | None = None) -> None:
        """What a block of records says. What a copy said later at home is not undone by one that came later here.

        `joined`: its header sections as one.
        """
        self._changes, self._changes_of = [], {}
        if HEADER not in (b"".join(records.headers) if joined is None else joined):
            return
        for row, section in enumerate(records.headers):
            if HEADER not in section or (key := records.keys[row]) is None:
                continue
            key = bytes(key)
            known = self._of.get(key)
            if (told := _read(section)) is None or (known is not None and not _is_newer(told, known)):
                continue
            before = known.facts if known is not None else _NOTHING
            if told.facts != before:
                self._changes.append(_Change(row, key, known))
                self._version += 1
            self._of[key] = told
            self.held_bytes += _cost(key, told) - (_cost(key, known) if known is not None else 0)
            while len(self._of) > DEVICES_MAX or self.held_bytes > BYTES_MAX:
                first = next(iter(self._of))
                gone = self._of.pop(first)
                self._version += 1
                self.held_bytes -= _cost(first, gone)
                self._changes.append(_Change(row, first, gone))  # its readings before this row had it still
        for change in self._changes:
            self._changes_of.setdefault(change.key, []).append(change)

    def of(self, key: bytes) -> Mapping[str, str]:
        """Facts of a device by their names in expressions, such as `device.site`."""
        known = self._of.get(key)
        return known.facts if known is not None else _NOTHING

    def at(self, key: bytes, row: int) -> Mapping[str, str]:
        """Of a device as this row of the block finds it."""
        for change in self._changes_of.get(key, ()):
            if change.row > row:
                return change.before
        return self.of(key)

    def forget_from(self, row: int) -> None:
        """As if the block had ended before this row."""
        self._version += 1
        for change in reversed(self._changes):
            if change.row >= row:
                now = self._of.pop(change.key, None)
                self.held_bytes -= _cost(change.key, now) if now is not None else 0
                if change.known is not None:
                    self._of[change.key] = change.known
                    self.held_bytes += _cost(change.key, change.known)

    def stand_at(self, row: int) -> None:
        """From here on `interval_ms` and `version` are as this row of the block finds them."""
        self._row = row

    @property
    def version(self) -> tuple[int, int]:
        """Another one whenever something else is known."""
        return self._version, len(self._changes) - bisect_right(self._changes, self._row, key=lambda one: one.row)

    def interval_ms(self, key: bytes) -> int | None:
        """How often a device is expected to speak; None where nobody has said."""
        text = self.at(key, self._row).get(_INTERVAL)
        return int(text) if text is not None else None

    def column(self, name: str, columns: Columns, keys: KeyTable) -> Texts:
        """One fact for each row of the block, None where it is not known."""
        used, rows = np.unique(columns.key, return_inverse=True)
        names = [keys.names[key].encode() if key >= 0 else b"" for key in used.tolist()]
        latest = np.empty(len(used), dtype=object)
        latest[:] = [self.of(key).get(name) for key in names]
        found: Texts = latest[rows]
        at = {key: index for index, key in enumerate(names)} if self._changes else {}
        for change in reversed(self._changes):  # from what holds behind the block back to its beginning
            if (index := at.get(change.key)) is not None:
                found[np.flatnonzero(rows[: change.row] == index)] = change.before.get(name)
        return found

    def snapshot(self) -> list[Any]:
        """Plain data for a checkpoint."""
        return [[key, known.facts, known.place] for key, known in self._of.items()]

    def restore(self, data: list[Any]) -> None:
        self._version += 1
        self._of = {key: _Known(facts, tuple(place) if place else None) for key, facts, place in data}
        self.held_bytes = sum(_cost(key, known) for key, known in self._of.items())


def _cost(key: bytes, known: _Known) -> int:
    return _ENTRY_BYTES + len(key) + sum(_FACT_BYTES + len(name) + len(value) for name, value in known.facts.items())


def _is_newer(told: _Known, known: _Known) -> bool:
    return told.place is None or known.place is None or told.place >= known.place


def _read(section: bytes) -> _Known | None:
    try:
        headers = dict(decode_headers(section))
        told = _DECODER.decode(headers.get("hw-device") or b"")
    except (PeerError, *UNREADABLE):
        return None
    facts = {f"{PREFIX}{name}": value for name in MEMBERS if (value := getattr(told, name))}
    facts |= {f"{LABELS}{name}": value for name, value in list(told.labels.items())[:_LABELS_MAX]}
    if told.expected_interval_ms is not None and 0 < told.expected_interval_ms < _INTERVAL_END_MS:
        facts[_INTERVAL] = str(told.expected_interval_ms)
    return _Known({name: value[:_TEXT_MAX] for name, value in facts.items()}, _place(headers.get("hw")))


def _place(identity: bytes | None) -> tuple[int, int] | None:
    found = read_place(identity) if identity is not None else None
    if found is None:
        return None
    epoch = found[0].split(b"/")[-2:-1]
    return (int(epoch[0]), found[1]) if epoch and epoch[0].isdigit() and len(epoch[0]) < 10 else None
