"""Recognising what was stored already (design §7). Sans-IO; times are monotonic milliseconds.

`DupMemory` is one MQTT client's: which message each packet identifier last stood for, and when its PUBACK was written.
`NaturalMemory` is one node's: the latest natural keys of each device.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from gateway.log.varint import encode_varint

USES_MAX = 1_024
NATURAL_HORIZON = 509  # a prime, so that times a fixed interval apart use every slot
NATURAL_DEVICES_MAX = 4_096

_UNWRITTEN = -1.0
_HW_M = re.compile(rb"([0-9]{1,5}):([0-9a-f]{8}):(.*)", re.DOTALL)


class _Uses:
    """Messages of one client that were stored together: packet identifiers, CRCs, when their PUBACKs were written."""

    __slots__ = ("crcs", "ids", "written_ms")

    def __init__(self, ids: list[int], crcs: list[int], written_ms: float = _UNWRITTEN) -> None:
        self.ids = ids
        self.crcs = crcs
        self.written_ms = written_ms


class DupMemory:
    """What one client's packet identifiers last stood for.

    A PUBLISH with DUP=1 is a repeat when its identifier's latest use had the same topic and payload (CRC-32 of
    both) and the client may not have had the PUBACK: it was not written, or less than `horizon_ms` before
    the connection ended. Anything else is a new message that happens to look like an old one.

    Every message is noted here and hardly one is ever asked for: so they are kept as they came, many together.
    """

    __slots__ = ("_count", "_ended_ms", "_horizon_ms", "_latest", "_resumed", "_unwritten", "_uses_max", "_written")

    def __init__(self, horizon_ms: int, *, uses_max: int = USES_MAX) -> None:
        self._horizon_ms = horizon_ms
        self._uses_max = uses_max
        self._ended_ms = 0.0
        self._resumed = False
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._written: deque[_Uses] = deque()
        self._unwritten: deque[_Uses] = deque()
        self._latest: dict[int, tuple[int, _Uses]] | None = None  # packet id → CRC of its latest use; made when needed

    def __len__(self) -> int:
        return self._count

    def connection_began(self, *, resumed: bool) -> None:
        """A session that is not resumed is a new one: nothing of the old is a repeat [MQTT-3.1.2-6]."""
        self._resumed = resumed
        if not resumed:
            self._clear()

    def connection_ended(self, now_ms: float) -> None:
        self._ended_ms = now_ms

    def _find(self, packet_id: int) -> tuple[int, _Uses] | None:
        if self._latest is None:
            self._latest = {
                each: (its_crc, uses)
                for uses in (*self._written, *self._unwritten)
                for each, its_crc in zip(uses.ids, uses.crcs, strict=True)
            }
        return self._latest.get(packet_id)

    def is_repeat(self, packet_id: int, crc: int) -> bool:
        """For a PUBLISH that says DUP=1. An unwritten PUBACK makes it one on the same connection too."""
        found = self._find(packet_id)
        if found is None or found[0] != crc:
            return False
        written_ms = found[1].written_ms
        if written_ms == _UNWRITTEN:
            return True
        return self._resumed and 0 <= self._ended_ms - written_ms < self._horizon_ms

    def is_unwritten(self, packet_id: int, crc: int) -> bool:
        """Whether the identifier's latest use is this message, and its acknowledgement was never written."""
        found = self._find(packet_id)
        return found is not None and found[0] == crc and found[1].written_ms == _UNWRITTEN

    def use(self, packet_id: int, crc: int) -> None:
        """The message is being stored under this identifier."""
        latest = self._latest
        self.use_all([packet_id], [crc])
        if latest is not None:
            latest[packet_id] = (crc, self._unwritten[-1])
            self._latest = latest

    def use_all(self, packet_ids: list[int], crcs: list[int]) -> None:
        """`use` of each, in order; keeps the lists."""
        self._latest = None
        self._unwritten.append(_Uses(packet_ids, crcs))
        self._count += len(packet_ids)
        while self._count > self._uses_max and len(self._written) + len(self._unwritten) > 1:
            self._count -= len((self._written or self._unwritten).popleft().ids)

    def written(self, packet_ids: list[int], now_ms: float) -> None:
        """Their PUBACKs were handed to the network. Uses too old to matter for any later end are let go."""
        unwritten, start = self._unwritten, 0
        while unwritten and start < len(packet_ids):  # in the order in which they came, as a rule
            stop = start + len(unwritten[0].ids)
            if packet_ids[start:stop] != unwritten[0].ids:
                break
            uses = unwritten.popleft()
            uses.written_ms = now_ms
            self._written.append(uses)
            start = stop
        if start < len(packet_ids):
            self._note_written(set(packet_ids[start:]), now_ms)
        oldest_ms = now_ms - self._horizon_ms
        while self._written and self._written[0].written_ms <= oldest_ms:
            self._count -= len(self._written.popleft().ids)
            self._latest = None

    def _note_written(self, packet_ids: set[int], now_ms: float) -> None:
        """Out of order, or with repeats among them, whose originals count from now: one by one."""
        written, unwritten = self._singly(self._written), self._singly(self._unwritten)
        now = [uses for uses in written + unwritten if uses.ids[0] in packet_ids]
        for uses in now:
            uses.written_ms = now_ms
        self._written = deque([uses for uses in written if uses.ids[0] not in packet_ids] + now)
        self._unwritten = deque(uses for uses in unwritten if uses.ids[0] not in packet_ids)
        self._latest = None

    def _singly(self, together: Iterable[_Uses]) -> list[_Uses]:
        return [
            _Uses([packet_id], [crc], uses.written_ms)
            for uses in together
            for packet_id, crc in zip(uses.ids, uses.crcs, strict=True)
        ]

    def forget(self, packet_ids: list[int]) -> None:
        """They were not stored after all: the disk failed."""
        lost = set(packet_ids)
        self._written = deque(uses for uses in self._singly(self._written) if uses.ids[0] not in lost)
        self._unwritten = deque(uses for uses in self._singly(self._unwritten) if uses.ids[0] not in lost)
        self._count = len(self._written) + len(self._unwritten)
        self._latest = None


def message_crc(topic: bytes, payload: bytes) -> int:
    """CRC-32 of topic, NUL, payload: what `hw-m` carries."""
    return zlib.crc32(payload, zlib.crc32(topic + b"\0"))


def hw_m(packet_id: int, crc: int, client_id: bytes) -> bytes:
    """The value of header `hw-m`: `<packet id>:<CRC-32, 8 hex digits>:<client id>`."""
    return b"%d:%08x:%b" % (packet_id, crc, client_id)


def hw_m_sections(packet_ids: Sequence[int], crcs: Sequence[int], client_id: bytes) -> list[bytes]:
    """A header section with `hw-m` alone for each message of one client."""
    templates = _templates(client_id)
    digits = len(str(max(packet_ids)))
    if min(packet_ids) >= 10 ** (digits - 1):
        return list(map(templates[digits].__mod__, zip(packet_ids, crcs, strict=True)))
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
