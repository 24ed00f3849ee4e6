"""What the node remembers of its sessions at brokers: that there was one, and which filters it has.

A broker keeps a session's subscriptions, so a filter that is taken out of the configuration must be given back by name;
and a session that is gone when it should be there means that messages may be missing. The file is small, and written
when the configuration changes. It checks itself (`headwater.sealed`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from headwater.disk import Disk
from headwater.sealed import is_there, read_sealed, seal

_log = logging.getLogger("headwater.ingest")


class Remembered(msgspec.Struct, frozen=True):
    """One session. Another address or client id is another session."""

    address: str
    client_id: str
    filters: tuple[str, ...] = ()


class SessionMemo:
    """All of a node's sessions, by broker name, in `<data_dir>/node/brokers.json`."""

    def __init__(self, disk: Disk, data_dir: str) -> None:
        """A file that cannot be read counts as none: a lost session then goes unnamed, and nothing else is harmed."""
        self._disk = disk
        self._path = f"{data_dir}/node/brokers.json"
        known = read_sealed(disk, self._path, lambda fields: msgspec.convert(fields, dict[str, Remembered]))
        if known is None and is_there(disk, self._path):
            _log.warning("%s is damaged: what brokers keep of earlier filters is not known", self._path)
        self._known = known or {}

    def recall(self, name: str, address: str, client_id: str) -> Remembered | None:
        """The session of that name, if it is the same one."""
        known = self._known.get(name)
        return known if known is not None and (known.address, known.client_id) == (address, client_id) else None

    def keep(self, name: str, address: str, client_id: str, filters: Sequence[str]) -> bool:
        """Remember a session; True when the file must be written: call `write`, in a thread."""
        now = Remembered(address, client_id, tuple(filters))
        if self._known.get(name) == now:
            return False
        self._known[name] = now
        return True

    def write(self) -> None:
        """Make it durable. Raises `OSError`."""
        self._disk.make_directory(self._path.rpartition("/")[0])
        self._disk.replace_file(self._path, seal(msgspec.to_builtins(self._known)))
