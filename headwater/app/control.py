"""The control socket: whoever may open `<data>/node/control.sock` reads the node's status, one JSON line.

The server writes the line and closes; it reads nothing, so a client cannot make it wait. A Unix socket's path has at
most 107 bytes and data directories may be deeper than that, so both ends go through the open directory
(`/proc/self/fd/N/control.sock`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headwater.errors import UNREADABLE, UserError

SOCKET_NAME = "control.sock"
ANSWER_BYTES_MAX = 4 << 20
STALLED_S = 5.0

Status = Callable[[], dict[str, Any]]


class ControlServer:
    """Serves the status document to anyone who may open the socket (mode 0660: the owner and the group)."""

    def __init__(self, server: asyncio.Server, path: str) -> None:
        self._server = server
        self._path = path

    @classmethod
    async def start(cls, data_dir: str, status: Status) -> ControlServer:
        """Needs the data directory's lock to be held: a socket file left by a dead node is removed."""
        listening = listen_unix(data_dir, SOCKET_NAME, mode=0o660)
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Answer(status), sock=listening)
        return cls(server, os.path.join(data_dir, "node", SOCKET_NAME))

    def close(self) -> None:
        """Stop answering and take the socket away, so that the node is seen to be down at once."""
        self._server.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class _Answer(asyncio.Protocol):
    def __init__(self, status: Status) -> None:
        self._status = status

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - a stream socket's transport always is
        transport.write(msgspec.json.encode(self._status()) + b"\n")
        transport.close()
        # close() waits for the client to read; a client that does not is not waited for
        asyncio.get_running_loop().call_later(STALLED_S, transport.abort)


def read_status(data_dir: str, *, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """The status of the node that runs on this data directory; None when none answers. Blocks for `timeout_s`.

    Raises UserError when this user may not ask.
    """
    try:
        with short_path(data_dir, SOCKET_NAME) as path, socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            client.connect(path)
            answer = bytearray()
            while (data := client.recv(65536)) and len(answer) < ANSWER_BYTES_MAX:
                answer += data
    except PermissionError:
        raise UserError(
            f"this user may not ask the node in {data_dir}", hint="Run the command as the user or group of the node."
        ) from None
    except OSError:
        return None
    return _parse(bytes(answer))


async def fetch_status(data_dir: str, *, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """`read_status` for an event loop."""
    try:
        async with asyncio.timeout(timeout_s):
            with short_path(data_dir, SOCKET_NAME) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
            try:
                return _parse(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None


def _parse(answer: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(answer, type=dict[str, Any])
    except UNREADABLE:
        return None  # the node died while it wrote


def listen_unix(data_dir: str, name: str, *, mode: int) -> socket.socket:
    """A listening socket `<data>/node/<name>`; a file left by a dead node is removed (the data directory is locked)."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(data_dir, name) as path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o777 & ~mode)  # never open to more people than `mode` says, not even for a moment
        try:
            listening.bind(path)
        finally:
            os.umask(mask)
        os.chmod(path, mode)
    return listening


@contextlib.contextmanager
def short_path(data_dir: str, name: str) -> Iterator[str]:
    """A path of `<data>/node/<name>` that fits a socket address, however deep the directory is."""
    handle = os.open(os.path.join(data_dir, "node"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)
