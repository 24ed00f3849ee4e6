"""The checkpoint file of the inline driver: everything needed to go on, replaced as a whole.

    bytes 0-3   "HWCP"
    bytes 4-5   format, big-endian (3)
    bytes 6-9   CRC-32C of the rest, big-endian
    bytes 10-   zstd of one msgpack map, see `Checkpoint`; arrays in it are little-endian bytes

Plain data only: a checkpoint can be damaged, but it cannot run code.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import zstandard
from crc32c import crc32c

from headwater.errors import UNREADABLE, HeadwaterError

FORMAT = 3
_MAGIC = b"HWCP"
_HEADER = struct.Struct(">4sHI")
_BYTES_MAX = 2 << 30


class CheckpointError(HeadwaterError):
    """The file is damaged or of another format."""


class Writer(msgspec.Struct):
    """Who writes the outputs of one input partition: an idempotent producer (id, epoch) and its next sequence numbers.

    The numbers, one per output partition, go on after a crash, so that a write whose answer was lost cannot be in
    the log twice. One writer per input partition: only its outputs have an order that is the same every time.
    """

    producer: tuple[int, int]
    sequences: dict[str, int] = {}


class InputState(msgspec.Struct):
    """One input partition: the next offset to read, the processor's snapshot, and its writer."""

    offset: int
    state: dict[str, Any]
    writer: Writer


class Checkpoint(msgspec.Struct):
    """The driver's whole state between two rounds, with every output of it on disk.

    Keys are `<topic>/<partition>`. `ends`: of each output partition an offset below which no later output lies.
    """

    inputs: dict[str, InputState] = {}
    ends: dict[str, int] = {}


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of the file."""
    body = zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(checkpoint))
    return _HEADER.pack(_MAGIC, FORMAT, crc32c(body)) + body


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Raises `CheckpointError` for anything but a whole checkpoint of this format."""
    if len(data) < _HEADER.size:
        raise CheckpointError(f"it has {len(data)} bytes")
    magic, form, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CheckpointError("it is no checkpoint")
    if form != FORMAT:
        raise CheckpointError(f"its format is {form}, not {FORMAT}")
    body = memoryview(data)[_HEADER.size :]
    if crc32c(body) != crc:
        raise CheckpointError("its checksum is wrong")
    try:
        plain = zstandard.ZstdDecompressor().decompress(body, max_output_size=_BYTES_MAX)
        return msgspec.msgpack.decode(plain, type=Checkpoint)
    except (*UNREADABLE, zstandard.ZstdError) as error:
        raise CheckpointError(str(error)) from None


def grown(known: Iterable[str], partitions: Mapping[str, int]) -> list[str]:
    """What people are told of topics that have more partitions than `known` (`<topic>/<partition>`) has states of."""
    before = Counter(source.rpartition("/")[0] for source in known)
    return [
        f"{topic} has {count} partitions, and had {before[topic]}: whose records go by their keys stand in another one"
        " now, so that windows that were under way then are told of each partition by itself; later ones are whole"
        for topic, count in partitions.items()
        if 0 < before[topic] < count
    ]
