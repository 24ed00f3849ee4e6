"""Kafka's default partitioner, so that a Java or librdkafka client finds a key where we put it.

The hash is murmur2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`); the partition is its lower 31
bits modulo the partition count (`BuiltInPartitioner.partitionForKey`).
"""

from __future__ import annotations

import struct

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash of `data`, unsigned."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        k = k * _M & _MASK
        k ^= k >> 24
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    if rest := data[whole:]:
        h ^= int.from_bytes(rest, "little")
        h = h * _M & _MASK
    h ^= h >> 13
    h = h * _M & _MASK
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic of `partitions` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
