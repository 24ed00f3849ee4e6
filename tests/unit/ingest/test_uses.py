"""Header `hw-m`: one message, many together, and what is none of ours."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.uses import Uses, hw_m, hw_m_sections, message_crc, read_hw_m
from gateway.log.records import NO_HEADERS, decode_headers, encode_headers

PACKET_ID, CRC = st.integers(1, 65_535), st.integers(0, (1 << 32) - 1)


def uses(pairs: list[tuple[int, int]], client: str = "c") -> Uses:
    ids, crcs = zip(*pairs, strict=True)
    return Uses(client.encode(), struct.pack(f">{len(ids)}H", *ids), struct.pack(f">{len(crcs)}I", *crcs))


def read(section: bytes) -> tuple[list[tuple[int, int]], str] | None:
    [(name, value)] = decode_headers(section)
    assert name == "hw-m"
    assert value is not None
    return read_hw_m(value)


def test_one_message() -> None:
    crc = message_crc(b"a/b", b"21.5")
    assert crc == zlib.crc32(b"a/b\x0021.5")
    value = hw_m(7, crc, "pümp:1".encode())
    assert value == b"7:%08x:p\xc3\xbcmp:1" % crc
    assert read_hw_m(value) == ([(7, crc)], "pümp:1")
    for client in (b"c", b"c" * 40, b"c%d%" * 20, b"c" * 300, b"%" * 4_700):
        for ids in ([7, 8], [9, 10, 65_535]):
            wanted = [encode_headers([("hw-m", hw_m(packet_id, crc, client))]) for packet_id in ids]
            assert hw_m_sections(ids, [crc] * len(ids), client) == wanted


def test_many_together() -> None:
    together = uses([(7, 0x21D0EA2E), (300, 1)], "a:b").together()
    assert together == encode_headers([("hw-m", b"*0007012c:21d0ea2e00000001:a:b")])
    assert read(together) == ([(7, 0x21D0EA2E), (300, 1)], "a:b")
    assert uses([(7, 0x21D0EA2E)]).together() == encode_headers([("hw-m", b"7:21d0ea2e:c")])


def test_messages_of_qos_0_among_them_are_nobodys() -> None:
    mixed = uses([(0, 5), (7, 6), (0, 7), (8, 8)])
    assert read(mixed.together()) == ([(7, 6), (8, 8)], "c")
    assert mixed.each() == [NO_HEADERS, *hw_m_sections([7], [6], b"c"), NO_HEADERS, *hw_m_sections([8], [8], b"c")]
    assert uses([(0, 5), (0, 6)]).together() == NO_HEADERS
    assert mixed.part(1, 3) == uses([(7, 6), (0, 7)])
    assert mixed.of([3, 1]) == uses([(8, 8), (7, 6)])


@given(st.lists(st.tuples(PACKET_ID, CRC), min_size=1, max_size=600), st.text(max_size=40))
def test_what_is_written_is_read(pairs: list[tuple[int, int]], client: str) -> None:
    made = uses(pairs, client)
    assert read(made.together()) == (pairs, client)
    assert [read(section) for section in made.each()] == [([pair], client) for pair in pairs]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"x:y:z", id="no number"),
        pytest.param(b"65536:00000000:a", id="no identifier is so large"),
        pytest.param(b"9" * 5_000 + b":00000000:a", id="digits without end"),
        pytest.param(b"1:" + b"f" * 20 + b":a", id="a long CRC"),
        pytest.param(b"-1:00000000:a", id="negative"),
        pytest.param(b"1:0", id="cut short"),
        pytest.param(b"*00070008:21d0ea2e:a", id="fewer CRCs than identifiers"),
        pytest.param(b"*0007:21d0ea2e21d0ea2e:a", id="more CRCs than identifiers"),
        pytest.param(b"*007:21d0ea2e:a", id="half an identifier"),
        pytest.param(b"*:21d0ea2e:a", id="nobody"),
        pytest.param(b"*0007:21d0ea2e:\xff", id="no client id"),
    ],
)
def test_a_header_of_somebody_else_is_none_of_ours(value: bytes) -> None:
    assert read_hw_m(value) is None
