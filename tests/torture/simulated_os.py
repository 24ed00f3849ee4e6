"""The operating system's file calls over memory, as a power cut sees them; `RealDisk`'s own code runs on top.

A file's writes stand in line until it is synced, a directory's changes until the directory is: POSIX promises no more.
`after_crash` gives what a disk could hold then. Every call may be looked at, refused or left out first (`before`).
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable
from enum import StrEnum
from io import BytesIO
from random import Random
from types import FunctionType, SimpleNamespace

import headwater.disk
from headwater.disk import Disk, RealDisk

SECTOR_BYTES = 512
# Calls that change what is on the disk, or promise that it stays.
WRITE_SIDE = frozenset({"create", "write", "ftruncate", "fdatasync", "fsync", "mkdir", "replace", "unlink", "rmdir"})

Before = Callable[[str, str], object]
"""(call, path): may raise; `SKIP` leaves the call out, `SHORT` lets a write take half."""
SKIP, SHORT = "skip", "short"


class Crash(StrEnum):
    """What a power cut leaves of that which no sync covered."""

    FORGET = "nothing unsynced"
    KEEP = "everything, as when only the process dies"
    NAMES = "names but no data"
    ZEROS = "names and sizes, zeros for data"
    CONTENTS = "data but no names"
    TORN = "any sectors, the first changes of each directory"
    SHUFFLED = "any sectors, any changes of each directory"


class File:
    """`data` as a process reads it, `durable` as of the last sync, `pending` what came since.

    The first `bad` bytes lie on sectors that cannot be read.
    """

    __slots__ = ("bad", "data", "durable", "pending")

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = data
        self.bad = 0
        self.pending: list[tuple[int, bytes | None]] = []  # (position, bytes), or (size, None) for a truncation


Node = "File | Directory"


class Directory:
    """Entries now and as of the last sync; `pending` are atomic groups of changes, None for a name that goes."""

    __slots__ = ("durable", "entries", "pending")

    def __init__(self) -> None:
        self.entries: dict[str, File | Directory] = {}
        self.durable: dict[str, File | Directory] = {}
        self.pending: list[list[tuple[str, File | Directory | None]]] = []

    def copy(self, seen: dict[int, File | Directory] | None = None) -> Directory:
        """A copy of this and all below it, as unsynced as it is."""
        seen = {} if seen is None else seen
        made = seen[id(self)] = Directory()

        def twin(node: File | Directory) -> File | Directory:
            if id(node) in seen:
                return seen[id(node)]
            if isinstance(node, Directory):
                return node.copy(seen)
            file = seen[id(node)] = File(node.durable)
            file.data, file.pending, file.bad = bytearray(node.data), list(node.pending), node.bad
            return file

        made.entries = {name: twin(node) for name, node in self.entries.items()}
        made.durable = {name: twin(node) for name, node in self.durable.items()}
        made.pending = [
            [(name, None if node is None else twin(node)) for name, node in group] for group in self.pending
        ]
        return made

    def change(self, *changes: tuple[str, File | Directory | None]) -> None:
        _apply(self.entries, list(changes))
        self.pending.append(list(changes))


def _apply(entries: dict[str, File | Directory], changes: list[tuple[str, File | Directory | None]]) -> None:
    for name, node in changes:
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class SimulatedOs:
    """What `headwater.disk` asks of `os`, and `open` for whole files."""

    O_RDONLY, O_RDWR, O_WRONLY, O_APPEND = os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_APPEND
    O_CREAT, O_TRUNC, O_CLOEXEC, O_DIRECTORY = os.O_CREAT, os.O_TRUNC, os.O_CLOEXEC, os.O_DIRECTORY
    POSIX_FADV_DONTNEED = os.POSIX_FADV_DONTNEED

    def __init__(self) -> None:
        self.root = Directory()
        self.path = SimpleNamespace(exists=self._exists, isdir=self._isdir, dirname=posixpath.dirname)
        self.before: Before = lambda call, path: None
        self.free_bytes = 1 << 40
        self._handles: dict[int, tuple[File | Directory, str]] = {}
        self._next = 1_000_000

    def disk(self) -> Disk:
        """`RealDisk`, its code as it is, on these files."""
        names = {**vars(headwater.disk), "os": self, "open": self.open_whole}
        methods = {
            name: FunctionType(each.__code__, names, name, each.__defaults__)
            for name, each in vars(RealDisk).items()
            if isinstance(each, FunctionType)
        }
        for name, method in methods.items():
            method.__kwdefaults__ = vars(RealDisk)[name].__kwdefaults__
        made: Disk = type("RealDiskInMemory", (), methods)()
        return made

    # -- finding

    def _find(self, path: str) -> File | Directory | None:
        node: File | Directory = self.root
        for name in path.strip("/").split("/"):
            if not name:
                continue
            if not isinstance(node, Directory) or name not in node.entries:
                return None
            node = node.entries[name]
        return node

    def _get(self, path: str) -> File | Directory:
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return found

    def _parent(self, path: str) -> tuple[Directory, str]:
        folder, _, name = path.rpartition("/")
        parent = self._get(folder)
        assert isinstance(parent, Directory), path
        return parent, name

    def _exists(self, path: str) -> bool:
        return self._find(path) is not None

    def _isdir(self, path: str) -> bool:
        return isinstance(self._find(path), Directory)

    # -- calls

    def open(self, path: str, flags: int, _mode: int = 0o777) -> int:
        node = self._find(path)
        if node is None and flags & os.O_CREAT:
            self.before("create", path)
            node = File()
            parent, name = self._parent(path)
            parent.change((name, node))
        else:
            self.before("open", path)
            node = self._get(path)
        if flags & os.O_TRUNC and isinstance(node, File) and node.data:
            self._truncate(node, 0)
        self._next += 1
        self._handles[self._next] = node, path
        return self._next

    def _file(self, handle: int) -> tuple[File, str]:
        node, path = self._handles[handle]
        assert isinstance(node, File), path
        return node, path

    def write(self, handle: int, data: bytes | memoryview) -> int:
        file, path = self._file(handle)
        told = self.before("write", path)
        taken = bytes(data[: len(data) // 2] if told is SHORT and len(data) > 1 else data)
        if len(taken) > self.free_bytes:
            taken = taken[: self.free_bytes]
        if not taken and len(data):
            raise OSError(errno.ENOSPC, "No space left on device", path)
        self.free_bytes -= len(taken)
        file.pending.append((len(file.data), taken))
        file.data += taken
        return len(taken)

    def pread(self, handle: int, size: int, position: int) -> bytes:
        file, path = self._file(handle)
        self.before("pread", path)
        if position < min(file.bad, position + size):
            raise OSError(errno.EIO, "Input/output error", path)
        return bytes(file.data[position : position + size])

    def fstat(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self._file(handle)[0].data))

    def _truncate(self, file: File, size: int) -> None:
        self.free_bytes += max(0, len(file.data) - size)
        del file.data[size:]
        file.bad = min(file.bad, size)
        file.pending.append((size, None))

    def ftruncate(self, handle: int, size: int) -> None:
        file, path = self._file(handle)
        if self.before("ftruncate", path) is not SKIP:
            self._truncate(file, size)

    def fdatasync(self, handle: int) -> None:
        file, path = self._file(handle)
        if self.before("fdatasync", path) is not SKIP:
            file.durable, file.pending = bytes(file.data), []

    def posix_fadvise(self, handle: int, _start: int, _size: int, _advice: int) -> None:
        self._file(handle)  # all that was read here is what the next sync writes

    def fsync(self, handle: int) -> None:
        node, path = self._handles[handle]
        if self.before("fsync", path) is SKIP:
            return
        if isinstance(node, Directory):
            node.durable, node.pending = dict(node.entries), []
        else:
            node.durable, node.pending = bytes(node.data), []

    def close(self, handle: int) -> None:
        del self._handles[handle]

    @property
    def open_handles(self) -> list[str]:
        return [path for _, path in self._handles.values()]

    def listdir(self, path: str) -> list[str]:
        node = self._get(path)
        assert isinstance(node, Directory), path
        return list(node.entries)

    def mkdir(self, path: str, _mode: int = 0o777) -> None:
        if self.before("mkdir", path) is not SKIP:
            parent, name = self._parent(path)
            parent.change((name, Directory()))

    def replace(self, old: str, new: str) -> None:
        if self.before("replace", old) is SKIP:
            return
        node = self._get(old)
        (parent, name), (other, target) = self._parent(old), self._parent(new)
        assert parent is other, f"{old} -> {new}: no rename between directories"
        gone = parent.entries.get(target)
        if isinstance(gone, File):
            self.free_bytes += len(gone.data)
        parent.change((name, None), (target, node))

    def unlink(self, path: str) -> None:
        if self.before("unlink", path) is not SKIP:
            gone = self._get(path)
            assert isinstance(gone, File), path
            self.free_bytes += len(gone.data)
            parent, name = self._parent(path)
            parent.change((name, None))

    def rmdir(self, path: str) -> None:
        if self.before("rmdir", path) is not SKIP:
            node = self._get(path)
            if isinstance(node, Directory) and node.entries:
                raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
            parent, name = self._parent(path)
            parent.change((name, None))

    def statvfs(self, path: str) -> SimpleNamespace:
        self._get(path)
        return SimpleNamespace(f_bavail=self.free_bytes, f_frsize=1, f_blocks=1 << 40)

    def open_whole(self, path: str, mode: str = "rb") -> BytesIO:
        assert mode == "rb"
        self.before("open", path)
        node = self._get(path)
        assert isinstance(node, File), path
        self.before("read", path)
        if node.bad:
            raise OSError(errno.EIO, "Input/output error", path)
        return BytesIO(bytes(node.data))

    # -- for tests

    def files(self) -> dict[str, bytes]:
        """Every file's bytes by path, as a process reads them."""
        found: dict[str, bytes] = {}

        def walk(directory: Directory, prefix: str) -> None:
            for name, node in sorted(directory.entries.items()):
                if isinstance(node, Directory):
                    walk(node, f"{prefix}/{name}")
                else:
                    found[f"{prefix}/{name}"] = bytes(node.data)

        walk(self.root, "")
        return found

    def changes(self, path: str) -> int:
        """How many changes of a directory no sync covers."""
        found = self._get(path)
        assert isinstance(found, Directory), path
        return len(found.pending)

    def put(self, path: str, data: bytes) -> None:
        """Have other bytes in a file, on the disk for good."""
        parent, name = self._parent(path)
        parent.entries[name] = parent.durable[name] = File(data)

    def after_crash(self, crash: Crash, random: Random | None = None) -> SimulatedOs:
        """The files as a start after a power cut finds them; nothing open, nothing pending."""
        random = random or Random(0)
        after = SimulatedOs()
        after.free_bytes = self.free_bytes
        after.root = _directory_after(self.root, crash, random, {})
        return after


def _directory_after(directory: Directory, crash: Crash, random: Random, seen: dict[int, File]) -> Directory:
    if crash in (Crash.FORGET, Crash.CONTENTS):
        entries = directory.durable
    elif crash in (Crash.KEEP, Crash.NAMES, Crash.ZEROS):
        entries = directory.entries
    else:
        entries = dict(directory.durable)
        if crash is Crash.TORN:
            kept = directory.pending[: random.randint(0, len(directory.pending))]
        else:
            kept = [each for each in directory.pending if random.random() < 0.5]
        for changes in kept:
            _apply(entries, changes)
    after = Directory()
    for name, node in entries.items():
        if isinstance(node, Directory):
            after.entries[name] = _directory_after(node, crash, random, seen)
        else:
            after.entries[name] = seen.setdefault(id(node), File(_file_after(node, crash, random)))
    after.durable = dict(after.entries)
    return after


def _file_after(file: File, crash: Crash, random: Random) -> bytes:
    if crash in (Crash.FORGET, Crash.NAMES) or not file.pending:
        return file.durable
    if crash in (Crash.KEEP, Crash.CONTENTS):
        return bytes(file.data)
    if crash is Crash.ZEROS:
        kept = file.durable[: min([len(file.durable), *(size for size, data in file.pending if data is None)])]
        return kept + bytes(max(0, len(file.data) - len(kept)))
    data = bytearray(file.durable)
    share = random.choice([0.0, 0.5, 0.9, 1.0])
    for position, written in file.pending:
        if written is None:
            if random.random() < share:
                del data[position:]
            continue
        at = position
        while at < position + len(written):
            end = min(position + len(written), at - at % SECTOR_BYTES + SECTOR_BYTES)
            if random.random() < share:
                data += bytes(max(0, end - len(data)))
                data[at:end] = written[at - position : end - position]
            at = end
    return bytes(data)
