"""Ports that stay ours while nobody listens on them."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

_FIRST = 10_000
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A loopback port that no other process is given meanwhile; whoever listens with SO_REUSEADDR may have it.

    Linux lets a second socket bind the address while the first does not listen, and answers a connection with a
    refusal until one does: what a central that is down looks like.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def neighbouring_ports(count: int) -> int:
    """The first of so many loopback ports in a row that nobody holds, where the kernel gives none to who asks for any.

    A broker takes seconds to get to its second port. One that the kernel may give is a stranger's by then.
    """
    end = max(int(_GIVEN.read_text().split()[0]), 2 * _FIRST)
    while True:
        first = _FIRST + secrets.randbelow(end - count - _FIRST)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
