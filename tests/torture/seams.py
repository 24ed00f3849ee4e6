"""Scenarios at single seams: what a function says is done when it returns, or what its call alone keeps true."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gateway.log import checkpoints, records
from gateway.log.clean_stop import FILE as CLEAN_STOP
from gateway.log.clean_stop import take
from gateway.log.recovery import Outcome
from headwater.cli import export, to_kafka
from headwater.disk import Buffer, Disk, RealDisk
from processors.history import store as history
from simulators import serial_line
from tests.torture.crashes import Wrap, each_kept
from tests.torture.damage import DATA, build, on, open_store, views_of
from tests.torture.ledger import Violation
from tests.torture.simulated_os import SKIP, WRITE_SIDE, Crash, SimulatedOs
from tests.torture.world import TOPICS, World

LOG, NODE = f"{DATA}/log", f"{DATA}/node"


def taken(wrap: Wrap) -> None:
    """The marks of a clean stop are gone for good before anything else is done."""
    simulated = on(build(clean=True).files)
    take(wrap(simulated), LOG, NODE)
    for path in (f"{NODE}/{CLEAN_STOP}", f"{LOG}/{checkpoints.CLEAN_SHUTDOWN}"):
        if path in simulated.after_crash(Crash.FORGET).files():
            raise Violation(f"{path} is back after a power cut")


def mended(wrap: Wrap) -> None:
    """What a start has mended and told of is mended: the start after a power cut has nothing more to tell."""
    reference = build(clean=True)
    del reference.files[f"{NODE}/{CLEAN_STOP}"]  # else the last segment is read after the start
    path = f"{LOG}/t-0/{7:020d}.log"
    data = bytearray(reference.files[path])
    data[80] ^= 1
    simulated = on({**reference.files, path: bytes(data)})
    first = open_store(wrap(simulated))
    if Outcome.QUARANTINED not in {each.outcome for each in first.recovered}:
        raise Violation("nothing was put to quarantine")
    again = open_store(simulated.after_crash(Crash.FORGET).disk())
    if told := [each for each in again.recovered if each.outcome is not Outcome.CLEAN]:
        raise Violation(f"the start after a power cut tells of {told}")
    if views_of(again) != views_of(first):
        raise Violation("the start after a power cut shows something else")


def expired(wrap: Wrap) -> None:
    """Expiry gives the room back, and a power cut in the middle of it leaves a start nothing to tell."""
    simulated = SimulatedOs()
    world = World(wrap(simulated))
    for _ in range(12):
        world.append("r")
        world.flush()
    world.turn()  # when they came is noted
    world.turn(3_700_000)  # what is old is named
    states: list[tuple[str, SimulatedOs]] = []

    def before(call: str, path: str) -> None:
        if call in WRITE_SIDE and "/r-0" in path:
            states.extend((f"{bits:b} before {call} of {path}", each_kept(simulated, bits)) for bits in range(64))

    simulated.before = before
    world.turn()  # and goes
    world.turn()
    simulated.before = lambda call, path: None
    bases = [base for base, _ in world.log("r").segment_sizes()]
    there = [path for path in simulated.files() if "/r-0/" in path and path.endswith(".log")]
    if len(there) != len(bases) or len(states) < 20:
        raise Violation(f"{there} are there, and {bases} are served; {len(states)} states")
    for where, left in states:
        if told := [each for each in open_store(left.disk()).recovered if each.outcome is not Outcome.CLEAN]:
            raise Violation(f"{where}: {told}")


def rolled_back(wrap: Wrap) -> None:
    """After a failed sync the log goes on in the next epoch, which no batch from before it is in after a power cut."""
    simulated = SimulatedOs()
    world = World(wrap(simulated))
    failing: dict[str, OSError] = {}
    states: list[tuple[str, SimulatedOs]] = []

    def before(call: str, path: str) -> None:
        if call in failing:
            raise failing.pop(call)
        if call in WRITE_SIDE and "/t-0" in path and not failing:
            states.extend((f"{bits:b} before {call} of {path}", each_kept(simulated, bits)) for bits in range(256))

    for _ in range(3):
        world.append("t")
        world.flush()
    for _ in range(9):  # in this segment, and in others
        world.append("t")
    failing["fdatasync"] = OSError(errno.EIO, "Input/output error")
    simulated.before = before
    world.flush()
    world.clock.advance(2_000)
    world.append("t")
    world.flush()
    simulated.before = lambda call, path: None
    if len(states) < 1_000:
        raise Violation(f"{len(states)} states")
    seen: set[tuple[tuple[str, bytes], ...]] = set()
    for where, left in states:
        files = tuple((path, data) for path, data in left.files().items() if "/t-0/" in path)
        if files in seen:
            continue
        seen.add(files)
        log = open_store(left.disk()).topics["t"].partitions[0]
        at = log.log_start_offset
        while data := log.read(at, 1 << 20).data:
            for view in records.split_batches(data):
                header = records.read_header(view)
                at = header.next_offset
                wanted = max(epoch for epoch, first in log.epochs if first <= header.base_offset)
                if header.leader_epoch != wanted:
                    raise Violation(f"{where}: offset {header.base_offset} is of epoch {header.leader_epoch}: {wanted}")


# -- where the operating system's own files are used


class Kept(SimulatedOs):
    """Real files, and a book of what was made durable of them; `os` is for the module under test."""

    def __init__(self) -> None:
        super().__init__()
        self.files_synced: dict[str, tuple[int, int]] = {}  # size and time of change
        self.names_synced: dict[str, list[str]] = {}
        self.os: Any = _Calls(self)

    def disk(self) -> Disk:
        return _Noting(self)

    def note_file(self, path: str) -> None:
        self.files_synced[path] = _state(path)

    def note_directory(self, path: str) -> None:
        self.names_synced[path] = sorted(os.listdir(path))


class _Calls:
    """`os` but for what a mutant leaves out."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def replace(self, old: str, new: str) -> None:
        if self._kept.before("replace", old) is not SKIP:
            os.replace(old, new)

    def fsync(self, handle: int) -> None:
        if self._kept.before("fsync", "") is not SKIP:
            os.fsync(handle)
            self._kept.note_file(os.readlink(f"/proc/self/fd/{handle}"))


class _Noting(RealDisk):
    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._kept.note_directory(path)

    def replace_file(self, path: str, data: Buffer, *, mode: int = 0o640) -> None:
        super().replace_file(path, bytes(data), mode=mode)
        self._kept.note_file(path)


def _state(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def copied(wrap: Wrap) -> None:
    """When a broker is said to have a copy, no power cut takes any of it; its mark of a clean stop is true."""
    for clean in (True, False):
        _copied(wrap, clean=clean)


def _copied(wrap: Wrap, *, clean: bool) -> None:
    simulated = SimulatedOs()
    world = World(simulated.disk())
    for topic in TOPICS:
        for _ in range(9):
            world.append(topic)
            world.flush()
    world.close()
    with tempfile.TemporaryDirectory() as folder:
        for path, data in simulated.files().items():
            real = Path(folder + path)
            real.parent.mkdir(parents=True, exist_ok=True)
            real.write_bytes(data)
        if not clean:
            Path(folder + DATA, "log", checkpoints.CLEAN_SHUTDOWN).unlink()
        broker = Path(folder, "broker")
        for topic, entry in world.store.topics.items():
            (broker / f"{topic}-0").mkdir(parents=True)
            metadata = checkpoints.encode_partition_metadata(entry.topic_id)
            (broker / f"{topic}-0" / checkpoints.PARTITION_METADATA).write_bytes(metadata)
        (broker / checkpoints.META_PROPERTIES).write_bytes(b"version=1\n")
        (broker / checkpoints.CLEAN_SHUTDOWN).write_bytes(b"")
        kept = Kept()
        disk = wrap(kept)
        with (
            patch.object(to_kafka, "os", kept.os),
            patch.object(to_kafka, "RealDisk", lambda: disk),
            patch.object(to_kafka, "_print", lambda _text: None),
        ):
            if to_kafka.to_kafka(str(broker), folder + DATA) != to_kafka.DONE:
                raise Violation("nothing was copied")
        _check_kept(kept, broker, clean=clean)


def _check_kept(kept: Kept, broker: Path, *, clean: bool) -> None:
    suffixes = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
    logs = 0
    for directory in (broker, *(path for path in broker.iterdir() if path.is_dir())):
        if kept.names_synced.get(str(directory)) != sorted(os.listdir(directory)):
            raise Violation(f"the names in {directory.name} may change back")
        for path in directory.iterdir():
            if path.suffix not in suffixes:
                continue
            logs += path.suffix == ".log"
            if kept.files_synced.get(str(path)) != _state(str(path)):
                raise Violation(f"{path.name} in {directory.name} may be lost")
    if not logs or (broker / checkpoints.CLEAN_SHUTDOWN).exists() != clean:
        raise Violation(f"{logs} segments, and the broker would not read them as it should")


def exported(wrap: Wrap) -> None:
    """A file that is to be replaced by an export is the new one when the command ends."""
    kept = Kept()
    wrap(kept)
    with tempfile.TemporaryDirectory() as folder, patch.object(export, "os", kept.os):
        file = Path(folder, "readings.csv")
        file.write_text("old")
        with export._whole_file(str(file), replace=True) as out:
            out.write("new")
        if file.read_text() != "new" or os.listdir(folder) != [file.name]:
            raise Violation(f"{file.read_text()!r} in {os.listdir(folder)}")


def put_aside(wrap: Wrap) -> None:
    """A history that is no database is kept to be looked at, and another one begun."""
    kept = Kept()
    wrap(kept)
    with tempfile.TemporaryDirectory() as folder, patch.object(history, "os", kept.os):
        path = Path(folder, "history.db")
        path.write_bytes(b"damaged" * 1_000)
        store = history.HistoryStore(str(path), bytes_max=1 << 20)
        store.close()
        if not store.put_aside or Path(f"{path}.damaged").read_bytes() != b"damaged" * 1_000:
            raise Violation("the damaged history is not kept")


def linked(wrap: Wrap) -> None:
    """A simulator's line is found under the name that it was given, which an earlier one may have left."""
    kept = Kept()
    wrap(kept)
    with tempfile.TemporaryDirectory() as folder, patch.object(serial_line, "os", kept.os):
        link = f"{folder}/mast"
        os.symlink("/nowhere", link)
        line = serial_line.SerialLine(link)
        try:
            if os.readlink(link) != line.path:
                raise Violation(f"{link} is {os.readlink(link)}, not {line.path}")
        finally:
            line.close()


__all__ = ["copied", "expired", "exported", "linked", "mended", "put_aside", "rolled_back", "taken"]
