"""Recognising what was stored already (design §7). Sans-IO; times are monotonic milliseconds.

`DupMemory` is one MQTT client's: which message each packet identifier last stood for, and when its PUBACK was written.
`NaturalMemory` is one node's: the latest natural keys of each device.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from gateway.log.varint import encode_varint

USES_MAX = 1_024
NATURAL_HORIZON = 509  # a prime, so that times a fixed interval apart use every slot
NATURAL_DEVICES_MAX = 4_096

_UNWRITTEN = -1.0
_SURPLUS = 64  # uses beyond USES_MAX that may gather before they are dropped together
_HW_M = re.compile(rb"([0-9]{1,5}):([0-9a-f]{8}):(.*)", re.DOTALL)


class DupMemory:
    """What one client's packet identifiers last stood for.

    A PUBLISH with DUP=1 is a repeat when its identifier's latest use had the same topic and payload (CRC-32 of
    both) and the client may not have had the PUBACK: it was not written, or less than `horizon_ms` before
    the connection ended. Anything else is a new message that happens to look like an old one.

    Kept as columns, a use each, the latest last, for every message is noted and hardly one is ever asked for.
    """

    __slots__ = (
        "_crcs",
        "_ended_ms",
        "_horizon_ms",
        "_ids",
        "_latest",
        "_resumed",
        "_unwritten",
        "_uses_max",
        "_written",
    )

    def __init__(self, horizon_ms: int, *, uses_max: int = USES_MAX) -> None:
        self._horizon_ms = horizon_ms
        self._uses_max = uses_max
        self._ended_ms = 0.0
        self._resumed = False
        self._clear()

    def _clear(self) -> None:
        self._ids = array("H")
        self._crcs = array("I")
        self._written = array("d")  # when its PUBACK was written
        self._unwritten = 0  # below this index all are written
        self._latest: dict[int, int] | None = None  # packet id → index of its latest use, made when asked for

    def __len__(self) -> int:
        return len(self._ids)

    def connection_began(self, *, resumed: bool) -> None:
        """A session that is not resumed is a new one: nothing of the old is a repeat [MQTT-3.1.2-6]."""
        self._resumed = resumed
        if not resumed:
            self._clear()

    def connection_ended(self, now_ms: float) -> None:
        self._ended_ms = now_ms

    def _find(self, packet_id: int) -> int | None:
        if self._latest is None:
            self._latest = dict(zip(self._ids, range(len(self._ids)), strict=True))
        return self._latest.get(packet_id)

    def is_repeat(self, packet_id: int, crc: int) -> bool:
        """For a PUBLISH that says DUP=1. An unwritten PUBACK makes it one on the same connection too."""
        index = self._find(packet_id)
        if index is None or self._crcs[index] != crc:
            return False
        written_ms = self._written[index]
        if written_ms == _UNWRITTEN:
            return True
        return self._resumed and 0 <= self._ended_ms - written_ms < self._horizon_ms

    def is_unwritten(self, packet_id: int, crc: int) -> bool:
        """Whether the identifier's latest use is this message, and its acknowledgement was never written."""
        index = self._find(packet_id)
        return index is not None and self._crcs[index] == crc and self._written[index] == _UNWRITTEN

    def use(self, packet_id: int, crc: int) -> None:
        """The message is being stored under this identifier."""
        if self._latest is not None:
            self._latest[packet_id] = len(self._ids)
        self._ids.append(packet_id)
        self._crcs.append(crc)
        self._written.append(_UNWRITTEN)
        if len(self._ids) > self._uses_max:
            self._drop(len(self._ids) - self._uses_max)

    def use_all(self, packet_ids: Sequence[int], crcs: Sequence[int]) -> None:
        """`use` of each, in order."""
        self._latest = None
        self._ids.extend(packet_ids)
        self._crcs.extend(crcs)
        self._written.extend([_UNWRITTEN] * len(packet_ids))
        if len(self._ids) > self._uses_max + _SURPLUS:
            self._drop(len(self._ids) - self._uses_max)

    def written(self, packet_ids: list[int], now_ms: float) -> None:
        """Their PUBACKs were handed to the network. Uses too old to matter for any later end are let go."""
        start, stop = self._unwritten, self._unwritten + len(packet_ids)
        if self._ids[start:stop] == array("H", packet_ids):  # in the order in which they came, as a rule
            self._written[start:stop] = array("d", (now_ms,)) * len(packet_ids)
            self._unwritten = stop
        else:
            self._note_written(packet_ids, now_ms)
        gone, oldest_ms = 0, now_ms - self._horizon_ms
        while gone < self._unwritten and self._written[gone] <= oldest_ms:
            gone += 1
        if gone:
            self._drop(gone)

    def _note_written(self, packet_ids: list[int], now_ms: float) -> None:
        for packet_id in packet_ids:
            if (index := self._find(packet_id)) is not None:
                self._written[index] = now_ms
        while (at := self._unwritten) < len(self._ids):
            if self._written[at] == _UNWRITTEN:
                if self._find(self._ids[at]) == at:
                    break
                self._written[at] = now_ms  # a later use has taken its place
            self._unwritten += 1

    def _drop(self, count: int) -> None:
        """Forget the oldest uses."""
        del self._ids[:count], self._crcs[:count], self._written[:count]
        self._unwritten = max(0, self._unwritten - count)
        self._latest = None

    def forget(self, packet_ids: list[int]) -> None:
        """They were not stored after all: the disk failed."""
        lost = set(packet_ids)
        kept = [use for use in zip(self._ids, self._crcs, self._written, strict=True) if use[0] not in lost]
        self._clear()
        for packet_id, crc, written_ms in kept:
            self.use(packet_id, crc)
            self._written[-1] = written_ms


def message_crc(topic: bytes, payload: bytes) -> int:
    """CRC-32 of topic, NUL, payload: what `hw-m` carries."""
    return zlib.crc32(payload, zlib.crc32(topic + b"\0"))


def hw_m(packet_id: int, crc: int, client_id: bytes) -> bytes:
    """The value of header `hw-m`: `<packet id>:<CRC-32, 8 hex digits>:<client id>`."""
    return b"%d:%08x:%b" % (packet_id, crc, client_id)


def hw_m_sections(packet_ids: Sequence[int], crcs: Sequence[int], client_id: bytes) -> list[bytes]:
    """A header section with `hw-m` alone for each message of one client."""
    templates = _templates(client_id)
    shortest, longest = len(str(min(packet_ids))), len(str(max(packet_ids)))
    if shortest == longest:
        return list(map(templates[shortest].__mod__, zip(packet_ids, crcs, strict=True)))
    return [templates[len(str(use[0]))] % use for use in zip(packet_ids, crcs, strict=True)]


@lru_cache(maxsize=1_024)
def _templates(client_id: bytes) -> list[bytes]:
    """The section for a packet identifier of as many digits as the index; its length depends on nothing else."""
    heads = [b"\x02\x08hw-m" + encode_varint(digits + len(b":01234567:") + len(client_id)) for digits in range(6)]
    tail = client_id.replace(b"%", b"%%")
    return [head.replace(b"%", b"%%") + b"%d:%08x:" + tail for head in heads]


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

    def repeats(self, devices: Sequence[bytes], keys: Sequence[int], companions: Sequence[int]) -> list[int]:
        """Which of many readings, in order, `is_repeat`; for keys and companions within 62 bits."""
        found: list[int] = []
        last: bytes | None = None
        horizon = self._horizon
        for index, (device, key, companion) in enumerate(zip(devices, keys, companions, strict=True)):
            if device is not last:
                numbers, companions_seen = self._rings.get(device) or self._make(device)
                last = device
            slot = key % horizon
            if numbers[slot] == key and companions_seen[slot] == companion:
                found.append(index)
            else:
                numbers[slot] = key
                companions_seen[slot] = companion
        return found

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
