"""A hash chain over the 61-byte batch headers of a partition.

A batch's CRC covers neither its offset nor its length nor its epoch, and says nothing about its neighbours. The chain
does: its value at a batch boundary names the whole history before it. Replication compares it to recognise a restored
or cloned log.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from gateway.log.errors import CorruptBatch

CHAIN_START = 0
Buffer = bytes | bytearray | memoryview


def chain_next(value: int, header61: Buffer) -> int:
    """The value after the batch with this header: the first 8 bytes of BLAKE2b over the value before and the header."""
    return int.from_bytes(blake2b(value.to_bytes(8, "big") + header61, digest_size=8).digest(), "big")


def chain_all(value: int, headers: Iterable[Buffer]) -> list[int]:
    """The value before each of the batches with these headers, and the one after them; `chain_next` in one loop."""
    link = value.to_bytes(8, "big")
    links = [link]
    for header in headers:
        link = blake2b(link + header, digest_size=8).digest()
        links.append(link)
    return list(map(int.from_bytes, links))


def encode_anchors(anchors: dict[int, int]) -> bytes:
    """Values per segment base offset, as the text of `<data>/node/chain/<topic>-<partition>`."""
    lines = [f"{offset} {value:016x}\n" for offset, value in sorted(anchors.items())]
    return f"0\n{len(lines)}\n{''.join(lines)}".encode()


def decode_anchors(text: bytes) -> dict[int, int]:
    """The inverse. Raises `CorruptBatch` when it is not such a text."""
    try:
        version, count, *lines = text.decode("ascii").splitlines()
        expected = int(count)
        anchors = {int(offset): int(value, 16) for offset, value in (line.split() for line in lines)}
    except (UnicodeDecodeError, ValueError):
        raise CorruptBatch("Damaged chain file") from None
    if any(offset < 0 or not 0 <= value < 1 << 64 for offset, value in anchors.items()):
        raise CorruptBatch("Chain file with a value of more than 64 bits")
    if version != "0" or expected != len(anchors):
        raise CorruptBatch(f"Chain file of version {version} with {len(anchors)} of {count} lines")
    return anchors
