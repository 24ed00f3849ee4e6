"""Records by columns, to be encoded as one batch: for a writer that makes thousands at a time."""

from __future__ import annotations

from itertools import chain

from gateway.log.layout import MAGIC
from gateway.log.records import Record, encode_batch, seal
from gateway.log.varint import SMALL, small_varints

_NEAR_MS = 8_192


# A record's attributes, always 0, and how far its time is from the batch's, for -8,192 <= delta < 8,192: a negative
# index finds what stands at the list's end.
_NEAR = [b"\x00" + small for small in [*SMALL[:_NEAR_MS], *reversed(small_varints(1)[:_NEAR_MS])]]


class Rows:
    """Timestamps in ms, keys, values and encoded header sections; all lists have the same length."""

    __slots__ = ("headers", "keys", "timestamps", "values")

    def __init__(self) -> None:
        self.timestamps: list[int] = []
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.headers: list[bytes] = []

    def __len__(self) -> int:
        return len(self.timestamps)

    def add(self, timestamp_ms: int, key: bytes, value: bytes, headers: bytes) -> None:
        """One more row."""
        self.timestamps.append(timestamp_ms)
        self.keys.append(key)
        self.values.append(value)
        self.headers.append(headers)

    def extend(self, timestamps: list[int], keys: list[bytes], values: list[bytes], headers: list[bytes]) -> None:
        """More rows; columns of the same length."""
        self.timestamps += timestamps
        self.keys += keys
        self.values += values
        self.headers += headers

    def records(self) -> list[Record]:
        """The same as `encode_batch` wants them."""
        return list(zip(self.timestamps, self.keys, self.values, self.headers, strict=True))

    def encode(self) -> bytearray:
        """One batch, the same bytes as `encode_batch(self.records())`. Raises `ValueError` for no rows."""
        if not self.timestamps or len(self.timestamps) > len(SMALL):
            return encode_batch(self.records())
        near, small = _NEAR, SMALL.__getitem__
        base, newest = self.timestamps[0], max(self.timestamps)
        if newest - base >= _NEAR_MS or min(self.timestamps) - base < -_NEAR_MS:
            return encode_batch(self.records())
        try:
            bodies = list(
                map(
                    b"".join,
                    zip(
                        [near[timestamp - base] for timestamp in self.timestamps],
                        SMALL,
                        map(small, map(len, self.keys)),
                        self.keys,
                        map(small, map(len, self.values)),
                        self.values,
                        self.headers,
                        strict=False,  # SMALL numbers the records, and is longer
                    ),
                )
            )
            body = b"".join(chain.from_iterable(zip(map(small, map(len, bodies)), bodies, strict=True)))
        except IndexError:  # a key, value or record beyond the table of small numbers
            return encode_batch(self.records())
        last = len(bodies) - 1
        return seal((0, 0, 0, MAGIC, 0, 0, last, base, newest, -1, -1, -1, last + 1), body)
