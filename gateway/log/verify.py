"""Checking a data directory without changing it: every batch's CRC, offsets, gaps, indexes, the hash chain.

Works beside a running node too: what is above the last checkpoint may be half written and is only noted.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from gateway.log import checkpoints
from gateway.log.aborted_check import AbortedCheck
from gateway.log.aborted_sums import AbortedSums
from gateway.log.adoption import partition_of
from gateway.log.catalog import TopicEntry, read_entries, read_node
from gateway.log.chain import CHAIN_START, chain_next, decode_anchors
from gateway.log.clean_stop import CleanEnd, peek
from gateway.log.errors import CorruptBatch
from gateway.log.faults import CHAIN, DAMAGED, FILE, INDEX, MISSING, TAIL, Fault
from gateway.log.index import OffsetIndex, TimeIndex
from gateway.log.layout import HEADER_BYTES
from gateway.log.producers import Producers
from gateway.log.rewritten import Rewritten
from gateway.log.scan import Stop, find_next_batch, scan_run, unreadable_bytes
from gateway.log.swap import CLEANED, SWAP
from gateway.log.topic_config import lenient_config
from headwater.disk import Disk, read_checked, read_or_none

__all__ = ["CHAIN", "DAMAGED", "FILE", "INDEX", "MISSING", "TAIL", "Fault", "Verified", "verify_data"]

_LOG_NAME = re.compile(r"\d{20}\.log")


class Verified(NamedTuple):
    """One partition: what was read, and the faults found."""

    topic: str
    partition: int
    start: int
    end: int
    segments: int
    batches: int
    records: int
    bytes: int
    faults: list[Fault]

    @property
    def damaged(self) -> bool:
        """Whether anything but an unfinished tail was found."""
        return any(fault.kind != TAIL for fault in self.faults)


def verify_data(disk: Disk, data_dir: str, only: Container[tuple[str, int]] | None = None) -> Iterator[Verified]:
    """Each partition of a data directory, or `only` some (topic, partition); small files: `gateway.log.small_files`.

    Raises `OSError` when it cannot be read, `UserError` when it is of a newer format.
    """
    log_dir, node_dir = f"{data_dir}/log", f"{data_dir}/node"
    read_node(disk, node_dir)
    entries = read_entries(disk, node_dir)
    points = _offsets(disk, f"{log_dir}/{checkpoints.RECOVERY_POINTS}")
    starts = _offsets(disk, f"{log_dir}/{checkpoints.LOG_STARTS}")
    cleaned = _offsets(disk, f"{log_dir}/{checkpoints.CLEANED}")
    ends = peek(disk, node_dir)
    for name in disk.names(log_dir):
        key = partition_of(name)
        if key is None or (only is not None and key not in only):
            continue
        yield _Partition(
            disk,
            f"{log_dir}/{name}",
            key,
            point=points.get(key, 0),
            start=starts.get(key, 0),
            compacted=key in cleaned or _compacted(entries, key[0]),
            anchors=_anchors(disk, f"{node_dir}/chain/{name}") | _chain_at_stop(ends.get(key)),
            quarantine=f"{node_dir}/quarantine/{name}",
            rewritten=f"{node_dir}/rewritten/{name}",
            aborted=f"{node_dir}/aborted/{name}",
        ).verify()


def _compacted(entries: Mapping[str, TopicEntry], topic: str) -> bool:
    return topic in entries and lenient_config(entries[topic].config).compact


def _offsets(disk: Disk, path: str) -> checkpoints.Offsets:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return checkpoints.decode_offsets(read_checked(disk, path))
    return {}


def _anchors(disk: Disk, path: str) -> dict[int, int]:
    with contextlib.suppress(FileNotFoundError, CorruptBatch, ValueError):
        return decode_anchors(read_checked(disk, path))
    return {}


def _chain_at_stop(end: CleanEnd | None) -> dict[int, int]:
    return {} if end is None or end.chain is None else {end.end: end.chain}


class _Partition:
    def __init__(
        self,
        disk: Disk,
        directory: str,
        key: tuple[str, int],
        *,
        point: int,
        start: int,
        compacted: bool,
        anchors: dict[int, int],
        quarantine: str,
        rewritten: str,
        aborted: str,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._key = key
        self._point = point
        self._start = start
        self._compacted = compacted
        self._anchors = {} if compacted else anchors
        self._quarantine = quarantine
        self._rewritten_path = rewritten
        self._rewritten = Rewritten(disk, rewritten)
        self._aborted_path = aborted
        self._aborted = AbortedCheck(whole=False)
        self._epochs = {0}
        self._faults: list[Fault] = []
        self._batches = self._records = self._bytes = 0
        self._chain: int | None = None
        # Of the segment being read: position -> (last offset, greatest timestamp so far, offset of that)
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._newest = (-1, -1)
        self._own: int | None = None  # the chain over its headers alone, None where they are not all good

    def verify(self) -> Verified:
        names = self._disk.names(self._directory)
        self._check_small_files(names)
        bases = [int(name[:20]) for name in names if _LOG_NAME.fullmatch(name)]
        if bases and bases[0] == 0 and not self._compacted:
            self._anchors.setdefault(0, CHAIN_START)
            self._aborted = AbortedCheck(whole=True)
        end = self._start
        for slot, base in enumerate(bases):
            following = bases[slot + 1] if slot + 1 < len(bases) else None
            self._check_chain(base)
            end = self._segment(base, following, names)
            if following is not None:
                self._check_gap(base, end, following)
        self._check_chain(end)
        if bases and end < self._point:
            self._fault(MISSING, f"{bases[-1]:020d}.log", end, self._point, -1, "records that were acknowledged")
        start = max(self._start, bases[0]) if bases else self._start
        return Verified(
            *(*self._key, start, max(start, end), len(bases)),
            *(self._batches, self._records, self._bytes, self._faults),
        )

    def _fault(self, kind: str, name: str, first: int, end: int, position: int, detail: str) -> None:
        self._faults.append(Fault(kind, f"{self._directory}/{name}", first, end, position, detail))

    def _check_small_files(self, names: list[str]) -> None:
        readers = {
            checkpoints.LEADER_EPOCHS: checkpoints.decode_epochs,
            checkpoints.PARTITION_METADATA: checkpoints.decode_partition_metadata,
        }
        for name in names:
            decode = readers.get(name) or (Producers.decode if name.endswith(".snapshot") else None)
            if decode is None:
                continue
            try:
                found = decode(read_checked(self._disk, f"{self._directory}/{name}"))
            except ValueError as error:
                self._fault(FILE, name, -1, -1, -1, str(error))
                continue
            if name == checkpoints.LEADER_EPOCHS:
                self._epochs = {int(epoch) for epoch, _ in found} or {0}  # type: ignore[misc,has-type]  # pairs: `decode` is this name's

    def _check_gap(self, base: int, end: int, following: int) -> None:
        if end < following:
            self._chain = None
            self._aborted.lose()
        known = self._disk.exists(f"{self._quarantine}-{end}-{following}.bin")
        if end < following and following > self._start and not self._compacted and not known:
            self._fault(MISSING, f"{base:020d}.log", end, following, -1, "between two segments")

    # -- one segment

    def _segment(self, base: int, following: int | None, names: list[str]) -> int:
        name = f"{base:020d}.log"
        handle = self._disk.open(f"{self._directory}/{name}")
        self._seen, self._newest, self._own = {}, (-1, -1), CHAIN_START
        self._aborted.begin_segment()
        noted = self._noted_aborts(base)
        try:
            size = self._disk.size(handle)
            end = self._scan(handle, size, base, following, name)
        finally:
            self._disk.close(handle)
        stem = f"{base:020d}"
        if not {f"{name}{suffix}" for suffix in (CLEANED, SWAP)}.intersection(names):  # else the note may be ahead
            self._check_rewritten(base, end, name)
            finished = self._point >= following if following is not None else stem + ".timeindex" in names
            if finished and noted == self._noted_aborts(base):  # else one of the two is just being written
                self._check_aborted(base, *noted)
        if following is not None or stem + ".timeindex" in names:
            self._check_indexes(base, size, names)
        return end

    def _scan(self, handle: int, size: int, base: int, following: int | None, name: str) -> int:
        position, expected = 0, base
        while True:
            visit = partial(self._visit, base)
            gapless = following is None or not self._compacted
            found = scan_run(self._disk, handle, position, size, expected, following, visit, gapless=gapless)
            position, expected = found.position, found.next_offset
            if found.stop is not Stop.BAD:
                if found.stop is Stop.SUCCESSOR:
                    # What a failed sync left is cut by the next start; anything missing before it is damage.
                    until = following or expected
                    kind = TAIL if expected == until else DAMAGED
                    self._fault(kind, name, expected, until, position, "batches beyond the next segment's base")
                    self._chain = self._chain if kind == TAIL else None
                    self._own = None
                return expected
            self._chain = self._own = None
            self._aborted.lose()
            good = find_next_batch(self._disk, handle, position + 1, size, expected, self._epochs)
            if good is None or (following is not None and good[1] >= following):
                unreadable = unreadable_bytes(self._disk, handle, position, size)
                tail = following is None and expected >= self._point and not unreadable
                until = following if following is not None else max(expected, self._point)
                what = f"{size - position} bytes that are no valid batch"
                if unreadable:
                    what += f", {unreadable} of them on sectors that the disk cannot read"
                self._fault(TAIL if tail else DAMAGED, name, expected, until, position, what)
                return expected if tail else until
            self._fault(DAMAGED, name, expected, good[1], position, f"{good[0] - position} bytes, good ones after them")
            position, expected = good

    def _visit(self, base: int, position: int, fields: tuple[int, ...], batch: memoryview) -> None:
        self._aborted.visit(fields, batch)
        self._batches += 1
        self._records += fields[12]
        self._bytes += len(batch)
        last = fields[0] + fields[6]
        if fields[8] > self._newest[0]:
            self._newest = fields[8], last - base
        self._seen[position] = (last - base, *self._newest)
        if self._chain is not None:
            self._chain = chain_next(self._chain, batch[:HEADER_BYTES])
        if self._own is not None and self._compacted:
            self._own = chain_next(self._own, batch[:HEADER_BYTES])

    def _check_rewritten(self, base: int, end: int, name: str) -> None:
        noted = self._rewritten.of(base) if self._compacted else None
        if noted is None or self._own in (None, noted):
            return
        if Rewritten(self._disk, self._rewritten_path).of(base) == noted:  # else compaction was here meanwhile
            what = f"the headers give {self._own:016x}, compaction noted {noted:016x}"
            self._fault(CHAIN, name, base, end, -1, what)

    def _noted_aborts(self, base: int) -> tuple[bytes | None, int | None]:
        """A segment's transaction index, None where it cannot be read, and its checksum, None where none is noted."""
        path = f"{self._directory}/{base:020d}.txnindex"
        index = read_or_none(self._disk, path)
        noted = AbortedSums(self._disk, self._aborted_path).of(base)
        return b"" if index is None and not self._disk.exists(path) else index, noted

    def _check_aborted(self, base: int, index: bytes | None, noted: int | None) -> None:
        try:
            if index is None:
                raise ValueError("its transaction index lies on a bad sector")
            self._aborted.compare(index, noted, compacted=self._compacted)
        except ValueError as error:
            self._fault(INDEX, f"{base:020d}", base, -1, -1, str(error))

    def _check_chain(self, base: int) -> None:
        noted = self._anchors.get(base)
        if noted is not None and self._chain is not None and noted != self._chain:
            what = f"its headers give {self._chain:016x}, noted is {noted:016x}"
            self._fault(CHAIN, f"before offset {base}", -1, base, -1, what)
        self._chain = noted if noted is not None else self._chain

    def _check_indexes(self, base: int, size: int, names: list[str]) -> None:
        stem = f"{base:020d}"
        path = f"{self._directory}/{stem}"
        try:
            if stem + ".index" in names:
                index = OffsetIndex.decode(read_checked(self._disk, path + ".index"), size)
                for offset, at in zip(index.offsets, index.positions, strict=True):
                    if self._seen.get(at, (-1, 0, 0))[0] != offset:
                        raise ValueError(f"no batch that ends at offset {base + offset} begins at byte {at}")
            if stem + ".timeindex" in names:
                times = TimeIndex.decode(read_checked(self._disk, path + ".timeindex"))
                known = {(newest, offset) for _, newest, offset in self._seen.values()}
                for entry in zip(times.timestamps, times.offsets, strict=True):
                    if entry not in known:
                        raise ValueError(f"time {entry[0]} is not the newest up to offset {base + entry[1]}")
        except ValueError as error:
            self._fault(INDEX, stem, base, -1, -1, str(error))
