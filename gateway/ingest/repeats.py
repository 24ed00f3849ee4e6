"""Recognising what was stored already (design §7). Sans-IO; times are monotonic milliseconds.

`DupMemory` is one MQTT client's: which message each packet identifier last stood for, and when its PUBACK was written.
`NaturalMemory` is one node's: the latest natural keys of each device.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

USES_MAX = 1_024
NATURAL_HORIZON = 509  # a prime, so that times a fixed interval apart use every slot
NATURAL_HORIZON_SHORT = 127  # of devices beyond the first `NATURAL_DEVICES_LONG`; a prime too
NATURAL_DEVICES_LONG = 4_096
NATURAL_DEVICES_MAX = 16_384  # 16 MiB in long rings, 12 MiB in short ones

_UNWRITTEN = -1.0


class DupMemory:
    """What one client's packet identifiers last stood for.

    A PUBLISH with DUP=1 is a repeat when its identifier's latest use had the same topic and payload (CRC-32 of
    both) and the client may not have had the PUBACK: it was not written, or less than `horizon_ms` before
    the connection ended. Anything else is a new message that happens to look like an old one.

    Every message is noted here and hardly one is ever asked for: what waits for its PUBACK is kept as it came, many
    together, and what has had it as columns of few bytes.
    """

    __slots__ = (
        "_crcs",
        "_ended_ms",
        "_horizon_ms",
        "_ids",
        "_latest",
        "_resumed",
        "_times",
        "_unwritten",
        "_uses_max",
        "_waiting",
    )

    def __init__(self, horizon_ms: int, *, uses_max: int = USES_MAX) -> None:
        self._horizon_ms = horizon_ms
        self._uses_max = uses_max
        self._ended_ms = 0.0
        self._resumed = False
        self._clear()

    def _clear(self) -> None:
        self._unwritten: list[tuple[array[int], array[int]]] = []  # packet identifiers and CRCs that came together
        self._waiting = 0  # how many these are
        self._ids = array("H")  # of uses whose PUBACK was written, their CRCs, and when
        self._crcs = array("I")
        self._times = array("d")
        self._latest: dict[int, tuple[int, float]] | None = None  # packet id → CRC and time of its latest use

    def __len__(self) -> int:
        return self._waiting + len(self._ids)

    def connection_began(self, *, resumed: bool) -> None:
        """A session that is not resumed is a new one: nothing of the old is a repeat [MQTT-3.1.2-6]."""
        self._resumed = resumed
        if not resumed:
            self._clear()

    def connection_ended(self, now_ms: float) -> None:
        self._ended_ms = now_ms

    def is_repeat(self, packet_id: int, crc: int) -> bool:
        """For a PUBLISH that says DUP=1. An unwritten PUBACK makes it one on the same connection too."""
        if (written_ms := self._written_ms(packet_id, crc)) is None:
            return False
        if written_ms == _UNWRITTEN:
            return True
        return self._resumed and 0 <= self._ended_ms - written_ms < self._horizon_ms

    def is_unwritten(self, packet_id: int, crc: int) -> bool:
        """Whether the identifier's latest use is this message, and its acknowledgement still to be written."""
        return self._written_ms(packet_id, crc) == _UNWRITTEN

    def _written_ms(self, packet_id: int, crc: int) -> float | None:
        """When the identifier's latest use was acknowledged, if it was this message."""
        if self._latest is None:  # made when asked for
            self._latest = {each: (its_crc, ms) for each, its_crc, ms in self._written()}
            for ids, crcs in self._unwritten:
                self._latest.update(zip(ids, [(its_crc, _UNWRITTEN) for its_crc in crcs], strict=True))
        found = self._latest.get(packet_id)
        return found[1] if found is not None and found[0] == crc else None

    def _written(self) -> Iterable[tuple[int, int, float]]:
        return zip(self._ids, self._crcs, self._times, strict=True)

    def use(self, packet_id: int, crc: int) -> None:
        """The message is being stored under this identifier."""
        latest = self._latest
        self.use_all(array("H", (packet_id,)), array("I", (crc,)))
        if latest is not None:
            latest[packet_id] = (crc, _UNWRITTEN)
            self._latest = latest

    def use_all(self, packet_ids: array[int], crcs: array[int]) -> None:
        """`use` of each, in order; keeps the arrays, of types H and I."""
        self._latest = None
        self._unwritten.append((packet_ids, crcs))
        self._waiting += len(packet_ids)
        if (over := len(self) - self._uses_max) > 0:
            self._drop(over)
            while self._waiting > self._uses_max and len(self._unwritten) > 1:
                self._waiting -= len(self._unwritten.pop(0)[0])

    def written(self, packet_ids: array[int], now_ms: float) -> None:
        """Their PUBACKs were handed to the network. Uses too old to matter for any later end are let go."""
        start = 0
        while self._unwritten and start < len(packet_ids):  # in the order in which they came, as a rule
            ids, crcs = self._unwritten[0]
            stop = start + len(ids)
            if packet_ids[start:stop] != ids:
                break
            del self._unwritten[0]
            self._keep(ids, crcs, now_ms)
            start = stop
        if start < len(packet_ids):
            self._note_written(set(packet_ids[start:]), now_ms)
        if gone := bisect_right(self._times, now_ms - self._horizon_ms):
            self._drop(gone)
        self._latest = None

    def _keep(self, ids: array[int], crcs: array[int], now_ms: float) -> None:
        self._waiting -= len(ids)
        self._ids += ids
        self._crcs += crcs
        self._times += array("d", (now_ms,)) * len(ids)

    def _drop(self, count: int) -> None:
        """Forget the oldest of those that were acknowledged."""
        del self._ids[:count], self._crcs[:count], self._times[:count]
        self._latest = None

    def _note_written(self, packet_ids: set[int], now_ms: float) -> None:
        """Out of order, or with repeats among them, whose originals count from now: one by one."""
        again = [use for use in self._written() if use[0] in packet_ids]
        self._ids, self._crcs, self._times = _columns(use for use in self._written() if use[0] not in packet_ids)
        for packet_id, crc, _ in again:
            self._waiting += 1
            self._keep(array("H", (packet_id,)), array("I", (crc,)), now_ms)
        unwritten, self._unwritten = self._unwritten, []
        for ids, crcs in unwritten:
            for packet_id, crc in zip(ids, crcs, strict=True):
                use = array("H", (packet_id,)), array("I", (crc,))
                if packet_id in packet_ids:
                    self._keep(*use, now_ms)
                else:
                    self._unwritten.append(use)

    def forget(self, packet_ids: Iterable[int]) -> None:
        """They were not stored after all: the disk failed."""
        lost = set(packet_ids)
        self._ids, self._crcs, self._times = _columns(use for use in self._written() if use[0] not in lost)
        self._unwritten = [
            (array("H", (packet_id,)), array("I", (crc,)))
            for ids, crcs in self._unwritten
            for packet_id, crc in zip(ids, crcs, strict=True)
            if packet_id not in lost
        ]
        self._waiting = len(self._unwritten)
        self._latest = None


def _columns(uses: Iterable[tuple[int, int, float]]) -> tuple[array[int], array[int], array[float]]:
    kept = list(uses)
    return (
        array("H", [use[0] for use in kept]),
        array("I", [use[1] for use in kept]),
        array("d", [use[2] for use in kept]),
    )


class NaturalMemory:
    """The latest natural keys of each device: a ring of slots, by key modulo its length.

    A device that restarts its sequence at 0 must not lose readings, so a repeat is the same number *and* the same
    companion: the time that the device claims, or without one the CRC of the stored value.

    A slot holds a 64-bit hash of both. The first `NATURAL_DEVICES_LONG` devices have `NATURAL_HORIZON` slots (4 KB),
    later ones fewer (1 KB): of many devices each still is remembered, and a small node has room for all. Beyond
    `devices_max` the device that was silent longest makes room, and is counted in `forgotten`.

    The hash is no cryptographic one: a device that makes two differing readings meet on purpose loses one of its own.
    """

    def __init__(
        self,
        *,
        horizon: int = NATURAL_HORIZON,
        devices_max: int = NATURAL_DEVICES_MAX,
        devices_long: int = NATURAL_DEVICES_LONG,
    ) -> None:
        self._long = bytes(8 * horizon)
        self._short = bytes(8 * min(horizon, NATURAL_HORIZON_SHORT))
        self._devices_max = devices_max
        self._devices_long = devices_long
        self._rings: OrderedDict[bytes, array[int]] = OrderedDict()  # who spoke last stands last
        self.forgotten = 0

    @classmethod
    def of_node(cls, devices_max: int) -> NaturalMemory:
        """For the node's setting, as far as memory allows; a node that describes few devices may hear more."""
        return cls(devices_max=max(NATURAL_DEVICES_LONG, min(devices_max, NATURAL_DEVICES_MAX)))

    def is_repeat(self, device: bytes, key: int | str, companion: int) -> bool:
        """True when seen within the horizon; otherwise it is remembered from now on."""
        number = key if type(key) is int and -(1 << 62) < key < 1 << 62 else _number(key)
        if (ring := self._rings.get(device)) is None:
            ring = self._make(device)
        else:
            self._rings.move_to_end(device)
        slot, seen = number % len(ring), hash((number, companion))
        if ring[slot] == seen:
            return True
        ring[slot] = seen
        return False

    def repeats(self, devices: Sequence[bytes], keys: Sequence[int], companions: Sequence[int]) -> list[int]:
        """Which of many readings, in order, `is_repeat`; for keys and companions within 62 bits."""
        found: list[int] = []
        last: bytes | None = None
        find, heard = self._rings.get, self._rings.move_to_end
        hashes = map(hash, zip(keys, companions, strict=True))
        for index, (device, key, seen) in enumerate(zip(devices, keys, hashes, strict=True)):
            if device is not last:
                if (known := find(device)) is not None:
                    heard(device)
                ring = known or self._make(device)
                horizon = len(ring)
                last = device
            slot = key % horizon
            if ring[slot] == seen:
                found.append(index)
            else:
                ring[slot] = seen
        return found

    def _make(self, device: bytes) -> array[int]:
        rings = self._rings
        empty = self._long if len(rings) < self._devices_long else self._short
        if len(rings) >= self._devices_max:
            _, gone = rings.popitem(last=False)
            empty = self._long[: 8 * len(gone)]  # its room is taken over
            self.forgotten += 1
        ring = rings[device] = array("q", empty)
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
