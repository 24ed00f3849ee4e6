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
from itertools import chain, repeat

from gateway.ingest.messages import Packed, numbers, pairs

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
        "_counts",
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
        self._unwritten: list[tuple[Packed, Packed]] = []  # packet identifiers and CRCs that came together
        self._waiting = 0  # how many these are
        self._ids, self._crcs = bytearray(), bytearray()  # of uses whose PUBACK was written
        self._times, self._counts = array("d"), array("I")  # when, and how many at once
        self._latest: dict[int, tuple[int, float]] | None = None  # packet id → CRC and time of its latest use

    def __len__(self) -> int:
        return self._waiting + len(self._ids) // 2

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
                self._latest.update({each: (its_crc, _UNWRITTEN) for each, its_crc in pairs(ids, crcs)})
        found = self._latest.get(packet_id)
        return found[1] if found is not None and found[0] == crc else None

    def _written(self) -> list[tuple[int, int, float]]:
        times = chain.from_iterable(map(repeat, self._times, self._counts))
        return [(*use, ms) for use, ms in zip(pairs(self._ids, self._crcs), times, strict=True)]

    def use(self, packet_id: int, crc: int) -> None:
        """The message is being stored under this identifier."""
        latest = self._latest
        self.use_all(*_packed(packet_id, crc))
        if latest is not None:
            latest[packet_id] = (crc, _UNWRITTEN)
            self._latest = latest

    def use_all(self, packet_ids: Packed, crcs: Packed) -> None:
        """`use` of each, in order; two bytes an identifier and four a CRC. Keeps both as they are."""
        self._latest = None
        self._unwritten.append((packet_ids, crcs))
        self._waiting += len(packet_ids) // 2
        if (over := self._waiting + len(self._ids) // 2 - self._uses_max) > 0:
            self._drop(over)
            while self._waiting > self._uses_max and len(self._unwritten) > 1:
                self._waiting -= len(self._unwritten.pop(0)[0]) // 2

    def written(self, packet_ids: Packed, now_ms: float) -> None:
        """Their PUBACKs were handed to the network. Uses too old to matter for any later end are let go."""
        unwritten = self._unwritten
        if unwritten and unwritten[0][0] == packet_ids:  # as nearly always
            self._keep(*unwritten.pop(0), now_ms)
        else:
            self._match(packet_ids, now_ms)
        times, ended_ms = self._times, now_ms - self._horizon_ms
        if times and times[0] <= ended_ms:
            self._drop(sum(self._counts[: bisect_right(times, ended_ms)]))
        self._latest = None

    def _match(self, packet_ids: Packed, now_ms: float) -> None:
        """What came together may be acknowledged together with others: in the order in which they came, as a rule."""
        start, unwritten = 0, self._unwritten
        while unwritten and start < len(packet_ids):
            ids, crcs = unwritten[0]
            if not packet_ids.startswith(ids, start):
                break
            del unwritten[0]
            self._keep(ids, crcs, now_ms)
            start += len(ids)
        if start < len(packet_ids):
            self._note_written(set(numbers(packet_ids[start:])), now_ms)

    def _keep(self, ids: Packed, crcs: Packed, now_ms: float) -> None:
        count = len(ids) // 2
        self._waiting -= count
        self._ids += ids
        self._crcs += crcs
        self._times.append(now_ms)
        self._counts.append(count)

    def _drop(self, count: int) -> None:
        """Forget the oldest of those that were acknowledged."""
        del self._ids[: 2 * count], self._crcs[: 4 * count]
        counts, gone = self._counts, 0
        while gone < len(counts) and count >= counts[gone]:
            count -= counts[gone]
            gone += 1
        del counts[:gone], self._times[:gone]
        if counts:
            counts[0] -= count
        self._latest = None

    def _note_written(self, packet_ids: set[int], now_ms: float) -> None:
        """Out of order, or with repeats among them, whose originals count from now: one by one."""
        again = self._take_out(packet_ids)
        unwritten, self._unwritten = self._unwritten, []
        for ids, crcs in unwritten:
            for packet_id, crc in pairs(ids, crcs):
                use = _packed(packet_id, crc)
                if packet_id in packet_ids:
                    again.append(use)
                else:
                    self._unwritten.append(use)
        for use in again:
            self._keep(*use, now_ms)
        self._waiting = len(self._unwritten)

    def _take_out(self, packet_ids: set[int]) -> list[tuple[bytes, bytes]]:
        """These of the ones that were acknowledged, which are no longer among them."""
        uses = self._written()
        self._drop(len(uses))
        for packet_id, crc, ms in uses:
            if packet_id not in packet_ids:
                self._keep(*_packed(packet_id, crc), ms)
        return [_packed(packet_id, crc) for packet_id, crc, _ in uses if packet_id in packet_ids]

    def forget(self, packet_ids: Iterable[int]) -> None:
        """They were not stored after all: the disk failed."""
        lost = set(packet_ids)
        self._take_out(lost)
        self._unwritten = [
            _packed(packet_id, crc)
            for ids, crcs in self._unwritten
            for packet_id, crc in pairs(ids, crcs)
            if packet_id not in lost
        ]
        self._waiting = len(self._unwritten)
        self._latest = None


def _packed(packet_id: int, crc: int) -> tuple[bytes, bytes]:
    return packet_id.to_bytes(2, "big"), crc.to_bytes(4, "big")


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
