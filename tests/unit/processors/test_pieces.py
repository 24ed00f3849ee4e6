"""Records that stay where they came are read as those that are objects each."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import pytest

from gateway.consume.batches import Block
from gateway.log.headers import encode_headers
from gateway.log.records import encode_batch
from processors import key_index
from processors.batches import decode_batches
from processors.columns import Columns, KeyTable, Lanes, to_columns
from processors.lanes import _LOOKS_MAX
from processors.pieces import Pieces

ODD = (
    *(b"{}", b" { } ", b"[1]", b"", b"x", b"\xff", b'{"x":1', b'{"x":1}}', b'{"x":1}\n', b'{"x":1}\n{"x":2}'),
    *(b'{"x":1e3}', b'{"x":01}', b'{"x":1.}', b'{"x":.5}', b'{"x":-}', b'{"x":+1}', b'{"x":1.2.3}', b'{"x":1,}'),
    *(
        b'{"x":-0}',
        b'{"x":-0.0}',
        b'{"x":0.0}',
        b'{"x":00.5}',
        b'{"x":-00}',
        b'{"x": 7 }',
        b'{ "x" : 7 , "y" : -8.25 }',
    ),
    *(
        b'{"x":true}',
        b'{"x":null}',
        b'{"x":"7"}',
        b'{"x":"b","y":"a"}',
        b'{"x":[7]}',
        b'{"x":{"y":7}}',
        b'{"x":1,"x":2}',
        b'{"a\\"b":1}',
    ),
    *(b'{"x":123456789012345}', b'{"x":1234567890123456}', b'{"x":9007199254740993}', b'{"x":' + b"9" * 400 + b"}"),
    *(
        b'{"x":0.000000000000001}',
        b'{"x":0.00000000000000123}',
        b'{"x":12345678.1234567}',
        b'{"\xc3\xa4":1.5}',
        b'{"\xff":1}',
    ),
)
ASKED = frozenset({"x", "longer_name_1", "y"})


def both(records: list[tuple[int, bytes, bytes, bytes]]) -> tuple[Block, Block]:
    """The same records as objects and in their place."""
    found = decode_batches([bytes(encode_batch(records))])
    assert isinstance(found.values, Pieces)
    times, keys, values, headers = map(list, zip(*records, strict=True))
    end = len(records)
    return Block("r", 0, list(range(end)), times, keys, values, headers, end), Block("r", 0, *found, end)


def told(columns: Columns, lanes: Lanes, keys: KeyTable) -> dict[str, Any]:
    """In bits: -0 is not 0."""
    count, fields = len(columns), dict[str, Any]()
    for name, column in [*columns.fields.items(), *((f"{name}!", one) for name, one in columns.of_rule(ASKED).items())]:
        rows = list(range(count)) if column.rows is None else column.rows.tolist()
        fields[name] = (rows, column.values.view(np.int64).tolist(), list(column.texts))
    texts = {name: column.tolist() for name, column in columns.texts.items()}
    of_all = [columns.key.tolist(), columns.time.tolist(), columns.backfill.tolist(), columns.marks, columns.refused]
    return {"fields": fields, "texts": texts, "all": of_all, "lanes": list(lanes.highest.items()), "keys": keys.names}


def compare(blocks: list[list[tuple[int, bytes, bytes, bytes]]]) -> None:
    lanes, keys = (Lanes(), Lanes()), (KeyTable(), KeyTable())
    for records in blocks:
        objects, pieces = both(records)
        found = [
            to_columns(one, keys[which], lanes[which], ASKED, None, ASKED)
            for which, one in enumerate((objects, pieces))
        ]
        assert told(found[1], lanes[1], keys[1]) == told(found[0], lanes[0], keys[0])
        assert keys[1].nodes_of.tolist() == keys[1].node_of


def value(random: Random, odd: float) -> bytes:
    if random.random() < odd:
        return random.choice(ODD)
    if random.random() < 0.3:
        return b'{"x":%d,"longer_name_%d":%.*f}' % (
            random.randrange(-(10**6), 10**6),
            random.randrange(3),
            random.randrange(1, 8),
            random.gauss(0, 10 ** random.randrange(-4, 7)),
        )
    number = random.gauss(50, 10.0 ** random.randrange(-3, 6))
    return json.dumps({"x": round(number, random.randrange(9))}, separators=(",", ":")).encode()


@pytest.mark.parametrize("odd", [0.0, 0.02, 0.5])
def test_values_are_the_same_to_the_last_bit(odd: float) -> None:
    random = Random(round(odd * 100))
    for _ in range(12):
        compare([[(1_000 + row, b"n/d", value(random, odd), b"\x00") for row in range(300)]])


@pytest.mark.parametrize("text", ODD)
def test_each_odd_value_among_ordinary_ones(text: bytes) -> None:
    ordinary = [(1_000, b"n/d", b'{"x":1.5}', b"\x00")] * 60
    compare([[*ordinary, (1_001, b"n/d", text, b"\x00"), *ordinary]])
    compare([[(1_001, b"n/d", text, b"\x00")] * 2 + ordinary * 2])


def test_decimal_texts_are_the_doubles_that_they_mean() -> None:
    random = Random(7)
    texts = [f"{random.randrange(10**17)}"[: random.randrange(1, 18)] for _ in range(3_000)]
    texts = [f"{text[: (at := random.randrange(len(text) + 1))] or 0}.{text[at:] or 0}" for text in texts]
    texts = [str(int(text.partition(".")[0])) + "." + text.partition(".")[2] for text in texts]
    _, pieces = both([(1, b"n/d", b'{"x":%b}' % text.encode(), b"\x00") for text in texts])
    columns = to_columns(pieces, KeyTable(), Lanes())
    assert columns.fields["x"].values.tolist() == [float(text) for text in texts]


def headers(random: Random, row: int, logs: int, odd: float) -> bytes:
    log = b"n%d/0/%d" % (random.randrange(logs), 0)
    place = b"%b/%d" % (log, max(0, row - random.choice([0, 0, 0, 7])))
    if random.random() < odd:
        some: list[list[tuple[str, bytes | None]]] = [
            [],
            [("hw", b"n/1/0/007")],
            [("hw", b"n/1/0/x")],
            [("hw", b"7")],
            [("hw", None)],
            [("hw", b"n/1/0/" + b"7" * random.randrange(14, 19))],
            [("hw", place), ("hw-mark", b'{"node":"n","live":5}')],
            [("hw-q", b"bad"), ("hw", place)],
            [("hw", b"n" * 70 + b"/1/0/5")],
        ]
        malformed = [b"\x02\x04hw" + bytes([size]) + place for size in (3, 12, 0x7F, 0x80, 0xFF)]
        return random.choice([*map(encode_headers, some), *malformed])
    return encode_headers([("hw", place)])


@pytest.mark.parametrize(("logs", "odd"), [(1, 0.0), (1, 0.02), (3, 0.05), (6, 0.6), (40, 0.1)])
def test_places_of_copies_are_the_same(logs: int, odd: float) -> None:
    random = Random(logs)
    row, blocks = 0, []
    for _ in range(6):
        block = []
        for _ in range(250):
            block.append((1_000 + row, b"n/d%d" % (row % 3), b'{"x":1}', headers(random, row, logs, odd)))
            row += 1
        blocks.append(block)
    compare(blocks)


def test_what_a_header_says_does_not_depend_on_those_before_it() -> None:
    """More kinds of headers than are looked for at once, then one whose length is another than it says."""
    plain = [(1_000, b"n/d", b'{"x":1}', b"\x00")] * (_LOOKS_MAX - 1)
    usual = [(1_000, b"n/d", b'{"x":1}', encode_headers([("hw", b"n0/0/0/%d" % row)])) for row in range(150)]
    lying = [(1_000, b"n/d", b'{"x":1}', b"\x02\x04hw\x03n7/0/0/%d" % row) for row in (5, 7, 6)]
    compare([[*plain, *usual, *lying], [*lying, *usual]])


KEYS = [b"n/d%d" % number for number in range(200)] + [b"n%d/" % number + b"x" * number for number in range(1, 90)]
STRANGE = [b"", b"n", b"/d", b"n/", b"\xff/\xff", b"n/d1\0", b"\0\0\0\0\0\0\0\0/x", "n/größe".encode()]


@pytest.mark.parametrize("same_hash", [False, True])
def test_keys_have_the_same_numbers(same_hash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if same_hash:
        hashed = key_index._hashed
        monkeypatch.setattr(key_index, "_hashed", lambda keys: (hashed(keys)[0], hashed(keys)[1] * 0 + 1))
    random = Random(3)
    for _ in range(3):
        chosen = [random.choices(KEYS[: 40 * turn + 10] + STRANGE, k=200) for turn in range(1, 8)]
        compare([[(1_000, key, b'{"x":1}', b"\x00") for key in keys] for keys in chosen])
