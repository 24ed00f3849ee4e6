"""Fetched batches that are read all at once become the same columns as those that are read record by record."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from crc32c import crc32c

from gateway.consume.batches import Fetched, no_records, one_by_one
from gateway.log import columns as general
from gateway.log.compression import Compression
from gateway.log.headers import encode_headers
from gateway.log.layout import ATTRIBUTE_CONTROL, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL
from gateway.log.records import Record, encode_batch
from processors.batches import decode_batches
from processors.columns import KeyTable, Lanes, to_columns
from processors.pieces import Pieces
from tests.unit.processors.test_pieces import ASKED, KEYS, ODD, STRANGE, headers, told

NUMBERS = (
    *(b"-0", b"0", b"-0.0", b"00", b"01", b"-01", b"1.", b".1", b"-", b"", b"+1", b"1_0", b"0x10", b"1.50", b"1e-400"),
    *(b"1e400", b"-1e400", b"1E5", b"5e-324", b"9007199254740993", b"18446744073709551616", b"-9223372036854775809"),
    *(b"123456789012345", b"1234567890123456", b"0.00000000000001", b"99999999999999.9", b"-0.30000000000000004"),
    *(b"NaN", b"Infinity", b"true", b"null", b'"t"', b'"\\u0031"', b"[1]", b"{}", b'{"y":2}', b'{"y":{"z":3}}'),
    *(b"1 ", b"\t2", b"3\n", b"\r4", b"\x0c5", b"\xa06", b"\xd9\xa1"),
)
NAMES = (
    *(b"x", b"y", b"longer_name_1", b"longer_name_12", b"a.b", b"a", b"", b" x", b"12345678"),
    *(b"\\u0078", b"x\\u0000", b"x\\n", b"\xc3\xa4", b"\xff", b"x\x01"),
)
BYTES = b'0123456789.-+eE"{},: \n\\\x00\xff'
PLACES = (
    b"/0/0/1",
    b"n0/0/0/-1",
    b"n0/0/0/ 1",
    b"n0/0/0/",
    b"n0/0/0",
    b"n0//0/1",
    b"n0/00/0/5",
    b"n0\n/0/0/1",
    b"\xff/0/0/1",
)


class Odd(NamedTuple):
    """How many of the values, headers and keys are unusual, and of the records without key or value."""

    values: float
    headers: float
    keys: float
    nulls: float


def document(random: Random) -> bytes:
    """An object, or nearly one."""

    def space() -> bytes:
        return random.choice([*[b""] * 12, b" ", b"\n", b"\t", b"\r"])

    members = []
    for _ in range(random.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        name = random.choice(NAMES if random.random() < 0.2 else NAMES[:3])
        number = b"%.*f" % (random.randrange(17), random.gauss(0, 10.0 ** random.randrange(-6, 16)))
        if random.random() < 0.4:
            number = random.choice(NUMBERS)
        members.append(b'%b"%b"%b:%b%b%b' % (space(), name, space(), space(), number, space()))
    text = bytearray(space() + b"{" + b",".join(members) + b"}" + space())
    if random.random() < 0.3:
        at = random.randrange(len(text))
        text[at : at + random.randrange(2)] = random.choices(BYTES, k=random.randrange(2))
    return bytes(text)


def value(random: Random, odd: float) -> bytes:
    if random.random() < odd:
        return random.choice(ODD) if random.random() < 0.3 else document(random)
    if random.random() < 0.3:
        return b'{"x":%.2f}' % random.gauss(0, 100)
    number = random.gauss(0, 10.0 ** random.randrange(-4, 6))
    return b'{"x":%.*f,"y":%d}' % (random.randrange(1, 9), number, random.randrange(-(10**6), 10**6))


def header(random: Random, row: int, odd: float) -> bytes:
    place = b"n%d/0/0/%d" % (random.randrange(2), max(0, row - random.choice([0, 0, 0, 9])))
    if random.random() >= odd:
        return encode_headers([("hw", place)])
    if random.random() < 0.5:
        return headers(random, row, 3, 1.0)
    some: list[list[tuple[str, bytes | None]]] = [
        [("hw", place), ("hw", b"n7/0/0/3")],
        [("a", None), ("hw", place), ("zz", b"hw")],
        [("hw-x", b"1"), ("hw", None), ("hw", place)],
        [("hw", random.choice(PLACES))],
    ]
    return encode_headers(random.choice(some))


def record(random: Random, row: int, odd: Odd) -> Record:
    key: bytes | None = random.choice(STRANGE if random.random() < odd.keys else KEYS)
    said: bytes | None = value(random, odd.values)
    if random.random() < odd.nulls:
        key, said = random.choice([(None, said), (key, None), (key, b"")])
    at = 1_700_000_000_000 + random.randrange(-(10 ** random.randrange(1, 11)), 10**5)
    return at, key, said, header(random, row, odd.headers)


def sealed(batch: bytearray, attributes: int) -> bytes:
    batch[22] |= attributes
    batch[17:21] = crc32c(bytes(batch[21:])).to_bytes(4, "big")
    return bytes(batch)


def answer(random: Random, begin: int, odd: Odd) -> tuple[bytes, list[tuple[int, int]], int]:
    """Batches as a broker sends them, what was aborted of them, and where the log goes on."""
    batches, aborted, at = list[bytes](), list[tuple[int, int]](), begin
    for _ in range(random.choice([1, 2, 5])):
        records = [record(random, row, odd) for row in range(random.choice([1, 2, 60, 130, 300]))]
        producer, codec = random.choice([-1, 7, 8]), random.choice(list(Compression))
        attributes = ATTRIBUTE_LOG_APPEND_TIME if random.random() < 0.1 else 0
        attributes |= ATTRIBUTE_TRANSACTIONAL if producer >= 0 else 0
        batches.append(
            sealed(encode_batch(records, base_offset=at, compression=codec, producer_id=producer), attributes)
        )
        if producer >= 0 and random.random() < 0.3:
            aborted.append((producer, at))
        at += len(records) + random.choice([0, 0, 5])
        if producer >= 0 and random.random() < 0.7:
            kind = b"\0\0\0" + bytes([producer not in [one for one, _ in aborted]])
            marker = encode_batch([(5, kind, bytes(6), b"\0")], base_offset=at, producer_id=producer)
            batches.append(sealed(marker, ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL))
            at += 1
    cut = batches[0][: random.choice([0, 7, 60])]
    return b"".join([*batches, cut]), aborted, at


def test_the_same_columns_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiled decoder looks into headers too, of some batches.
    one = general.decode_batch
    monkeypatch.setattr("gateway.consume.batches.decode_batch", lambda view: one(view, accelerate=False))
    assert sum(compared(Random(seed)) for seed in range(16)) >= 6, "hardly anything was read at once"


def compared(random: Random) -> int:
    """How many blocks of a few answers, all of which are compared, were read at once."""
    odd = Odd(*(random.choice(shares) for shares in ((0, 0.01, 0.5), (0, 0.02, 0.3), (0, 0.01, 0.2), (0, 0, 0.01))))
    lanes, keys, at, at_once = (Lanes(), Lanes()), (KeyTable(), KeyTable()), random.choice([0, 10**12]), 0
    for _ in range(3):
        begin = at + random.choice([0, 0, 1, 40, 150])
        data, aborted, at = answer(random, at, odd)
        records_max = random.choice([None, None, 100, 500])
        answers = [Fetched(begin, data, aborted) for _ in range(2)]
        while not answers[0].done:
            objects, pieces = (
                fetched.take(no_records("r", 0, begin), records_max, decode=decode)
                for fetched, decode in zip(answers, (one_by_one, decode_batches), strict=True)
            )
            assert [list(column) for column in pieces[2:7]] == [list(column) for column in objects[2:7]]
            assert pieces.next_offset == objects.next_offset
            at_once += isinstance(pieces.values, Pieces)
            found = [
                told(to_columns(block, keys[which], lanes[which], ASKED, None, ASKED), lanes[which], keys[which])
                for which, block in enumerate((objects, pieces))
            ]
            assert found[1] == found[0]
        assert answers[1].done
    return at_once
