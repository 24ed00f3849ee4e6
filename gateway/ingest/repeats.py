"""Recognising what was stored already (design §7). Sans-IO; times are monotonic milliseconds.

`DupMemory` is one MQTT client's: which message each packet identifier last stood for, and when its PUBACK was written.
`NaturalMemory` is one node's: the latest natural keys of each device.
"""

from __future__ import annotations

import re
import zlib
from array import array
from hashlib import blake2b

USES_MAX = 1_024
NATURAL_HORIZON = 509  # a prime, so that times a fixed interval apart use every slot
NATURAL_DEVICES_MAX = 4_096

_UNWRITTEN = -1.0
_HW_M = re.compile(rb"([0-9]{1,5}):([0-9a-f]{8}):(.*)", re.DOTALL)


class DupMemory:
    """What one client's packet identifiers last stood for.

    A PUBLISH with DUP=1 is a repeat when its identifier's latest use had the same topic and payload (CRC-32 of
    both) and the client may not have had the PUBACK: it was not written, or less than `horizon_ms` before
    the connection ended. Anything else is a new message that happens to look like an old one.
    """

    __slots__ = ("_ended_ms", "_horizon_ms", "_resumed", "_uses")

    def __init__(self, horizon_ms: int) -> None:
        self._horizon_ms = horizon_ms
        self._uses: dict[int, tuple[int, float]] = {}  # packet id → (CRC, when its PUBACK was written), latest last
        self._ended_ms = 0.0
        self._resumed = False

    def __len__(self) -> int:
        return len(self._uses)

    def connection_began(self, *, resumed: bool) -> None:
        """A session that is not resumed is a new one: nothing of the old is a repeat [MQTT-3.1.2-6]."""
        self._resumed = resumed
        if not resumed:
            self._uses.clear()

    def connection_ended(self, now_ms: float) -> None:
        self._ended_ms = now_ms

    def is_repeat(self, packet_id: int, crc: int) -> bool:
        """For a PUBLISH that says DUP=1. An unwritten PUBACK makes it one on the same connection too."""
        found = self._uses.get(packet_id)
        if found is None or found[0] != crc:
            return False
        written_ms = found[1]
        if written_ms == _UNWRITTEN:
            return True
        return self._resumed and 0 <= self._ended_ms - written_ms < self._horizon_ms

    def use(self, packet_id: int, crc: int) -> None:
        """The message is being stored under this identifier."""
        uses = self._uses
        if packet_id in uses:
            del uses[packet_id]  # the latest use stands last
        uses[packet_id] = (crc, _UNWRITTEN)
        if len(uses) > USES_MAX:
            del uses[next(iter(uses))]

    def written(self, packet_ids: list[int], now_ms: float) -> None:
        """Their PUBACKs were handed to the network. Uses too old to matter for any later end are let go."""
        uses = self._uses
        for packet_id in packet_ids:
            if (found := uses.get(packet_id)) is not None:
                uses[packet_id] = (found[0], now_ms)
        oldest_ms = now_ms - self._horizon_ms
        while uses:
            packet_id = next(iter(uses))
            written_ms = uses[packet_id][1]
            if written_ms == _UNWRITTEN or written_ms > oldest_ms:
                break
            del uses[packet_id]

    def forget(self, packet_ids: list[int]) -> None:
        """They were not stored after all: the disk failed."""
        for packet_id in packet_ids:
            self._uses.pop(packet_id, None)


def message_crc(topic: bytes, payload: bytes) -> int:
    """CRC-32 of topic, NUL, payload: what `hw-m` carries."""
    return zlib.crc32(payload, zlib.crc32(topic + b"\0"))


def hw_m(packet_id: int, crc: int, client_id: bytes) -> bytes:
    """The value of header `hw-m`: `<packet id>:<CRC-32, 8 hex digits>:<client id>`."""
    return b"%d:%08x:%b" % (packet_id, crc, client_id)


def read_hw_m(value: bytes) -> tuple[int, int, str] | None:
    """(packet id, CRC, client id) of an `hw-m` value; None when it is none."""
    match = _HW_M.fullmatch(value)
    try:
        return (int(match[1]), int(match[2], 16), match[3].decode()) if match is not None else None
    except UnicodeDecodeError:
        return None


class NaturalMemory:
    """The latest natural keys of each device: a ring of `NATURAL_HORIZON` slots, by key modulo its length.

    A device that restarts its sequence at 0 must not lose readings, so a repeat is the same number *and* the same
    companion: the time that the device claims, or without one the CRC of the stored value.
    """

    def __init__(self, *, horizon: int = NATURAL_HORIZON, devices_max: int = NATURAL_DEVICES_MAX) -> None:
        self._horizon = horizon
        self._devices_max = devices_max
        self._empty = bytes(8 * horizon)
        self._rings: dict[bytes, tuple[array[int], array[int]]] = {}

    def is_repeat(self, device: bytes, key: int | str, companion: int) -> bool:
        """True when seen within the horizon; otherwise it is remembered from now on."""
        number = key if type(key) is int and -(1 << 62) < key < 1 << 62 else _number(key)
        ring = self._rings.get(device)
        if ring is None:
            ring = self._make(device)
        numbers, companions = ring
        slot = number % self._horizon
        if numbers[slot] == number and companions[slot] == companion:
            return True
        numbers[slot] = number
        companions[slot] = companion
        return False

    def _make(self, device: bytes) -> tuple[array[int], array[int]]:
        if len(self._rings) >= self._devices_max:
            del self._rings[next(iter(self._rings))]
        numbers, companions = array("q", self._empty), array("q", self._empty)
        numbers[0] = -1  # an untouched slot 0 must not look like key 0 with companion 0
        ring = self._rings[device] = (numbers, companions)
        return ring

    def forget_all(self) -> None:
        """What was remembered may not be stored: the disk failed."""
        self._rings.clear()


def companion(claim_ms: int | None, value: bytes) -> int:
    """What must agree besides the key: the claimed time, or else the stored value (negative, so they never meet)."""
    if claim_ms is None:
        return -1 - zlib.crc32(value)
    return claim_ms if 0 <= claim_ms < 1 << 62 else _number(claim_ms)


def _number(key: int | str) -> int:
    digest = blake2b(str(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2
