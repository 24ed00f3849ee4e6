"""The Modbus core without a wire: requests, framings with the specification's bytes, and who is asked when."""

from __future__ import annotations

from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.checksums import crc16_modbus
from devices.decoders.modbus import Block, Span, encode_blocks, split_blocks
from devices.reading import Undecodable
from gateway.ingest.modbus.framing import HELD_MAX_BYTES, LostFraming, RtuFraming, TcpFraming
from gateway.ingest.modbus.pdu import FUNCTIONS, Request, requests, smaller
from gateway.ingest.modbus.poller import Poll, Poller, Timing, Unit

HOLDING = [Span("holding", 107, 1), Span("holding", 108, 2)]
ASK = Request("holding", 107, 3, tuple(HOLDING))


def rtu(unit: int, pdu: bytes) -> bytes:
    frame = bytes((unit,)) + pdu
    return frame + pack("<H", crc16_modbus(frame))


# --- what to ask


def test_neighbours_are_read_together_and_gaps_up_to_the_allowance() -> None:
    spans = [Span("holding", at, 2) for at in (0, 2, 6, 20)] + [Span("coil", 5, 1), Span("coil", 100, 1)]
    found = requests(spans, registers_max=125, gap_max=4)
    assert [(one.table, one.address, one.size) for one in found] == [
        ("coil", 5, 1),
        ("coil", 100, 1),
        ("holding", 0, 8),
        ("holding", 20, 2),
    ]
    assert [one.size for one in requests(spans, registers_max=125, gap_max=12)] == [96, 22]


def test_a_request_has_at_most_what_the_specification_allows() -> None:
    wide = [Span("input", at, 1) for at in range(300)] + [Span("discrete", at, 1) for at in range(2_500)]
    assert [one.size for one in requests(wide, registers_max=125, gap_max=8)] == [2_000, 500, 125, 125, 50]
    assert [one.size for one in requests(wide[:300], registers_max=64, gap_max=8)] == [64, 64, 64, 64, 44]
    assert [one.size for one in requests([Span("holding", 0, 100)], registers_max=64, gap_max=8)] == [100]


@given(
    st.lists(st.tuples(st.sampled_from(list(FUNCTIONS)), st.integers(0, 60_000), st.integers(1, 125)), max_size=60),
    st.integers(0, 124),
)
def test_every_span_is_in_exactly_one_request(wanted: list[tuple[str, int, int]], gap_max: int) -> None:
    spans = [Span(table, at, 1 if table in ("coil", "discrete") else size) for table, at, size in wanted]
    found = requests(spans, registers_max=125, gap_max=gap_max)
    assert sorted(span for one in found for span in one.spans) == sorted(set(spans))
    for one in found:
        assert one.size <= (2_000 if one.table in ("coil", "discrete") else 125)
        assert all(one.address <= s.address and s.address + s.size <= one.address + one.size for s in one.spans)
        parts = smaller(one)
        assert [span for part in parts for span in part.spans] == (list(one.spans) if len(one.spans) > 1 else [])


# --- framings


def test_the_specifications_examples() -> None:
    # Application Protocol 1.1b3, section 6.3: registers 108 to 110; the CRC of Serial Line 1.02, appendix B
    assert ASK.pdu.hex() == "03006b0003"
    assert crc16_modbus(bytes.fromhex("0207")) == 0x1241
    framing = RtuFraming()
    assert framing.ask(17, ASK)[:6].hex() == "1103006b0003"
    assert framing.feed(rtu(17, bytes.fromhex("0306022b00000064"))) == bytes.fromhex("0306022b00000064")
    tcp = TcpFraming()
    assert tcp.ask(17, ASK).hex() == "00010000000611" + "03006b0003"
    assert tcp.feed(bytes.fromhex("000100000009110306022b00000064")) == bytes.fromhex("0306022b00000064")


ANSWER = bytes.fromhex("0306022b00000064")


@settings(max_examples=60)
@given(
    st.binary(max_size=40),
    st.sampled_from([b"", rtu(17, ASK.pdu), rtu(18, ANSWER), rtu(17, ANSWER)[:-1] + b"\0"]),
    st.lists(st.integers(1, 5), max_size=20),
)
def test_rtu_finds_its_answer_behind_garbage_however_it_is_cut(noise: bytes, more: bytes, cuts: list[int]) -> None:
    """Noise, the echo of the own request, another slave's answer, a broken one: all before the answer."""
    framing = RtuFraming()
    framing.ask(17, ASK)
    stream = noise + more + rtu(17, ANSWER)
    found = None
    while stream and found is None:
        size = cuts.pop() if cuts else 7
        found = framing.feed(stream[:size])
        stream = stream[size:]
    assert found == ANSWER


def test_rtu_holds_little_of_endless_noise_and_is_not_fooled_by_it() -> None:
    framing = RtuFraming()
    framing.ask(17, ASK)
    for _ in range(50):
        assert framing.feed(bytes([17, 3, 6, 0x22, 9] * 20)) is None
        assert framing.held_bytes <= HELD_MAX_BYTES
    assert framing.feed(rtu(17, ANSWER)) == ANSWER


def test_rtu_takes_an_exception_and_nothing_else_for_one() -> None:
    framing = RtuFraming()
    framing.ask(17, ASK)
    assert framing.feed(rtu(17, b"\x84\x02")) is None  # of another function
    assert framing.feed(rtu(17, b"\x83\x02")) == b"\x83\x02"


def test_tcp_passes_over_late_answers_and_those_of_other_units() -> None:
    framing = TcpFraming()
    first = framing.ask(17, ASK)
    framing.ask(17, ASK)
    late = first[:4] + b"\x00\x09\x11" + ANSWER
    other = b"\0\x02\0\0\x00\x09\x12" + ANSWER
    mine = b"\0\x02\0\0\x00\x09\x11" + ANSWER
    answers = [framing.feed(bytes([byte])) for byte in late + other + mine]
    assert [one for one in answers if one] == [ANSWER]
    assert framing.late_answers == 2


@pytest.mark.parametrize("data", [b"HTTP/1.1 400", b"\0\1\0\0\0\0\1\3", b"\0\1\0\0\1\0\1\3"])
def test_what_is_no_modbus_tcp_ends_the_connection(data: bytes) -> None:
    framing = TcpFraming()
    framing.ask(1, ASK)
    with pytest.raises(LostFraming, match="no Modbus TCP"):
        framing.feed(data)


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    rtu_framing, tcp_framing = RtuFraming(), TcpFraming()
    rtu_framing.ask(data[0] if data else 1, ASK)
    rtu_framing.feed(data)
    tcp_framing.ask(1, ASK)
    try:
        tcp_framing.feed(data)
    except LostFraming:
        return


# --- a poll as one message


@given(st.lists(st.tuples(st.sampled_from(list(FUNCTIONS)), st.integers(0, 65_000), st.integers(1, 20)), max_size=6))
def test_blocks_go_through_a_message_and_back(wanted: list[tuple[str, int, int]]) -> None:
    blocks = [Block(table, address, bytes(2 * size)) for table, address, size in wanted]
    assert split_blocks(encode_blocks(blocks)) == blocks


@given(st.binary(max_size=60))
def test_a_message_of_blocks_that_is_cut_or_garbled_is_undecodable(data: bytes) -> None:
    try:
        blocks = split_blocks(data)
    except Undecodable:
        return
    assert sum(len(block.data) + 5 for block in blocks) == len(data)


# --- who is asked when


class Bus:
    """Slaves that answer by a table, on a line in imaginary time."""

    def __init__(self, *units: Unit, turnaround_ms: float = 2.0, timeout_ms: float = 100.0) -> None:
        self.now_ms = 0.0
        timing = Timing(timeout_ms, turnaround_ms, byte_ms=0.0, backoff_max_ms=6_400.0)
        self.poller = Poller(units, RtuFraming(), timing)
        self.missing: dict[int, set[int]] = {}  # unit → addresses that it refuses
        self.silent: dict[int, set[int]] = {}  # unit → addresses to which it says nothing
        self.codes: dict[int, int] = {}  # unit → an exception to everything
        self.dead: set[int] = set()
        self.asked: list[tuple[float, int, int, int]] = []  # when, unit, address, size
        self.polls: list[tuple[float, Poll]] = []
        self.poller.opened(0.0)

    def run(self, until_ms: float, *, answer_ms: float = 5.0) -> None:
        while (next_ms := self.poller.next_ms) <= until_ms:
            self.now_ms = max(self.now_ms, next_ms)
            while data := self.poller.tick(self.now_ms):
                unit, address, size = data[0], data[2] << 8 | data[3], data[4] << 8 | data[5]
                self.asked.append((self.now_ms, unit, address, size))
                if (answer := self._answer(unit, data[1], address, size)) is not None:
                    self.now_ms += answer_ms
                    self.poller.feed(answer, self.now_ms)
            self.polls += [(self.now_ms, poll) for poll in self.poller.taken()]
        self.now_ms = until_ms

    def _answer(self, unit: int, function: int, address: int, size: int) -> bytes | None:
        wanted = set(range(address, address + size))
        if unit in self.dead or wanted & self.silent.get(unit, set()):
            return None
        if unit in self.codes:
            return rtu(unit, bytes((function | 0x80, self.codes[unit])))
        if wanted & self.missing.get(unit, set()):
            return rtu(unit, bytes((function | 0x80, 2)))
        count = (size + 7) // 8 if function < 3 else size * 2
        return rtu(unit, bytes((function, count)) + bytes(count))

    def of(self, unit: int) -> list[tuple[float, Poll]]:
        return [(when, poll) for when, poll in self.polls if poll.unit.number == unit]


def unit(number: int, *addresses: int, every_ms: float = 100.0, gap_max: int = 0) -> Unit:
    spans = {Span("holding", address, 1): 1 for address in addresses or (0,)}
    return Unit(number, spans, every_ms=every_ms, gap_max=gap_max, registers_max=125)


def test_each_unit_is_asked_at_its_own_interval() -> None:
    bus = Bus(unit(1, every_ms=100), unit(2, every_ms=1_000), unit(3, every_ms=250))
    bus.run(10_000)
    assert [len(bus.of(number)) for number in (1, 2, 3)] == [101, 10, 40]
    times = [round(when) for when, number, _, _ in bus.asked if number == 2]
    assert all(abs(time - 1_000 * turn) < 25 for turn, time in enumerate(times))  # on its grid, no drift


def fast_and_slow() -> Unit:
    spans = {Span("holding", 0, 1): 1, Span("holding", 50, 1): 10, Span("holding", 90, 1): 25}
    return Unit(1, spans, every_ms=100.0, gap_max=0, registers_max=125)


def asked_of(bus: Bus, address: int) -> list[int]:
    """At which polls a register was asked for."""
    return [int(when / 100) for when, _, at, _ in bus.asked if at == address]


def test_a_register_that_changes_slowly_is_asked_for_at_some_polls_only() -> None:
    bus = Bus(fast_and_slow())
    bus.run(10_050)
    assert len(asked_of(bus, 0)) == 101
    assert asked_of(bus, 50) == list(range(0, 101, 10))
    assert asked_of(bus, 90) == [0, 25, 50, 75, 100]
    assert [len(poll.blocks) for _, poll in bus.of(1)[:11]] == [3, *[1] * 9, 2]


def test_a_slow_register_that_was_not_answered_for_is_asked_for_at_the_next_poll() -> None:
    bus = Bus(fast_and_slow())
    bus.dead = {1}
    bus.run(150)
    bus.dead = set()
    bus.run(2_000)
    assert [len(poll.blocks) for _, poll in bus.of(1) if poll.blocks][:3] == [3, 1, 1]


def test_a_unit_that_refuses_all_its_fast_registers_is_asked_for_the_slow_ones() -> None:
    bus = Bus(fast_and_slow())
    bus.missing = {1: {0}}
    bus.run(2_000)
    assert all(poll.blocks for _, poll in bus.of(1))
    assert "holding 0 to 0" in bus.of(1)[-1][1].problem


def test_requests_keep_the_turnaround() -> None:
    bus = Bus(unit(1, 0, 50), unit(2), turnaround_ms=7.0)
    bus.run(500)
    starts = [when for when, *_ in bus.asked]
    assert len(starts) >= 15
    assert all(later - before >= 5 + 7 for before, later in pairwise(starts))


def test_a_dead_unit_costs_one_timeout_per_backoff_which_doubles() -> None:
    bus = Bus(unit(1), unit(2), unit(3))
    bus.dead = {2}
    bus.run(30_000)
    tries = [when for when, number, *_ in bus.asked if number == 2]
    gaps = [round(later - before, -2) for before, later in pairwise(tries)]
    assert gaps[:7] == [200, 300, 500, 900, 1_700, 3_300, 6_500]  # the time-out and 100, 200, 400… ms
    assert set(gaps[7:]) <= {6_500}
    # the others miss only what is due during a time-out
    assert len(bus.of(1)) >= 300 - 2 * len(tries)
    assert len(bus.of(3)) >= 300 - 2 * len(tries)
    assert bus.of(1)[0][1].unit.skipped <= 2 * len(tries)
    assert bus.of(2)[0][1].problem == ""  # once is noise
    assert "no answer within 100 ms, to holding 0 to 0; so 2 times in a row" in bus.of(2)[1][1].problem
    bus.dead = set()
    bus.run(45_000)
    assert bus.of(2)[-1][1].problem == ""
    assert bus.of(2)[-1][1].blocks
    assert round(bus.of(2)[-1][0] - bus.of(2)[-2][0]) == 100


def test_a_bus_that_is_too_slow_for_its_polls_serves_all_in_turn_and_counts() -> None:
    bus = Bus(*(unit(number, every_ms=10) for number in range(1, 6)))
    bus.run(10_000, answer_ms=8)
    polls = [len(bus.of(number)) for number in range(1, 6)]
    assert max(polls) - min(polls) <= 1
    assert all(bus.of(number)[-1][1].unit.skipped > 500 for number in range(1, 6))


def test_an_illegal_address_is_found_and_left_out_and_tried_again_later() -> None:
    bus = Bus(unit(1, *range(40), gap_max=8))
    bus.missing = {1: {13}}
    bus.run(350)
    [first, second] = [poll for _, poll in bus.of(1)[:2]]
    read = {block.address + at for block in first.blocks for at in range(len(block.data) // 2)}
    assert read == set(range(40)) - {13}
    assert first.problem == "it refuses holding 13 to 13: exception 2, illegal data address"
    assert sum(first.unit.exceptions.values()) == 7  # to 40 registers, 20, 10, 5, 3, 2, and to it alone
    assert [(block.address, len(block.data) // 2) for block in second.blocks] == [(0, 13), (14, 26)]
    bus.missing = {}
    bus.run(601_000)
    last = bus.of(1)[-1][1]
    assert last.problem == ""
    assert len(last.blocks) == 1


def test_a_gap_that_may_not_be_read_costs_one_exception() -> None:
    bus = Bus(unit(1, 0, 1, 5, 6, gap_max=8))
    bus.missing = {1: {3}}
    bus.run(250)
    assert [(block.address, len(block.data) // 2) for block in bus.of(1)[0][1].blocks] == [(0, 2), (5, 2)]
    assert bus.of(1)[-1][1].unit.exceptions == {"exception 2, illegal data address": 1}
    assert bus.of(1)[-1][1].problem == ""


def test_a_request_that_is_never_answered_is_left_out_while_the_others_are() -> None:
    """Some devices say nothing where the specification wants an exception."""
    bus = Bus(unit(1, 0, 100, 200))
    bus.silent = {1: {100}}
    bus.run(5_000)
    last = bus.of(1)[-1][1]
    assert [block.address for block in last.blocks] == [0, 200]
    assert "it refuses holding 100 to 100: no answer" in last.problem
    assert last.unit.timeouts <= 5
    assert last.unit.misses == 0


@pytest.mark.parametrize(("code", "named"), [(6, "device busy"), (11, "behind the gateway"), (4, "device failure")])
def test_exceptions_are_named_and_back_off(code: int, named: str) -> None:
    bus = Bus(unit(1), unit(2))
    bus.codes = {1: code}
    bus.run(5_000)
    assert named in bus.of(1)[-1][1].problem
    assert len(bus.of(1)) < 10
    assert len(bus.of(2)) >= 50


def test_a_table_that_a_unit_does_not_have_is_asked_for_once() -> None:
    bus = Bus(unit(1, *range(20)))
    bus.codes = {1: 1}
    bus.run(2_000)
    assert len(bus.asked) == 1
    assert "illegal function" in bus.of(1)[-1][1].problem


def test_noise_is_waited_for_and_no_longer_than_a_timeout() -> None:
    bus = Bus(unit(1), turnaround_ms=5.0)
    bus.run(150)
    bus.poller.feed(b"\x07", 150.0)
    noise_ms = 150.0
    while not (data := bus.poller.tick(noise_ms)):
        noise_ms += 3.0
        bus.poller.feed(b"\x55\xaa", noise_ms)
        assert noise_ms < 400
    assert data
    assert noise_ms >= 200  # it was due at 200; the noise went on


def test_a_line_that_is_opened_anew_begins_anew_and_a_silent_one_does_not_forgive() -> None:
    bus = Bus(unit(1))
    bus.dead = {1}
    bus.run(5_000)
    backoff_ms = bus.of(1)[-1][1].unit.backoff_ms
    assert backoff_ms > 1_000
    bus.poller.lost()
    assert bus.poller.next_ms == float("inf")
    bus.poller.opened(5_000.0, forgive=False)
    assert bus.of(1)[-1][1].unit.backoff_ms == backoff_ms
    bus.poller.lost()
    bus.poller.opened(5_000.0)
    assert bus.of(1)[-1][1].unit.backoff_ms == 0
    assert bus.poller.next_ms < 5_100


def test_a_paused_poller_ends_what_it_began_and_begins_nothing() -> None:
    bus = Bus(unit(1, 0, 50))
    assert bus.poller.tick(2.0)
    bus.poller.paused = True
    bus.poller.feed(rtu(1, b"\x03\x02\0\0"), 4.0)
    bus.run(1_000)
    assert len(bus.polls) == 1
    assert len(bus.polls[0][1].blocks) == 2
