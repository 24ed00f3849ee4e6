"""The disk seam: the few file calls that the log and the journals need.

`RealDisk` is the operating system. `ForgetfulDisk` is memory that behaves like a disk at a power cut:
bytes never synced vanish, and so do names whose directory was never synced. Paths are absolute strings.
A failed call raises `OSError`, as the operating system would.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from dataclasses import dataclass, field
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Disk(Protocol):
    """File calls; a handle is a small integer."""

    def open(self, path: str, *, create: bool = False) -> int: ...
    def append(self, handle: int, data: Buffer) -> None:
        """Write all of `data` at the end of the file."""
        ...

    def read_at(self, handle: int, size: int, position: int) -> bytes:
        """Up to `size` bytes from `position`; shorter only at the end of the file."""
        ...

    def size(self, handle: int) -> int: ...
    def truncate(self, handle: int, size: int) -> None: ...
    def sync(self, handle: int) -> None:
        """fdatasync: the file's bytes and its length survive a power cut. Called from the flusher thread."""
        ...

    def drop_cache(self, handle: int) -> None:
        """Have what is read next come from the disk, but for what is still to be written to it.

        After a failed sync the system's memory may hold what the disk never got, and no later sync writes it.
        """
        ...

    def close(self, handle: int) -> None: ...
    def exists(self, path: str) -> bool: ...
    def names(self, directory: str) -> list[str]:
        """The entries of a directory, sorted; empty when it is not there."""
        ...

    def make_directory(self, path: str) -> None:
        """Like `mkdir -p`, each new entry made durable."""
        ...

    def rename(self, old: str, new: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the directory's entries durable: after create, rename and remove."""
        ...

    def read_file(self, path: str) -> bytes: ...
    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        """Write a whole small file so that a power cut leaves the old one or the new one: tmp, sync, rename, sync."""
        ...

    def free_bytes(self, path: str) -> int: ...
    def total_bytes(self, path: str) -> int: ...


def read_or_none(disk: Disk, path: str) -> bytes | None:
    """A small file that can be done without: None when it is not there, or lies on a bad sector."""
    try:
        return disk.read_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def read_checked(disk: Disk, path: str) -> bytes:
    """A small file whose damage its reader sees: `ValueError` when it lies on a bad sector, for that is damage too."""
    try:
        return disk.read_file(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise ValueError(f"{path} lies on a bad sector") from error


class RealDisk:
    """The operating system's files."""

    def open(self, path: str, *, create: bool = False) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o640)

    def append(self, handle: int, data: Buffer) -> None:
        written = os.write(handle, data)
        while written < len(data):
            written += os.write(handle, memoryview(data)[written:])

    def read_at(self, handle: int, size: int, position: int) -> bytes:
        data = os.pread(handle, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]
        have = len(data)
        while have < size and (data := os.pread(handle, size - have, position + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def drop_cache(self, handle: int) -> None:
        with contextlib.suppress(OSError):  # a file system without a cache of the system's
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self, handle: int) -> None:
        os.close(handle)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def make_directory(self, path: str) -> None:
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for made in reversed(missing):
            os.mkdir(made, 0o750)
            try:
                self.sync_directory(os.path.dirname(made))
            except OSError:
                with contextlib.suppress(OSError):
                    os.rmdir(made)  # else the next try would find it there, and never make its entry durable
                raise

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read_file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        tmp = path + ".tmp"
        handle = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            self.append(handle, data)
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(tmp)  # on a full disk half a file takes the room that others wait for
            raise
        finally:
            os.close(handle)
        os.replace(tmp, path)
        self.sync_directory(os.path.dirname(path))

    def free_bytes(self, path: str) -> int:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize

    def total_bytes(self, path: str) -> int:
        stat = os.statvfs(path)
        return stat.f_blocks * stat.f_frsize


@dataclass(slots=True)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


class ForgetfulDisk:
    """A disk in memory whose `power_cut` keeps only what was synced.

    `keep_tail_bytes` at a cut models a torn write: that many unsynced bytes of each file survive.
    Put an `OSError` into `fail_next[operation]` to make the next call of that name fail, and the path of a small file
    into `bad_files` to have it lie on a bad sector.
    """

    def __init__(self, *, free_bytes: int = 1 << 40) -> None:
        self._live: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._handles: dict[int, _File] = {}
        self._directories: set[str] = {"/"}
        self._next_handle = 1_000_000
        self._free_bytes = free_bytes
        self.fail_next: dict[str, OSError] = {}
        self.bad_files: set[str] = set()
        self.syncs = 0

    def power_cut(self, *, keep_tail_bytes: int = 0) -> None:
        """Forget what was never synced; every open handle is gone."""
        for file in self._live.values():
            kept = len(file.synced) + keep_tail_bytes
            file.data = bytearray(file.data[:kept]) if len(file.data) >= len(file.synced) else bytearray(file.synced)
            file.synced = bytes(file.data)
        self._live = dict(self._durable)
        self._handles.clear()

    def _check(self, operation: str) -> None:
        if (error := self.fail_next.pop(operation, None)) is not None:
            raise error

    def _file(self, path: str) -> _File:
        try:
            return self._live[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", path) from None

    def open(self, path: str, *, create: bool = False) -> int:
        self._check("open")
        if create and path not in self._live:
            self._live[path] = _File()
        file = self._file(path)
        self._next_handle += 1
        self._handles[self._next_handle] = file
        return self._next_handle

    def append(self, handle: int, data: Buffer) -> None:
        self._check("append")
        self._handles[handle].data += memoryview(data)

    def read_at(self, handle: int, size: int, position: int) -> bytes:
        self._check("read_at")
        return bytes(self._handles[handle].data[position : position + size])

    def size(self, handle: int) -> int:
        return len(self._handles[handle].data)

    def truncate(self, handle: int, size: int) -> None:
        del self._handles[handle].data[size:]

    def sync(self, handle: int) -> None:
        self._check("sync")
        file = self._handles[handle]
        file.synced = bytes(file.data)
        self.syncs += 1

    def drop_cache(self, handle: int) -> None:
        """Its syncs do what they say, or change nothing: what is read is what a later one syncs."""

    def close(self, handle: int) -> None:
        del self._handles[handle]

    def exists(self, path: str) -> bool:
        return path in self._live or path in self._directories

    def names(self, directory: str) -> list[str]:
        everything = set(self._live) | self._directories
        return sorted(posixpath.basename(p) for p in everything if p != "/" and posixpath.dirname(p) == directory)

    def make_directory(self, path: str) -> None:
        while path not in self._directories:
            self._directories.add(path)
            path = posixpath.dirname(path)

    def rename(self, old: str, new: str) -> None:
        if old in self._directories:
            self._rename_directory(old, new)
        else:
            self._live[new] = self._file(old)
            del self._live[old]

    def _rename_directory(self, old: str, new: str) -> None:
        def moved(path: str) -> str:
            return new + path[len(old) :] if path == old or path.startswith(old + "/") else path

        self._directories = {moved(path) for path in self._directories}
        self._live = {moved(path): file for path, file in self._live.items()}
        self._durable = {moved(path): file for path, file in self._durable.items()}

    def remove(self, path: str) -> None:
        self._file(path)
        del self._live[path]

    def remove_directory(self, path: str) -> None:
        if self.names(path):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        self._directories.discard(path)

    def sync_directory(self, path: str) -> None:
        self._check("sync_directory")
        self._sync_directory(path)

    def _sync_directory(self, path: str) -> None:
        inside = path.rstrip("/") + "/"
        for name in [p for p in list(self._durable) if p.startswith(inside) and p not in self._live]:
            child = inside + name[len(inside) :].partition("/")[0]
            if child == name or child not in self._directories:  # a directory that is gone takes all in it along
                del self._durable[name]
        for name, file in list(self._live.items()):  # the loop makes files while the flusher syncs
            if posixpath.dirname(name) == path:
                self._durable[name] = file

    def read_file(self, path: str) -> bytes:
        if path in self.bad_files:
            raise OSError(errno.EIO, "Input/output error", path)
        return bytes(self._file(path).data)

    def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
        self._check("replace_file")
        self.bad_files.discard(path)  # written to other sectors
        file = _File(bytearray(data), bytes(data))
        self._live[path] = self._durable[path] = file
        self._sync_directory(posixpath.dirname(path))

    def free_bytes(self, path: str) -> int:
        return self._free_bytes

    def total_bytes(self, path: str) -> int:
        return 1 << 40
