"""Records of one partition as columns: keys as small numbers, a NumPy array per numeric field, one JSON call per block.

Splitting the same records into other blocks gives the same columns, row by row: what is malformed is judged record
by record. Nothing here depends on which rules there are.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.log.own_headers import read_place
from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE, PeerError
from processors.documents import FieldColumn, Texts, read_values
from processors.key_index import KeyIndex
from processors.lanes import places_in
from processors.marks import Mark, parse_mark
from processors.pieces import Pieces, together, whole_numbers

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LANES_MAX = 100_000
TIME_MAX_MS = 1 << 52  # beyond it a time is no time; also keeps window arithmetic inside int64
MARK_KEY = b"\x0ehw-mark"  # as an encoded header section holds the key: its length as a zigzag varint, then the key
_COPY = b"\x04hw"
_ONLY_COPY = re.compile(rb"\x02\x04hw[\x00-\x7f]([^/\x00]+/\d+/\d+)\Z", re.DOTALL)
_DIGITS_MAX = 15
_DECODE_OFFSETS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(lt=10**_DIGITS_MAX)]])


class Records(Protocol):
    """What is read here of `gateway.consume.reader.Block`."""

    @property
    def timestamps(self) -> Sequence[int]: ...
    @property
    def keys(self) -> Sequence[bytes | None]: ...
    @property
    def values(self) -> Sequence[bytes | None]: ...
    @property
    def headers(self) -> Sequence[bytes]: ...


class MarkAt(NamedTuple):
    """A mark, which row carries it, and whether that record is a copy from another node's log."""

    row: int
    mark: Mark
    copied: bool


class Columns(NamedTuple):
    """A block of readings, row for row.

    `key` is the number of the record's key in the partition's `KeyTable`, -1 for a record that is not windowed
    (no key, a value that is no JSON object, an impossible time). `time` is the record timestamp in
    ms. `backfill`: the record's place in its source log is below one seen before (docs/replication.md).
    """

    key: Ints
    time: Ints
    backfill: Bools
    fields: dict[str, FieldColumn]
    marks: list[MarkAt]
    refused: int
    texts: Mapping[str, Texts] = MappingProxyType({})
    """Text fields that somebody asked for: a string per row, None where there is none."""
    coded: Mapping[str, FieldColumn] = MappingProxyType({})
    """Fields that somebody wants with their texts among the values."""

    def __len__(self) -> int:
        return len(self.key)

    def of_rule(self, text_fields: frozenset[str]) -> Mapping[str, FieldColumn]:
        """The fields, these (none of which is computed) with their texts among the values."""
        if not text_fields or not self.coded:
            return self.fields
        return {**self.fields, **{name: self.coded[name] for name in self.coded.keys() & text_fields}}


class KeyTable:
    """Keys `<node>/<device>` as numbers, in order of first appearance, and the numbers of their nodes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.nodes: list[str] = []
        self.node_of: list[int] = []
        self._ids: dict[bytes, int] = {}
        self._node_ids: dict[str, int] = {}
        self._index = KeyIndex()
        self._nodes_of = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nodes_of(self) -> Ints:
        """`node_of` as an array."""
        if len(self._nodes_of) < len(self.node_of):
            fresh = np.array(self.node_of[len(self._nodes_of) :], dtype=np.int64)
            self._nodes_of = np.concatenate([self._nodes_of, fresh])
        return self._nodes_of

    def numbers(self, keys: Sequence[bytes | None]) -> Ints:
        """`ids` as an array."""
        if not isinstance(keys, Pieces):
            return np.fromiter(self.ids(keys), np.int64, len(keys))  # twice as fast as `np.array`
        self._index.learn(self.names)
        found = self._index.find(keys)
        missed = np.flatnonzero(found < 0)
        if len(missed):
            found[missed] = self.ids([keys[row] for row in missed.tolist()])
        return found

    def ids(self, keys: Sequence[bytes | None]) -> list[int]:
        """The number of each key; -1 for None and for what is no key of a reading.

        How many there may be is for `roster` to say, which takes out those that belong to nobody (`keep`).
        """
        known = self._ids
        try:
            return [known[key] for key in keys]  # type: ignore[index]  # None is no key either
        except KeyError:
            return [-1 if key is None else known[key] if key in known else self._add(key) for key in keys]

    def _add(self, key: bytes) -> int:
        try:
            name = key.decode()
        except UnicodeDecodeError:
            return -1
        node, slash, device = name.partition("/")
        if not (node and slash and device):
            return -1
        self._ids[key] = len(self.names)
        self.names.append(name)
        self.node_of.append(self.node_id(node))
        return self._ids[key]

    def node_id(self, node: str) -> int:
        """The number of a node, new or known; at most as many as there are keys and marks' nodes."""
        found = self._node_ids.get(node)
        if found is None:
            found = self._node_ids[node] = len(self.nodes)
            self.nodes.append(node)
        return found

    def device(self, key: int) -> tuple[str, str]:
        """Node and device name of a key."""
        node, _, device = self.names[key].partition("/")
        return node, device

    def keep(self, known: Bools, nodes: Container[str]) -> tuple[Ints, Ints]:
        """Keep these keys, their nodes, and of the other nodes those among `nodes`; all of them get new numbers.

        Returns the new numbers of keys and nodes by their old ones, -1 for those that are gone.
        """
        kept = np.flatnonzero(known).tolist()
        staying = {self.node_of[key] for key in kept}
        new_of = np.where(known, np.cumsum(known) - 1, -1)
        here = np.array([index in staying or node in nodes for index, node in enumerate(self.nodes)], dtype=np.bool_)
        new_node_of = np.where(here, np.cumsum(here) - 1, -1)
        names = [self.names[key] for key in kept]
        stayed = [node for index, node in enumerate(self.nodes) if here[index]]
        self.restore({"names": names, "nodes": stayed})
        return new_of, new_node_of

    def snapshot(self) -> dict[str, Any]:
        return {"names": self.names, "nodes": self.nodes}

    def restore(self, data: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # no class below has another
        for node in data["nodes"]:
            self.node_id(node)
        for name in data["names"]:
            self._add(name.encode())


class Lanes:
    """The highest offset seen of each source log (`node/epoch/partition`): what comes below it is backfill."""

    def __init__(self) -> None:
        self.highest: dict[bytes, int] = {}

    def backfill(self, headers: Sequence[bytes], joined: bytes | None = None) -> Bools:
        """For each record whether it is backfill; a record that is no copy never is. `joined`: the headers as one."""
        found = np.zeros(len(headers), dtype=np.bool_)
        logs, which, offsets = _places(headers, b"".join(headers) if joined is None else joined)
        if len(self.highest) + len(logs) > LANES_MAX:
            self._one_by_one(logs, which, offsets, found)
            return found
        order = np.argsort(which, kind="stable") if len(logs) != 1 or which.min() < 0 else np.arange(len(which))
        ends = np.searchsorted(which[order], np.arange(-1, len(logs)), side="right").tolist()
        for log, begin, end in zip(logs, ends[:-1], ends[1:], strict=True):
            rows = order[begin:end]
            before = np.maximum.accumulate(np.concatenate([[self.highest.get(log, -1)], offsets[rows]]))
            found[rows] = offsets[rows] < before[:-1]
            self.highest[log] = int(before[-1])
        return found

    def _one_by_one(self, logs: list[bytes], which: Ints, offsets: Ints, found: Bools) -> None:
        """The same where there may be one log too many: the one first seen is forgotten."""
        highest = self.highest
        for row, (index, offset) in enumerate(zip(which.tolist(), offsets.tolist(), strict=True)):
            if index < 0:
                continue
            log = logs[index]
            if offset < highest.get(log, -1):
                found[row] = True
                continue
            if log not in highest and len(highest) >= LANES_MAX:
                del highest[next(iter(highest))]  # its node's next epoch has another name
            highest[log] = offset


def _places(headers: Sequence[bytes], joined: bytes) -> tuple[list[bytes], Ints, Ints]:
    """Source logs in the order in which they first appear; per record the index of its log, -1 for none, and its offset
    there.

    Nearly all records of a block have the same few beginnings of their headers, which end in the offset.
    """
    if isinstance(headers, Pieces):
        if (found := places_in(headers, _copy_place)) is not None:
            return found
        joined = b"".join(headers)
    if (of_one := _offsets_of_one(headers, joined)) is not None:
        return [of_one[0]], np.zeros(len(headers), dtype=np.int64), of_one[1]
    parts = [blob.rpartition(b"/") for blob in headers]
    heads, tails = [part[0] for part in parts], [part[2] for part in parts]
    log_of = {head: match[1] if (match := _ONLY_COPY.match(head)) else None for head in dict.fromkeys(heads)}
    odd = {head for head, log in log_of.items() if log is None}
    rows = [row for row, head in enumerate(heads) if head in odd] if odd else []
    for row in rows:
        heads[row], tails[row] = _replaced(headers[row], log_of)
    if not (all(tails) and b"".join(tails).isdigit() and max(map(len, tails), default=0) <= _DIGITS_MAX):
        for row, tail in enumerate(tails):
            if not tail.isdigit() or len(tail) > _DIGITS_MAX:
                heads[row], tails[row] = _replaced(headers[row], log_of)
    offsets = np.array(list(map(int, tails)), dtype=np.int64)
    seen = dict.fromkeys(heads)
    logs = list(dict.fromkeys(log for head in seen if (log := log_of[head]) is not None))
    if len(seen) == len(logs) == 1:
        return logs, np.zeros(len(heads), dtype=np.int64), offsets
    number_of = {log: number for number, log in enumerate(logs)}
    which = {head: -1 if (log := log_of[head]) is None else number_of[log] for head in seen}
    return logs, np.array([which[head] for head in heads], dtype=np.int64), offsets


def _offsets_of_one(headers: Sequence[bytes], joined: bytes) -> tuple[bytes, Ints] | None:
    """The log and the offsets when they are all of one, in one pass; only records with marks have other headers too."""
    head = headers[0].rpartition(b"/")[0] if headers else b""
    if (match := _ONLY_COPY.match(head)) is None:
        return None
    odd = _rows_with(MARK_KEY, joined, headers) if MARK_KEY in joined else []
    for row in odd:
        place = _copy_place(headers[row])
        if place is None or place[0] != match[1]:
            return None
        joined = joined.replace(headers[row], b"%b/%d" % (head, place[1]), 1)
    tails = joined.replace(head + b"/", b",")
    if tails.translate(None, b"0123456789") != b"," * len(headers):
        return None
    try:
        offsets = _DECODE_OFFSETS.decode(b"[%b]" % tails[1:])
    except UNREADABLE:
        return None  # leading zeros, too many digits, nothing: one by one they are judged below
    return match[1], np.fromiter(offsets, np.int64, len(offsets))


def _replaced(blob: bytes, log_of: dict[bytes, bytes | None]) -> tuple[bytes, bytes]:
    """What stands for headers that are not `hw` alone: a beginning that `log_of` knows from now on, and an offset."""
    place = _copy_place(blob)
    head = b"" if place is None else b"\0" + place[0]
    log_of[head] = None if place is None else place[0]
    return head, b"0" if place is None else b"%d" % place[1]


def _copy_place(blob: bytes) -> tuple[bytes, int] | None:
    if _COPY not in blob:
        return None
    try:
        for name, value in decode_headers(blob):
            if name == "hw" and value is not None:
                return read_place(value)
    except PeerError:
        return None
    return None


def to_columns(
    records: Records,
    keys: KeyTable,
    lanes: Lanes,
    texts: frozenset[str] = frozenset(),
    joined: bytes | None = None,
    coded: frozenset[str] = frozenset(),
) -> Columns:
    """One block as columns; `keys` and `lanes` take in what they had not seen.

    `texts`: fields wanted as texts; `joined`: all header sections `together`, from somebody who has them so; `coded`:
    fields wanted with their texts among the values.
    """
    count = len(records.keys)
    ids = keys.numbers(records.keys)
    time = whole_numbers(records.timestamps)
    read, bad = read_values(records.values, texts, coded)
    if bad:
        ids[bad] = -1
    ids[(time < 0) | (time > TIME_MAX_MS)] = -1
    joined = together(records.headers) if joined is None else joined
    copies = _COPY in joined
    backfill = lanes.backfill(records.headers, joined) if copies else np.zeros(count, dtype=np.bool_)
    marks = marks_of(records, joined) if MARK_KEY in joined else []
    return Columns(ids, time, backfill, read.numbers, marks, int((ids < 0).sum()), read.texts, read.coded)


def _rows_with(what: bytes, joined: bytes, blobs: Sequence[bytes]) -> list[int]:
    """Which of the joined blobs hold `what`, of which there is little."""
    if isinstance(blobs, Pieces):
        return blobs.rows_with(what)
    places, at = [], joined.find(what)
    while at >= 0:
        places.append(at)
        at = joined.find(what, at + 1)
    ends = np.cumsum(np.fromiter(map(len, blobs), dtype=np.int64, count=len(blobs)))
    rows = dict.fromkeys(np.searchsorted(ends, places, side="right").tolist())
    return [row for row in rows if what in blobs[row]]  # not where it began in one and ended in the next


def marks_of(records: Records, joined: bytes) -> list[MarkAt]:
    """The marks of a block; `joined`: its header sections, one behind the other."""
    found = []
    for row in _rows_with(MARK_KEY, joined, records.headers):
        try:
            headers = dict(decode_headers(records.headers[row]))
            mark = parse_mark(headers.get("hw-mark") or b"")
        except (PeerError, ValueError):
            continue
        key = records.keys[row]
        # A mark speaks for the node whose name its record bears; any other is somebody's mistake or mischief.
        if key is not None and key.startswith(mark.node.encode() + b"/"):
            found.append(MarkAt(row, mark, "hw" in headers))
    return found
