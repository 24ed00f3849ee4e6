"""Open and ended transactions of a partition: the last stable offset and the aborted list (KIP-98, `.txnindex`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

_ENTRY = struct.Struct(">hqqqq")
_VERSION = 0


class AbortedTransaction(NamedTuple):
    """One entry of a transaction index; `last_offset` is that of its abort marker."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class OpenTransaction(NamedTuple):
    """A transaction whose marker has not come."""

    producer_id: int
    producer_epoch: int
    first_offset: int
    started_ms: int


def encode_aborted(entries: Iterable[AbortedTransaction]) -> bytes:
    """The bytes of a `.txnindex`."""
    return b"".join(_ENTRY.pack(_VERSION, *entry) for entry in entries)


def decode_aborted(data: bytes) -> list[AbortedTransaction]:
    """Raises `ValueError` when it is none of a known version."""
    if len(data) % _ENTRY.size:
        raise ValueError(f"transaction index of {len(data)} bytes")
    entries = []
    for version, *fields in _ENTRY.iter_unpack(data):
        if version != _VERSION:
            raise ValueError(f"transaction index of version {version}")
        entries.append(AbortedTransaction(*fields))
    return entries


class Transactions:
    """What is open, and what is ended by a marker that is not yet on disk."""

    __slots__ = ("_ended", "_open", "first_unstable")

    def __init__(self) -> None:
        self._open: dict[int, OpenTransaction] = {}
        self._ended: list[tuple[int, int]] = []  # marker offset, first offset
        # The first offset that read_committed must not see yet; None when there is none.
        self.first_unstable: int | None = None

    def __contains__(self, producer_id: object) -> bool:
        return producer_id in self._open

    def first_offset(self, producer_id: int) -> int | None:
        found = self._open.get(producer_id)
        return None if found is None else found.first_offset

    def open(self) -> list[OpenTransaction]:
        return list(self._open.values())

    def begin(self, transaction: OpenTransaction) -> None:
        """Note a transaction's first batch; later batches of an open one change nothing."""
        if transaction.producer_id not in self._open:
            self._open[transaction.producer_id] = transaction
            self._refresh()

    def end(self, producer_id: int, marker_offset: int, *, commit: bool) -> AbortedTransaction | None:
        """Note a marker; returns the index entry when it aborts a transaction that had records here."""
        transaction = self._open.pop(producer_id, None)
        if transaction is None:
            return None
        # Until its marker is on disk a reader could be shown records whose fate a power cut would undo.
        self._ended.append((marker_offset, transaction.first_offset))
        self._refresh()
        if commit:
            return None
        stable = min((other.first_offset for other in self._open.values()), default=marker_offset + 1)
        return AbortedTransaction(producer_id, transaction.first_offset, marker_offset, stable)

    def synced(self, end_offset: int) -> None:
        """Everything below `end_offset` is on disk."""
        if self._ended:
            self._ended = [ended for ended in self._ended if ended[0] >= end_offset]
            self._refresh()

    def _refresh(self) -> None:
        firsts = [transaction.first_offset for transaction in self._open.values()]
        firsts += [first for _, first in self._ended]
        self.first_unstable = min(firsts, default=None)
