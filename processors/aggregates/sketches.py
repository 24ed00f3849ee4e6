"""Quantiles and distinct counts from small summaries of whole numbers, which no order and no split can change.

Quantiles: a DDSketch (Masson, Rim, Lee 2019) with its linearly interpolated mapping: a bucket is the exponent and the
first six bits of the mantissa of a double, so that its middle is at most 1/128 = 0.8 % from each value in it.
Distinct: HyperLogLog with 4,096 registers and Ertl's estimator (2017), standard error 1.6 %; up to 1,024 different
values 25 bits of each hash are kept as HyperLogLog++ does (Heule, Nunkesser, Hall 2013), and the count is nearly exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Items = npt.NDArray[Any]

QUANTILES = {
    "p1": 0.01,
    "p5": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p98": 0.98,
    "p99": 0.99,
    "p99.9": 0.999,
}
RELATIVE_ERROR = 1 / 128
BUCKET = np.dtype([("code", "<i4"), ("count", "<i4")])
BUCKETS_MAX = 4096
HASH = np.dtype("<u4")

_SHIFT = 52 - 6
_CODES, _CODE_MASK = 1 << 31, (1 << 32) - 1  # a code is a number below 2^32 once it is raised by 2^31
_SPARSE_BITS, _DENSE_BITS = 25, 12
_SPARSE_MAX = 1024
_REGISTERS = 1 << _DENSE_BITS
_RANK_MAX = 64 - _DENSE_BITS + 1
_RANK_MASK = np.uint32(63)  # a hash item is its index in 25 (sparse) or 12 bits (dense), then 6 bits of rank
_DENSE_FLAG = np.uint32(1 << 31)


# quantiles


def buckets_of(values: Floats) -> Items:
    """A bucket with count 1 for each value. Codes rise with the values; 0 is the bucket of 0."""
    found = np.empty(len(values), dtype=BUCKET)
    codes = (np.abs(values).view(np.int64) >> _SHIFT).astype(np.int32)
    found["code"] = np.where(values < 0, -codes, codes)
    found["count"] = 1
    return found


def squeeze(buckets: Items, sizes: Ints) -> tuple[Items, Ints]:
    """One item per row and bucket, sorted; `sizes`: how many buckets each row has.

    Beyond `BUCKETS_MAX` the lowest values of a row fall into the lowest bucket that it has left.
    """
    rows = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    names = (rows << 32) + (buckets["code"].astype(np.int64) + _CODES)
    order = np.argsort(names, kind="stable")
    names = names[order]
    begins = np.flatnonzero(np.diff(names, prepend=-1))
    counts = np.add.reduceat(buckets["count"][order], begins, dtype=np.int32) if len(begins) else buckets["count"]
    found = np.empty(len(begins), dtype=BUCKET)
    found["code"], found["count"] = (names[begins] & _CODE_MASK) - _CODES, counts
    left = np.bincount(names[begins] >> 32, minlength=len(sizes)).astype(np.int64)
    return _collapsed(found, left) if left.max(initial=0) > BUCKETS_MAX else (found, left)


def _collapsed(buckets: Items, sizes: Ints) -> tuple[Items, Ints]:
    pieces = []
    for end, size in zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True):
        piece = buckets[end - size : end].copy()
        if size > BUCKETS_MAX:
            piece["count"][-BUCKETS_MAX] += piece["count"][:-BUCKETS_MAX].sum()
            piece = piece[-BUCKETS_MAX:]
        pieces.append(piece)
    return np.concatenate(pieces), np.minimum(sizes, BUCKETS_MAX)


def quantiles(share: float, buckets: Items, sizes: Ints, low: Floats, high: Floats) -> Floats:
    """Per row the value of rank ⌊share × (n − 1)⌋, within `RELATIVE_ERROR`.

    `buckets`: those of the rows one after the other, squeezed; `sizes`: how many each row has, at least one;
    `low` and `high`: the least and greatest value of each.
    """
    ends = np.cumsum(buckets["count"], dtype=np.int64)
    last = ends[np.cumsum(sizes) - 1]
    before = np.concatenate([[0], last[:-1]])
    ranks = np.floor(share * (last - before - 1)).astype(np.int64)
    codes = buckets["code"][np.searchsorted(ends, before + ranks, side="right")].astype(np.int64)
    edges = [((np.abs(codes) + more) << _SHIFT).view(np.float64) / 2 for more in (0, 1)]
    middle = np.where(codes == 0, 0.0, np.copysign(edges[0] + edges[1], codes))
    middle = np.where(low > middle, low, middle)
    found: Floats = np.where(high < middle, high, middle)
    return found


# distinct


def items_of(hashes: npt.NDArray[np.uint64]) -> Items:
    """A sparse item for each hash: 25 bits of it and how many zeros follow them."""
    index = hashes >> np.uint64(64 - _SPARSE_BITS)
    rest = hashes << np.uint64(_SPARSE_BITS)
    return ((index << np.uint64(6)) | _rank(rest, 64 - _SPARSE_BITS)).astype(HASH)


def hashes_of(values: Floats) -> npt.NDArray[np.uint64]:
    """64 bits of each value (splitmix64's finaliser, Steele, Lea, Flood 2014); −0 is 0."""
    bits = (values + 0.0).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _rank(bits: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint64]:
    """The place of the highest bit among the first `width` ones, from 1; `width` + 1 when none is set."""
    rank = np.full(len(bits), width + 1, dtype=np.uint64)
    for place in range(width, 0, -1):
        rank[(bits >> np.uint64(64 - place)) & np.uint64(1) == 1] = place
    return rank


def squeeze_hashes(items: Items, sizes: Ints) -> tuple[Items, Ints]:
    """One item per row and register, sorted; dense in rows with more than 1,024 sparse ones."""
    ends = np.cumsum(sizes).tolist()
    pieces = [_registers(items[end - size : end]) for end, size in zip(ends, sizes.tolist(), strict=True)]
    return np.concatenate([items[:0], *pieces]), np.array([len(piece) for piece in pieces], dtype=np.int64)


def _registers(items: Items) -> Items:
    dense = items[items >= _DENSE_FLAG]
    sparse = _highest(items[items < _DENSE_FLAG])
    if not len(dense) and len(sparse) <= _SPARSE_MAX:
        return sparse
    return _highest(np.concatenate([dense, _to_dense(sparse)]))


def _highest(items: Items) -> Items:
    """Of each index the item with the highest rank."""
    ordered = np.sort(items)
    index = ordered >> np.uint32(6)
    return ordered[np.flatnonzero(np.diff(index.astype(np.int64), append=-1))]


def _to_dense(sparse: Items) -> Items:
    wide = (sparse >> np.uint32(6)).astype(np.uint64)
    more = _SPARSE_BITS - _DENSE_BITS
    rest = (wide & np.uint64((1 << more) - 1)) << np.uint64(64 - more)
    within = _rank(rest, more)
    rank = np.where(within <= more, within, more + (sparse & _RANK_MASK).astype(np.uint64))
    return (_DENSE_FLAG | ((wide >> np.uint64(more)) << np.uint64(6)) | rank).astype(HASH)


def distinct(items: Items) -> int:
    """About how many different values there were; `items` squeezed."""
    if not len(items):
        return 0
    if int(items[0]) < _DENSE_FLAG:
        cells = 1 << _SPARSE_BITS
        return round(-cells * math.log1p(-len(items) / cells))
    ranks = (items & _RANK_MASK).astype(np.int64)
    counts = np.bincount(ranks, minlength=_RANK_MAX + 1).tolist()
    counts[0] = _REGISTERS - len(items)
    total = _REGISTERS * _tau(1.0 - counts[_RANK_MAX] / _REGISTERS)
    for rank in range(_RANK_MAX - 1, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += _REGISTERS * _sigma(counts[0] / _REGISTERS)
    return round(_REGISTERS * _REGISTERS / (2 * math.log(2) * total))


def _sigma(share: float) -> float:
    if share == 1.0:
        return math.inf
    found, weight, before = share, 1.0, -1.0
    while found != before:
        share *= share
        before, found, weight = found, found + share * weight, weight * 2
    return found


def _tau(share: float) -> float:
    if share in (0.0, 1.0):
        return 0.0
    found, weight, before = 1.0 - share, 1.0, -1.0
    while found != before:
        share = math.sqrt(share)
        weight *= 0.5
        before, found = found, found - (1.0 - share) ** 2 * weight
    return found / 3.0
