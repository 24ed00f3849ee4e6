"""The four codecs of a record batch (attributes bits 0 to 2), each with a bound on what it may expand to.

gzip and zstd need nothing beyond the core's dependencies; lz4 and snappy are read with the optional `cramjam`, and its
absence is a clear error for that batch, not a failed start: batches are stored as they came, compressed.
Frames: gzip RFC 1952; zstd RFC 8878; lz4 frame format 1.5; snappy either raw or in the "xerial" blocks of Java clients.
"""

from __future__ import annotations

import importlib
import zlib
from enum import IntEnum
from typing import Any

import zstandard

from gateway.log.errors import CorruptBatch, MissingCodec

# Far above what a usual batch expands to (telemetry: six-fold), far below what a hostile one could.
DECOMPRESSED_BYTES_MAX = 256 << 20

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_ZSTD_LEVEL = 1  # on telemetry JSON level 3 is slower and no smaller


class Compression(IntEnum):
    """Codec numbers of the attributes field."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(codec: Compression, data: bytes) -> bytes:
    """`data` in a frame of `codec`. Raises `MissingCodec`."""
    if codec is Compression.ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
    if codec is Compression.GZIP:
        deflater = zlib.compressobj(6, zlib.DEFLATED, 31)
        return deflater.compress(data) + deflater.flush()
    if codec is Compression.LZ4:
        # Kafka reads frames of independent blocks alone.
        packer = _cramjam(codec).lz4.Compressor(content_checksum=False, block_linked=False)
        packer.compress(data)
        return bytes(packer.finish())
    if codec is Compression.SNAPPY:
        return bytes(_cramjam(codec).snappy.compress_raw(data))
    return data


def decompress(codec: int, data: bytes | memoryview, limit_bytes: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """The records section of a batch. Raises `CorruptBatch` on damage or beyond `limit_bytes`, and `MissingCodec`."""
    if codec == Compression.NONE:
        return bytes(data)
    if codec == Compression.GZIP:
        return _gunzip(data, limit_bytes)
    if codec == Compression.ZSTD:
        return _unzstd(data, limit_bytes)
    if codec == Compression.LZ4:
        return _unlz4(data, limit_bytes)
    if codec == Compression.SNAPPY:
        return _unsnappy(bytes(data), limit_bytes)
    raise CorruptBatch(f"Record batch with unknown compression codec {codec}")


def _too_large(limit_bytes: int) -> CorruptBatch:
    return CorruptBatch(f"Record batch that expands beyond {limit_bytes} bytes")


def _damaged(codec: str, error: Exception) -> CorruptBatch:
    return CorruptBatch(f"Record batch whose {codec} data is damaged: {error}")


def _cramjam(codec: Compression) -> Any:
    try:
        return importlib.import_module("cramjam")
    except ImportError:
        raise MissingCodec(
            f"A record batch is compressed with {codec.name.lower()}, and no library for it is installed",
            hint="Install the package cramjam, or let producers use zstd or gzip.",
        ) from None


def _gunzip(data: bytes | memoryview, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(31)
    try:
        out = unpacker.decompress(data, limit_bytes)
        if unpacker.unconsumed_tail:
            raise _too_large(limit_bytes)
        if not unpacker.eof:
            raise CorruptBatch("Record batch whose gzip data is cut short")
    except zlib.error as error:
        raise _damaged("gzip", error) from None
    return out


def _unzstd(data: bytes | memoryview, limit_bytes: int) -> bytes:
    # Java clients stream: their frames carry no content size, so the simple call of the library would refuse them.
    try:
        with zstandard.ZstdDecompressor().stream_reader(bytes(data), read_across_frames=True) as reader:
            out = reader.read(limit_bytes + 1)
    except zstandard.ZstdError as error:
        raise _damaged("zstd", error) from None
    if len(out) > limit_bytes:
        raise _too_large(limit_bytes)
    return out


def _unlz4(data: bytes | memoryview, limit_bytes: int) -> bytes:
    cramjam = _cramjam(Compression.LZ4)
    # An lz4 block expands at most 255 times: the buffer below is bounded by the input before anything is unpacked.
    room = min(limit_bytes, 255 * len(data) + 64)
    try:
        out = bytearray(min(room, 16 * len(data) + 4096))
        while True:
            try:
                size = cramjam.lz4.decompress_into(bytes(data), out)
            except cramjam.DecompressionError:
                if len(out) >= room:
                    raise
                out = bytearray(min(room, 8 * len(out)))
                continue
            return bytes(memoryview(out)[:size])
    except cramjam.DecompressionError as error:
        raise _damaged("lz4", error) from None


def _unsnappy(data: bytes, limit_bytes: int) -> bytes:
    cramjam = _cramjam(Compression.SNAPPY)
    parts = []
    total = 0
    try:
        for block in _snappy_blocks(data):
            total += cramjam.snappy.decompress_raw_len(block)
            if total > limit_bytes:
                raise _too_large(limit_bytes)
            parts.append(bytes(cramjam.snappy.decompress_raw(block)))
    except cramjam.DecompressionError as error:
        raise _damaged("snappy", error) from None
    return b"".join(parts)


def _snappy_blocks(data: bytes) -> list[bytes]:
    if not data.startswith(_XERIAL_MAGIC):
        return [data]
    blocks = []
    position = _XERIAL_HEADER_BYTES
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        block = data[position + 4 : position + 4 + size]
        if len(block) != size:
            raise CorruptBatch("Record batch whose snappy blocks are cut short")
        blocks.append(block)
        position += 4 + size
    return blocks
