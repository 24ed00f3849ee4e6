"""Logs to damage, ways to damage them, and what recovery found."""

from __future__ import annotations

from gateway.log import records
from gateway.log.partition import PartitionLog
from gateway.log.recovery import Outcome
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA, append, marker, open_log, overwrite, segment_path


def outcomes(store: LogStore) -> list[Outcome]:
    return [finding.outcome for finding in store.recovered]


def filled(disk: ForgetfulDisk, count: int = 60, *, close: bool = False) -> tuple[LogStore, PartitionLog]:
    store, log = open_log(disk)
    for number in range(count):
        append(log, b"%d" % number + b"x" * 200, b"second")
    store.flush_now()
    if close:
        store.close()
    return store, log


def position_of(disk: ForgetfulDisk, base: int, offset: int) -> tuple[int, int]:
    """Start and end of the batch with `offset` in the segment at `base`."""
    position = 0
    for view in records.split_batches(disk.read_file(segment_path(base))):
        header = records.read_header(view)
        if header.next_offset > offset:
            return position, position + len(view)
        position += len(view)
    raise AssertionError(offset)


def flip(disk: ForgetfulDisk, path: str, position: int) -> None:
    data = bytearray(disk.read_file(path))
    data[position] ^= 0xFF
    overwrite(disk, path, bytes(data))


def bases(disk: ForgetfulDisk) -> list[int]:
    return [int(name[:20]) for name in disk.names(f"{DATA}/log/t-0") if name.endswith(".log")]


def aborted_transaction(log: PartitionLog) -> None:
    append(log, b"taken back", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker(log, 7, commit=False)


class NoRoom(ForgetfulDisk):
    """A disk without room for the files whose names end with `full`."""

    full: tuple[str, ...] = ()

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        if path.endswith(self.full):
            raise OSError(28, "No space left on device")
        super().replace_file(path, data)
