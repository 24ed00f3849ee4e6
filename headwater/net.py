"""The network seam: connect and listen with an asyncio protocol, and who holds a port.

`RealNet` is the running loop's sockets. Tests hand in a network of their own that loses, delays and repeats.
An address is the string `host:port`; an IPv6 host stands in brackets, as in a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from typing import Protocol

from headwater.errors import UserError

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Listener(Protocol):
    """An open listening socket."""

    @property
    def address(self) -> tuple[str, int]: ...
    def close(self) -> None: ...


class Net(Protocol):
    """Connect and listen."""

    async def connect(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.BaseProtocol: ...
    async def listen(self, factory: ProtocolFactory, host: str, port: int) -> Listener: ...


class _Selector(selectors.DefaultSelector):
    """Remembers how many files had something to tell when it was last asked."""

    found = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        self.found = len(ready)
        return ready


class NodeLoop(asyncio.SelectorEventLoop):
    """An event loop of which a connection can ask whether it is the only one that this turn has brought something."""

    def __init__(self) -> None:
        self._asked = _Selector()
        super().__init__(self._asked)

    def one_alone(self) -> bool:
        """Whether exactly one socket had anything to read or room to write when this turn began."""
        return self._asked.found == 1


class _SocketListener:
    def __init__(self, server: asyncio.Server, address: tuple[str, int]) -> None:
        self._server = server
        self.address = address

    def close(self) -> None:
        self._server.close()


class RealNet:
    """Sockets of the running event loop."""

    async def connect(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.BaseProtocol:
        _, protocol = await asyncio.get_running_loop().create_connection(factory, host, port)
        return protocol

    async def listen(self, factory: ProtocolFactory, host: str, port: int) -> Listener:
        """Raises `OSError` (EADDRINUSE and the like) as the operating system says it."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, host, port, backlog=1024, start_serving=False)
        try:
            await server.start_serving()  # apart, so that a cancellation in its last step leaves no socket open
        except BaseException:
            server.close()
            raise
        name = server.sockets[0].getsockname()
        return _SocketListener(server, (name[0], name[1]))


def parse_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """`host:port`, `[v6]:port`, `:port` (all interfaces); the port may be left out when there is a default."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if not port and default_port is not None:
        return host or "0.0.0.0", default_port
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"“{text}” is no address", hint="Write host:port, for example 127.0.0.1:9092.")
    return host or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1 and localhost."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody holds just now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def port_holder(port: int) -> str | None:
    """The process that listens on a TCP port, as `name (pid N)`; None when it cannot be told (Linux, /proc)."""
    inodes = _listening_inodes(port)
    for pid in [name for name in os.listdir("/proc") if name.isdigit()] if inodes else []:
        try:
            if inodes & _open_files(pid):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    return f"{comm.read().strip()} (pid {pid})"
        except OSError:
            continue  # another user's process, or one that has just ended
    return None


def _open_files(pid: str) -> set[str]:
    links = set()
    for handle in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile; of ourselves, the handle that lists
            links.add(os.readlink(f"/proc/{pid}/fd/{handle}"))
    return links


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        # columns: 1 local address:port (hex), 3 state (0A = LISTEN), 9 inode
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    return inodes
