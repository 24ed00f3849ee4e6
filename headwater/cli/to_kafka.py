"""`headwater log to-kafka`: a stopped node's topics into the log directory of a stopped Apache Kafka broker.

Batches go over byte for byte. After a clean stop of both, so do indexes, producers' states, transaction indexes and
leader epochs, and the broker takes them as they are. Else they are the broker's to rebuild, which it does for every log
when it starts without its mark of a clean stop. In KRaft mode a directory whose topic the cluster's
metadata does not know is a stray and is moved away, so the topics must have been created before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.log import checkpoints, clean_stop
from gateway.log.catalog import TopicEntry, read_entries
from gateway.log.layout import ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL
from gateway.log.lock import DirectoryLock
from gateway.log.scan import Stop, scan_run
from gateway.log.verify import verify_data
from headwater.cli import words
from headwater.disk import RealDisk, read_or_none
from headwater.errors import UserError

DONE, NOT_YET = 0, 1

_SEGMENT = re.compile(r"\d{20}\.log")
_REPLACED = re.compile(r"\d{20}\..*|leader-epoch-checkpoint")
_AS_THEY_ARE = re.compile(r"\d{20}\.(log|index|timeindex|txnindex|snapshot)|leader-epoch-checkpoint")
_ATTRIBUTES, _PRODUCER = 5, 9  # fields of a batch header
_KAFKAS_LOCK = ".lock"
_BROKER_SEGMENT_BYTES_MIN = 1 << 20  # KIP-1030


class _Part(NamedTuple):
    topic: str
    number: int
    source: Path
    target: Path

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.number}"

    def segments(self) -> list[Path]:
        return sorted(path for path in self.source.iterdir() if _SEGMENT.fullmatch(path.name))


def to_kafka(broker: str, data_dir: str) -> int:
    """Copy; returns 0 when done, 1 when topics must be created first (the commands are printed). Raises `UserError`."""
    target = Path(broker)
    entries = _entries(data_dir)
    parts = [
        _Part(name, number, Path(data_dir, "log", f"{name}-{number}"), target / f"{name}-{number}")
        for name, entry in entries.items()
        for number in range(entry.partitions)
    ]
    with _stopped_node(data_dir), _stopped_broker(target):
        _refuse_damage(data_dir)
        missing = {part.topic for part in parts if not (part.target / checkpoints.PARTITION_METADATA).exists()}
        if missing:
            _say_topics({name: entries[name] for name in sorted(missing)})
            return NOT_YET
        ends: dict[Path, int] = {}
        for part in parts:
            ends |= _read(part)
            _refuse_full(part)
        mark = target / checkpoints.CLEAN_SHUTDOWN
        theirs = mark.read_bytes() if mark.exists() and _stopped_cleanly(data_dir, parts) else None
        mark.unlink(missing_ok=True)  # a copy that is cut short must not look like a whole one
        RealDisk().sync_directory(str(target))
        copied = sum(_copy(part, _SEGMENT if theirs is None else _AS_THEY_ARE, ends) for part in parts)
        _note_starts(data_dir, target, parts)
        if theirs is not None:
            RealDisk().replace_file(str(mark), theirs)
            _give(mark, target)
    counted = f"{words.count(len(entries), 'topic')}, {words.count(len(parts), 'partition')}, {words.size(copied)}"
    rebuilt = "reads every log once and rebuilds what stands beside it"
    then = rebuilt if theirs is None else "takes indexes and producers' states as they are"
    _print(f"{counted} copied. Start the broker: it {then}.")
    return DONE


def _entries(data_dir: str) -> dict[str, TopicEntry]:
    """What is to go: groups' offsets and transactions' states are each cluster's own."""
    found = read_entries(RealDisk(), f"{data_dir}/node")
    topics = {name: entry for name, entry in found.items() if not name.startswith("__") and not entry.deleting}
    if not topics:
        raise UserError(f"{data_dir} has no topics", hint="Name what data_dir is set to.")
    return topics


# --- what must be so before anything is touched -----------------------------------------------------------------------


@contextlib.contextmanager
def _stopped_node(data_dir: str) -> Iterator[None]:
    try:
        lock = DirectoryLock(f"{data_dir}/node/lock")
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES}:
            raise
        yield  # a card that is mounted to be read only: nobody writes there
        return
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _stopped_broker(target: Path) -> Iterator[None]:
    """Holds the broker's own lock, as Java takes it (a POSIX record lock)."""
    if not (target / checkpoints.META_PROPERTIES).is_file():
        raise UserError(
            f"{target} is no broker's log directory: it has no {checkpoints.META_PROPERTIES}",
            hint="Name one of the broker's log.dirs; format it with kafka-storage.sh and start the broker once.",
        )
    with (target / _KAFKAS_LOCK).open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"the broker of {target} runs", hint="Stop it: it reads a log only when it starts."
            ) from None
        yield


def _stopped_cleanly(data_dir: str, parts: list[_Part]) -> bool:
    """Whether all that stands beside the batches is whole: what the node itself would believe at its next start."""
    disk = RealDisk()
    if not disk.exists(f"{data_dir}/log/{checkpoints.CLEAN_SHUTDOWN}"):
        return False
    ends = clean_stop.peek(disk, f"{data_dir}/node")
    left = [(part, ends.get((part.topic, part.number))) for part in parts]
    return all(end is not None and clean_stop.stands(disk, str(part.source), end) for part, end in left)


def _refuse_damage(data_dir: str) -> None:
    for one in verify_data(RealDisk(), data_dir):
        if one.damaged:
            raise UserError(
                f"{one.topic}-{one.partition} is damaged, and a broker would drop all that follows the damage",
                hint="Run `headwater log repair` first: it puts the damage aside and keeps the rest.",
            )


def _read(part: _Part) -> dict[Path, int]:
    """Refuses open transactions. Segments that go on beyond their successor's base, and where their copies must end.

    A failed sync took back what is there, and the next start would cut it. A broker would serve it.
    """
    opened: dict[int, int] = {}

    def visit(position: int, fields: tuple[int, ...], batch: memoryview) -> None:
        if fields[_ATTRIBUTES] & ATTRIBUTE_CONTROL:
            opened.pop(fields[_PRODUCER], None)
        elif fields[_ATTRIBUTES] & ATTRIBUTE_TRANSACTIONAL:
            opened.setdefault(fields[_PRODUCER], fields[0])

    disk = RealDisk()
    segments, ends = part.segments(), {}
    bases = [int(path.stem) for path in segments]
    for path, base, limit in zip(segments, bases, [*bases[1:], None], strict=True):
        handle = disk.open(str(path))
        try:
            found = scan_run(disk, handle, 0, disk.size(handle), base, limit, visit)
        finally:
            disk.close(handle)
        if found.stop is Stop.SUCCESSOR:
            ends[path] = found.position
    for producer_id, first in opened.items():
        raise UserError(
            f"{part.name}: the transaction of producer {producer_id} from offset {first} is open, and no reader at "
            "read_committed would get past it, for the broker's coordinator does not know it",
            hint="Start the node: the transaction's producer or its time-out ends it. Then stop the node.",
        )
    return ends


def _refuse_full(part: _Part) -> None:
    for path in part.target.iterdir():
        if _SEGMENT.fullmatch(path.name) and path.stat().st_size:
            raise UserError(
                f"the broker's {part.name} holds records already ({path})",
                hint="Delete that topic at the broker, or leave it as it is: two histories cannot be joined.",
            )


def _say_topics(missing: dict[str, TopicEntry]) -> None:
    _print("# The broker does not know these topics. Start it, create them, stop it, and run this command again.")
    for name, entry in missing.items():
        # A broker would expire what is older than its own default, seven days, as soon as it has it.
        config = {"retention.ms": "-1", **entry.config}
        if int(config.get("segment.bytes", _BROKER_SEGMENT_BYTES_MIN)) < _BROKER_SEGMENT_BYTES_MIN:
            del config["segment.bytes"]
        settings = "".join(f" --config {key}={value}" for key, value in sorted(config.items()))
        _print(
            f"kafka-topics.sh --bootstrap-server localhost:9092 --create --topic {name} --partitions {entry.partitions}"
            f" --replication-factor 1{settings}"
        )


# --- the copy ---------------------------------------------------------------------------------------------------------


def _copy(part: _Part, wanted: re.Pattern[str], ends: Mapping[Path, int]) -> int:
    """Returns the bytes."""
    for path in part.target.iterdir():
        if _REPLACED.fullmatch(path.name):
            path.unlink()
    size = 0
    for path in sorted(path for path in part.source.iterdir() if wanted.fullmatch(path.name)):
        copy = part.target / path.name
        shutil.copyfile(path, copy)
        if path in ends:
            os.truncate(copy, ends[path])
        size += copy.stat().st_size
        with copy.open("rb") as file:
            os.fsync(file.fileno())
    RealDisk().sync_directory(str(part.target))
    for path in part.target.iterdir():
        _give(path, part.target)
    return size


def _give(path: Path, folder: Path) -> None:
    """Run by root, for a broker that is not: the file is to belong to whom its folder does."""
    owner = folder.stat()
    if path.stat().st_uid != owner.st_uid:
        shutil.chown(path, owner.st_uid, owner.st_gid)


def _note_starts(data_dir: str, target: Path, parts: list[_Part]) -> None:
    """A log that begins above its first segment's base, after expiry, begins there for the broker too."""
    disk, path = RealDisk(), str(target / checkpoints.LOG_STARTS)
    ours = _offsets(f"{data_dir}/log/{checkpoints.LOG_STARTS}")
    wanted = {(part.topic, part.number) for part in parts} & ours.keys()
    if wanted:
        disk.replace_file(path, checkpoints.encode_offsets({**_offsets(path), **{key: ours[key] for key in wanted}}))
        _give(Path(path), target)


def _offsets(path: str) -> checkpoints.Offsets:
    with contextlib.suppress(ValueError):
        return checkpoints.decode_offsets(read_or_none(RealDisk(), path) or b"")
    return {}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
