"""What the broker knows of a connection."""

from __future__ import annotations

from collections.abc import Callable

from gateway.wire.acl import Rights
from gateway.wire.compiler import Body

Reply = Callable[[Body | None], None]


class Peer:
    """One client connection; `name` is its address, for log lines.

    `advertised` is what clients on its listener are told, None for the broker's own. `rights` are None for the node's
    own clients, on loopback, which may do anything; everybody else has a `principal` and what is given to it.
    """

    __slots__ = ("_on_close", "advertised", "closed", "name", "principal", "rights", "transactional_ids")

    def __init__(self, name: str, advertised: tuple[str, int] | None = None) -> None:
        self.name = name
        self.advertised = advertised
        self.closed = False
        self.principal = ""
        self.rights: Rights | None = None
        self.transactional_ids: set[str] = set()
        self._on_close: dict[int, Callable[[], None]] = {}

    def on_close(self, owner: object, action: Callable[[], None]) -> None:
        """Run `action` when the connection ends, unless `forget` comes first."""
        self._on_close[id(owner)] = action

    def forget(self, owner: object) -> None:
        self._on_close.pop(id(owner), None)

    def close(self) -> None:
        self.closed = True
        actions, self._on_close = list(self._on_close.values()), {}
        for action in actions:
            action()
