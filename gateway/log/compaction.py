"""What compaction keeps of a batch: the latest record of each key, as Apache Kafka's cleaner does it. No I/O.

A batch may have a hundred thousand records: all that is done to it is done in steps (`gateway.log.steps`).

A first pass over the batches builds a `KeyMap`, a second one asks a `Compactor` for each batch's new bytes. Batches
keep their base and last offsets, epoch, producer and sequence; records that go leave gaps. The rules: a record stays
when no later record has its key; a tombstone stays until its batch's delete horizon, which the first pass that meets
it sets to now + `delete.retention.ms` (KIP-534); records of aborted transactions go; a marker stays until nothing of
its transaction is left and its own horizon has passed; the last batch of each known producer stays, empty if need be,
for its sequence numbers.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice

from gateway.log.columns import Columns, SlicedBatch, decode_batch
from gateway.log.compression import Compression, compress
from gateway.log.layout import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_DELETE_HORIZON,
    ATTRIBUTE_LOG_APPEND_TIME,
    ATTRIBUTE_TRANSACTIONAL,
    CODEC_MASK,
    MAGIC,
)
from gateway.log.records import Buffer, seal
from gateway.log.replay import is_abort
from gateway.log.steps import Step
from gateway.log.transactions import AbortedTransaction
from gateway.log.varint import NULL, encode_varint

SLICE_RECORDS = 250  # a step: well below a millisecond
_SEALED_AT_ONCE_BYTES = 64 << 10
_DIGEST_BYTES = 16
_KEPT_ATTRIBUTES = ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL
NO_TIMESTAMP = -1

Fields = tuple[int, ...]


class KeyMap:
    """Key -> offset of its latest record, for at most `keys_max` keys: long keys are kept as 16-byte digests."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._offsets: dict[bytes, int] = {}
        self.end_offset = 0  # records at or above were not looked at, and stay

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, columns: Columns) -> Generator[Step, None, bool]:
        """Take a batch's records up; False, with nothing taken, when there is no room for all of them."""
        rows = zip(columns.keys, columns.offsets, strict=True)
        new: dict[bytes, int] = {}
        while some := list(islice(rows, SLICE_RECORDS)):
            new.update((_digest(key), offset) for key, offset in some if key is not None)
            if self._offsets and len(self._offsets) + len(new) > self._keys_max:
                return False
            yield None
        items = iter(new.items())
        while taken := list(islice(items, SLICE_RECORDS)):
            self._offsets.update(taken)
            yield None
        return True

    def is_latest(self, key: bytes, offset: int) -> bool:
        """Whether no later record with that key was seen."""
        return offset >= self._offsets.get(_digest(key), -1)


def decode_in_steps(batch: Buffer) -> Generator[Step, None, Columns]:
    """`decode_batch`, a slice of records a step."""
    sliced = SlicedBatch(batch)
    if sliced.takes_long:
        yield sliced.unpack
    else:
        sliced.unpack()
    while sliced.more(SLICE_RECORDS):
        yield None
    return sliced.columns


def _digest(key: bytes) -> bytes:
    return key if len(key) < _DIGEST_BYTES else blake2b(key, digest_size=_DIGEST_BYTES).digest()


class Fates:
    """Which transactions the batches of one pass belong to, from the entries of the transaction indexes."""

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        self._waiting = sorted(aborted, key=lambda entry: entry.first_offset, reverse=True)
        self._aborting: dict[int, tuple[AbortedTransaction, bool]] = {}  # by producer; whether a batch was seen
        self._committing: set[int] = set()
        self.kept: list[AbortedTransaction] = []

    def data(self, fields: Fields) -> bool:
        """Whether the records of this data batch are of an aborted transaction."""
        self._begin(fields[0] + fields[6])
        if not fields[5] & ATTRIBUTE_TRANSACTIONAL:
            return False
        found = self._aborting.get(fields[9])
        if found is None:
            self._committing.add(fields[9])
            return False
        self._aborting[fields[9]] = found[0], True
        return True

    def marker(self, fields: Fields, *, abort: bool | None) -> bool:
        """Whether nothing of this marker's transaction is left. `abort` is None for a batch that is no marker."""
        self._begin(fields[0] + fields[6])
        if abort is None:
            return False
        if not abort:
            seen = fields[9] in self._committing
            self._committing.discard(fields[9])
            return not seen
        entry, seen = self._aborting.pop(fields[9], (None, False))
        if entry is not None and seen:
            self.kept.append(entry)
            return False
        return True

    def _begin(self, last_offset: int) -> None:
        while self._waiting and self._waiting[-1].first_offset <= last_offset:
            entry = self._waiting.pop()
            self._aborting[entry.producer_id] = entry, False


class Compactor:
    """The second pass, batch by batch in the log's order.

    `now_ms` is None while the clock is not trusted: no horizon is set or has passed then. `retained` are last offsets
    of batches that stay, empty if need be: those of known producers.
    """

    def __init__(
        self,
        keys: KeyMap,
        aborted: Iterable[AbortedTransaction],
        *,
        now_ms: int | None,
        delete_retention_ms: int,
        retained: Container[int],
    ) -> None:
        self.fates = Fates(aborted)
        self._keys = keys
        self._now_ms = now_ms
        self._delete_retention_ms = delete_retention_ms
        self._retained = retained
        self.records_removed = 0

    def compact(self, fields: Fields, batch: Buffer) -> Generator[Step, None, Buffer | None]:
        """What becomes of one whole batch: its bytes, new ones, or None. Raises `CorruptBatch`, `MissingCodec`."""
        if fields[5] & ATTRIBUTE_CONTROL:
            return (yield from self._marker(fields, batch))
        stays = fields[0] + fields[6] in self._retained
        if self.fates.data(fields):
            self.records_removed += fields[12]
            return empty_batch(fields) if stays else None
        if not fields[12]:
            return batch if stays else None
        columns = yield from decode_in_steps(batch)
        horizon = _horizon(fields)
        gone = horizon is not None and self._now_ms is not None and self._now_ms >= horizon
        kept: list[int] = []
        tombstones = False
        for some in _slices(range(len(columns))):
            found = [slot for slot in some if self._keeps(columns, slot, tombstones=not gone)]
            tombstones = tombstones or any(columns.values[slot] is None for slot in found)
            kept += found
            yield None
        self.records_removed += len(columns) - len(kept)
        if not kept:
            return empty_batch(fields) if stays else None
        return (yield from self._written(fields, batch, columns, kept, sets_horizon=horizon is None and tombstones))

    def _keeps(self, columns: Columns, slot: int, *, tombstones: bool) -> bool:
        if columns.offsets[slot] >= self._keys.end_offset:
            return True
        key = columns.keys[slot]
        if key is None:
            return True  # it was acknowledged, and nothing has come in its place; Kafka refuses it when it is produced
        return self._keys.is_latest(key, columns.offsets[slot]) and (tombstones or columns.values[slot] is not None)

    def _marker(self, fields: Fields, batch: Buffer) -> Generator[Step, None, Buffer | None]:
        stays = fields[0] + fields[6] in self._retained
        if not fields[12]:
            return batch if stays else None  # Kafka's cleaner has emptied it
        if not self.fates.marker(fields, abort=is_abort(batch)):
            return batch
        horizon = _horizon(fields)
        if horizon is not None and self._now_ms is not None and self._now_ms >= horizon and not stays:
            self.records_removed += 1
            return None
        columns = decode_batch(batch, accelerate=False)
        return (yield from self._written(fields, batch, columns, range(len(columns)), sets_horizon=horizon is None))

    def _written(
        self, fields: Fields, batch: Buffer, columns: Columns, kept: Sequence[int], *, sets_horizon: bool
    ) -> Generator[Step, None, Buffer]:
        horizon = _horizon(fields)
        if sets_horizon and self._now_ms is not None:
            horizon = self._now_ms + self._delete_retention_ms
        elif len(kept) == fields[12]:
            return batch
        return (yield from rebuilt_batch(fields, columns, kept, horizon))


def _horizon(fields: Fields) -> int | None:
    return fields[7] if fields[5] & ATTRIBUTE_DELETE_HORIZON else None


def _slices(slots: Sequence[int]) -> Iterator[Sequence[int]]:
    return (slots[start : start + SLICE_RECORDS] for start in range(0, len(slots), SLICE_RECORDS))


def rebuilt_batch(
    fields: Fields, columns: Columns, kept: Sequence[int], horizon_ms: int | None
) -> Generator[Step, None, bytearray]:
    """A batch with some of its records and, when one is given, a delete horizon. Raises `MissingCodec`."""
    base_time = columns.timestamps[kept[0]] if horizon_ms is None else horizon_ms
    body = bytearray()
    newest = NO_TIMESTAMP
    for some in _slices(kept):
        body += b"".join(_encoded(columns, some, fields[0], base_time))
        newest = max(newest, *(columns.timestamps[slot] for slot in some))
        yield None
    attributes = fields[5] & (_KEPT_ATTRIBUTES | CODEC_MASK)
    if horizon_ms is not None:
        attributes |= ATTRIBUTE_DELETE_HORIZON
    head = *(fields[0], 0, fields[2], MAGIC, 0, attributes, fields[6], base_time, newest), *(*fields[9:12], len(kept))
    done: list[bytearray] = []
    if len(body) > _SEALED_AT_ONCE_BYTES:
        yield lambda: done.append(_sealed(head, body))
        return done[0]
    return _sealed(head, body)


def _encoded(columns: Columns, slots: Sequence[int], base_offset: int, base_time: int) -> Iterator[bytes]:
    for slot in slots:
        key, value = columns.keys[slot], columns.values[slot]
        record = b"".join(
            (
                b"\x00",
                encode_varint(columns.timestamps[slot] - base_time),
                encode_varint(columns.offsets[slot] - base_offset),
                NULL if key is None else encode_varint(len(key)) + key,
                NULL if value is None else encode_varint(len(value)) + value,
                columns.headers[slot],
            )
        )
        yield encode_varint(len(record))
        yield record


def _sealed(head: Fields, body: bytearray) -> bytearray:
    codec = Compression(head[5] & CODEC_MASK)
    return seal(head, bytes(body) if codec is Compression.NONE else compress(codec, bytes(body)))


def empty_batch(fields: Fields) -> bytearray:
    """Only the header: what is left for a producer's sequence numbers, or to mark a segment's end."""
    attributes = fields[5] & _KEPT_ATTRIBUTES
    return seal(
        (
            *(fields[0], 0, fields[2], MAGIC, 0, attributes, fields[6], NO_TIMESTAMP, fields[8]),
            *(*fields[9:12], 0),
        ),
        b"",
    )
