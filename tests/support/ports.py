"""A port that stays ours while nobody listens on it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


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
