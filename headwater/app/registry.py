"""Which nodes run on this machine as this user, so that `headwater status` needs no arguments.

One small file per process in `$XDG_RUNTIME_DIR/headwater`, else `/tmp/headwater-<uid>`. The folder is used only when it
belongs to this user and nobody else can write to it: anyone may make names in /tmp.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

import msgspec

from headwater.errors import UNREADABLE


class Running(msgspec.Struct, frozen=True):
    """A node that was started: `process_start` (clock ticks since boot) tells a reused pid from the node."""

    pid: int
    process_start: str
    node: str
    data_dir: str
    config: str


def runtime_dir() -> str:
    """The folder of the running nodes, whether it is there or not."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return os.path.join(base, "headwater")
    return f"/tmp/headwater-{os.getuid()}"  # noqa: S108 - checked for its owner and mode before use


@contextlib.contextmanager
def registered(node: str, data_dir: str, config: str) -> Iterator[None]:
    """Name this process as a running node for as long as the block lasts; without a safe folder, not at all."""
    folder = runtime_dir()
    with contextlib.suppress(OSError):
        os.mkdir(folder, 0o700)
    path = os.path.join(folder, f"{os.getpid()}.json")
    entry = Running(os.getpid(), _process_start(os.getpid()), node, data_dir, config)
    written = False
    if _safe(folder):
        with contextlib.suppress(OSError):  # a full /tmp must not keep a gateway from starting
            _write(path, msgspec.json.encode(entry))
            written = True
    try:
        yield
    finally:
        if written:
            with contextlib.suppress(OSError):
                os.unlink(path)


def running_nodes() -> list[Running]:
    """The nodes of this user that are alive; entries of dead processes are removed."""
    folder = runtime_dir()
    found = []
    for name in sorted(os.listdir(folder)) if _safe(folder) else ():
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                entry = msgspec.json.decode(file.read(65536), type=Running)
        except (*UNREADABLE, OSError):
            continue
        if entry.process_start and _process_start(entry.pid) == entry.process_start:
            found.append(entry)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)
    return found


def _write(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _safe(folder: str) -> bool:
    try:
        info = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022


def _process_start(pid: int) -> str:
    """Field 22 of /proc/PID/stat; "" when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
