"""The devices of a node: topic `devices` describes each, and an unknown one is taken, kept aside or refused.

What rules may compare and group by also goes with the readings: header `hw-device` on a device's first reading of a
run, and again now and then. So who reads a partition has it in the order of that partition.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from devices.description import DeviceSettings, DevicesSettings, check_devices, describe, facts, section_of
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from gateway.ingest.sections import joined
from gateway.ingest.tail import tail_columns_from
from gateway.log.partition import PartitionLog
from gateway.log.records import NO_HEADERS, Record, decode_headers, encode_batch, encode_headers
from gateway.log.rows import Rows
from gateway.log.store import LogStore
from headwater.errors import UNREADABLE, HeadwaterError, PeerError

_log = logging.getLogger("headwater.ingest")

DEVICES_TOPIC = "devices"
FACTS_HEADER = "hw-device"
STATE_EVERY_MS = 600_000
"""It is said this often, so that any stretch of the log soon has it."""
_UNKNOWN_MAX = 1_000
_NAMED = 3

Met = tuple[str, Profile | None]


class Devices:
    """What is known of each device. Asked once for each device that a run of the node meets, not per reading."""

    def __init__(
        self, store: LogStore, node: str, settings: DevicesSettings, sections: Sequence[DeviceSettings]
    ) -> None:
        """Reads the topic, which is compacted. Raises `UserError` for a section that is no good."""
        check_devices(sections)
        self._node = node
        self._settings = settings
        self._sections = sections
        self._log = _devices_log(store)
        self._values: dict[bytes, bytes] = {}
        self._facts: dict[bytes, bytes] = {}  # header section of each device that this run has met
        self._unstated: dict[bytes, bytes] = {}  # those that wait for a reading to go with
        self._allowed: dict[str, bool] = {}
        self._unknown: dict[str, None] = {}
        self._state_at_ms: float | None = None
        self._left_out = 0
        self.refused = 0
        self._read()

    @property
    def devices_max(self) -> int:
        return self._settings.devices_max

    @property
    def is_strict(self) -> bool:
        """Whether some device may be turned away, so that each must be asked for."""
        return self._settings.unknown != "accept"

    def screen(self, results: list[list[Reading] | Undecodable]) -> None:
        """Turn away what unknown devices say, in place; for strict nodes."""
        for index, result in enumerate(results):
            if isinstance(result, Undecodable) or all(self._allows(reading.device) for reading in result):
                continue
            if self._settings.unknown == "deadletter":
                name = next(reading.device for reading in result if not self._allows(reading.device))
                results[index] = Undecodable(f"unknown device “{name[:80]}”: no [[device]] names it", decoder="devices")
            else:
                kept = [reading for reading in result if self._allows(reading.device)]
                self.refused += len(result) - len(kept)
                results[index] = kept

    def _allows(self, device: str) -> bool:
        allowed = self._allowed.get(device)
        if allowed is None:
            if len(self._allowed) >= self._settings.devices_max:
                self._allowed.clear()
            allowed = self._allowed[device] = section_of(device, self._sections) is not None
            if not allowed and len(self._unknown) < _UNKNOWN_MAX and device not in self._unknown:
                self._unknown[device] = None
                if len(self._unknown) <= _NAMED:
                    _log.warning("unknown device “%.80s”: %s", device, self._fate())
        return allowed

    def met(self, devices: Sequence[Met], wall_ms: int) -> None:
        """These spoke, perhaps for the first time: what is new of them goes to the topic, synced with the next group.

        A disk that fails here is ingest's to tell; what was not written is written when the node meets them again.
        """
        records: list[Record] = []
        for device, profile in devices:
            key = f"{self._node}/{device}".encode()
            if key not in self._facts:
                value = describe(device, profile, section_of(device, self._sections))
                known = self._values.get(key)
                if known is None and len(self._values) >= self._settings.devices_max:
                    self._left_out += 1
                    continue
                self._facts[key] = _facts_section(value, known)
                if known != value:
                    self._values[key] = value
                    records.append((wall_ms, key, value, NO_HEADERS))
            if self._facts[key] != NO_HEADERS:
                self._unstated[key] = self._facts[key]
        if not records:
            return
        try:
            self._log.append(encode_batch(records), now_ms=wall_ms, verify=False)
        except (HeadwaterError, OSError) as error:
            _log.error("%d devices could not be described: %s", len(records), error)
            for device, _ in devices:
                self._values.pop(key := f"{self._node}/{device}".encode(), None)
                self._facts.pop(key, None)

    def is_due(self, now_ms: float) -> bool:
        """Whether all devices are to be met anew, so that their readings say again what they are."""
        due = self._state_at_ms is not None and now_ms >= self._state_at_ms
        if due or self._state_at_ms is None:
            self._state_at_ms = now_ms + STATE_EVERY_MS
        return due

    def state(self, rows: Rows) -> None:
        """Put what waits to be said of devices on their first readings in these rows."""
        if not self._unstated or not self._unstated.keys() & set(rows.keys):
            return
        for row, key in enumerate(rows.keys):
            if (section := self._unstated.pop(key, None)) is not None:
                rows.headers[row] = joined(rows.headers[row], section)
                if not self._unstated:
                    return

    def _read(self) -> None:
        own = f"{self._node}/".encode()
        try:
            for columns in tail_columns_from(self._log, 0):
                for key, value, blob in zip(columns.keys, columns.values, columns.headers, strict=True):
                    if key is None or not key.startswith(own) or (len(blob) > 1 and _is_copy(blob)):
                        continue
                    if value is None:
                        self._values.pop(bytes(key), None)
                    else:
                        self._values[bytes(key)] = bytes(value)
        except PeerError as error:
            _log.warning("topic devices could not be read whole: %s", error)

    def status(self) -> dict[str, Any]:
        """How many are known; `note` is for people."""
        return {
            "described": len(self._values),
            "devices_max": self._settings.devices_max,
            "unknown": len(self._unknown),
            "refused": self.refused,
            "note": self._note(),
        }

    def _note(self) -> str | None:
        if self._unknown:
            names = ", ".join(list(self._unknown)[:_NAMED])
            more = f" and {len(self._unknown) - _NAMED} more" if len(self._unknown) > _NAMED else ""
            return f"unknown devices {names}{more}: {self._fate()}"
        if self._left_out:
            return f"more than {self._settings.devices_max} devices: the last ones are stored and not described"
        return None

    def _fate(self) -> str:
        kept = "its messages are dead letters" if self._settings.unknown == "deadletter" else "its readings are refused"
        return f"{kept} until a [[device]] names it"


def _devices_log(store: LogStore) -> PartitionLog:
    """The node's own partition of the topic, which is made as wide as readings: a central holds many nodes' copies."""
    log = store.partition(DEVICES_TOPIC, 0)
    if log is not None:
        return log
    readings = store.topics.get("readings")
    partitions = len(readings.partitions) if readings is not None else 1
    topic = store.create_topic(DEVICES_TOPIC, partitions=partitions, config={"cleanup.policy": "compact"})
    return topic.partitions[0]


def _facts_section(value: bytes, known: bytes | None) -> bytes:
    """The header that says what a device is; that it is nothing any more is said too."""
    told = facts(value)
    was = b"{}" if known is None else _facts_of(known)
    return NO_HEADERS if told == was == b"{}" else encode_headers([(FACTS_HEADER, told)])


def _facts_of(stored: bytes) -> bytes:
    try:
        return facts(stored)
    except UNREADABLE:
        return b""  # somebody else's record: not what is said now


def _is_copy(blob: bytes) -> bool:
    try:
        return any(name == "hw" for name, _ in decode_headers(bytes(blob)))
    except PeerError:
        return False
