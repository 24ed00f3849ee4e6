"""Lines on a stream without a beginning: cut anywhere, garbled, too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.framing import Frame, LineFramer

SENTENCE = b"$WIMWV,231.5,T,7.41,M,A*11"


def nmea(frame_bytes_max: int = 82) -> LineFramer:
    return LineFramer(frame_bytes_max, starts=b"$!")


def data(frames: list[Frame]) -> list[bytes]:
    assert not [frame.problem for frame in frames if frame.problem]
    return [frame.data for frame in frames]


def test_lines_end_with_a_line_feed_and_may_have_a_carriage_return() -> None:
    assert data(LineFramer(20).feed(b"21.5\n22.0\r\n\r\n\n23")) == [b"21.5", b"22.0"]


def test_a_message_that_arrives_byte_by_byte_comes_out_once_it_ends() -> None:
    framer = nmea()
    got = [frame for byte in SENTENCE + b"\r" for frame in framer.feed(bytes([byte]))]
    assert got == []
    assert data(framer.feed(b"\n")) == [SENTENCE]


def test_joining_in_the_middle_of_a_sentence_is_no_problem() -> None:
    framer = nmea()
    assert data(framer.feed(b"1.5,T,7.41,M,A*11\r\n" + SENTENCE + b"\r\n")) == [SENTENCE]
    assert framer.skipped_bytes == len(b"1.5,T,7.41,M,A*11")


def test_a_sentence_that_lost_its_end_does_not_take_the_next_one_with_it() -> None:
    framer = nmea()
    framer.feed(SENTENCE + b"\r\n")
    lost = framer.feed(b"$WIMWV,23" + SENTENCE + b"\r\n")
    assert [frame.data for frame in lost] == [b"$WIMWV,23", SENTENCE]
    assert [bool(frame.problem) for frame in lost] == [True, False]


def test_noise_between_sentences_is_named_and_the_next_one_is_read() -> None:
    framer = nmea()
    framer.feed(SENTENCE + b"\r\n")
    frames = framer.feed(b"\xff\x00\xfe noise\r\n" + SENTENCE + b"\r\n")
    assert frames == [Frame(b"\xff\x00\xfe noise", "no message begins in this line"), Frame(SENTENCE)]


def test_a_line_without_end_is_cut_counted_and_got_over() -> None:
    framer = LineFramer(8)
    first = framer.feed(b"x" * 1000)
    assert [(frame.data, bool(frame.problem)) for frame in first] == [(b"x" * 8, True)]
    assert framer.feed(b"x" * 1000) == []
    assert data(framer.feed(b"xx\n12345678\r\n")) == [b"12345678"]
    assert framer.skipped_bytes == 2002 - 8


def test_the_limit_is_for_the_message_without_its_end() -> None:
    assert data(LineFramer(4).feed(b"1234\r\n1234\n")) == [b"1234", b"1234"]
    [frame] = LineFramer(4).feed(b"12345\n")
    assert (frame.data, bool(frame.problem)) == (b"1234", True)


def test_reset_forgets_what_was_begun() -> None:
    framer = nmea()
    framer.feed(SENTENCE + b"\r\n$WIMW")
    framer.reset()
    assert data(framer.feed(b"V,99\r\n" + SENTENCE + b"\r\n")) == [SENTENCE]


@given(st.binary(max_size=200).map(lambda noise: noise.replace(b"a", b"\r\n").replace(b"b", b"$")), st.data())
def test_how_the_stream_was_cut_makes_no_difference(stream: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    whole, pieces = nmea(20), nmea(20)
    got: list[Frame] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += pieces.feed(stream[begin:end])
    assert got == whole.feed(stream)
    assert pieces.skipped_bytes == whole.skipped_bytes


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_noise_that_ended_is_got_over(noise: list[bytes]) -> None:
    framer = nmea(40)
    for part in noise:
        framer.feed(part)
    framer.feed(b"\n")
    assert data(framer.feed(SENTENCE + b"\r\n")) == [SENTENCE]
