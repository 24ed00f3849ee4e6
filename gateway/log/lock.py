"""One process per data directory."""

from __future__ import annotations

import contextlib
import fcntl
import os

from headwater.errors import UserError


class DirectoryLock:
    """Keeps a second process out of a data directory; the file names the holder for people."""

    def __init__(self, path: str) -> None:
        """Raises `UserError` naming the holder."""
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._handle, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise UserError(
                f"{os.path.dirname(os.path.dirname(path))} is in use by process {holder}{_command(holder)}",
                hint="Stop that process first, or give this node a data_dir of its own.",
            ) from None
        holder = f"{os.getpid()}\n"
        with contextlib.suppress(OSError):  # on a full disk it goes unnamed; over what stands there it needs no room
            os.pwrite(self._handle, holder.encode(), 0)
            os.ftruncate(self._handle, len(holder))

    def release(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{int(pid)}/cmdline", "rb") as file:
            words = file.read(200).decode("utf-8", "replace").split("\0")
    except (OSError, ValueError):
        return ""
    return f" ({' '.join(words).strip()})"
