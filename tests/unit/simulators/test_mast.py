from __future__ import annotations

import os
from pathlib import Path

import pytest
import serial

from simulators.mast import MastSignal, sentence
from simulators.serial_line import UNREAD_BYTES_MAX, SerialLine


def checksum_is_right(line: bytes) -> bool:
    body, star, digits = line.removesuffix(b"\r\n").removeprefix(b"$").partition(b"*")
    value = 0
    for byte in body:
        value ^= byte
    return bool(star) and int(digits, 16) == value


def test_the_checksum_is_the_one_of_published_sentences() -> None:
    # Examples of NMEA 0183 traffic as published with gpsd's and OpenCPN's documentation.
    assert sentence("GPGLL,4916.45,N,12311.12,W,225444,A,") == b"$GPGLL,4916.45,N,12311.12,W,225444,A,*1D\r\n"
    assert sentence("WIMWV,214.8,R,0.1,K,A") == b"$WIMWV,214.8,R,0.1,K,A*28\r\n"


def test_a_second_holds_four_winds_and_one_weather() -> None:
    signal = MastSignal(1)
    lines = [signal.next(200.0 * step) for step in range(10)]
    assert [line[:6] for line in lines] == ([b"$WIMWV"] * 4 + [b"$WIXDR"]) * 2
    assert all(checksum_is_right(line) for line in lines)
    assert all(len(line) <= 82 for line in lines), "NMEA 0183 allows 82 characters"
    angle, reference, speed, unit, status = lines[0].partition(b"*")[0].split(b",")[1:]
    assert 0.0 <= float(angle) < 360.0
    assert (reference, unit, status) == (b"T", b"M", b"A")
    assert 0.0 <= float(speed) < 30.0


@pytest.fixture
def line(tmp_path: Path) -> SerialLine:
    return SerialLine(str(tmp_path / "mast"))


def test_a_gateway_reads_the_line_by_its_link_and_again_after_its_death(line: SerialLine) -> None:
    for _ in range(2):
        with serial.Serial(line.link, 4800, timeout=5) as port:
            assert line.write(sentence("WIMWV,001.0,T,7.0,M,A"))
            assert port.readline() == sentence("WIMWV,001.0,T,7.0,M,A")
    line.close()
    assert not os.path.lexists(line.link)


def test_what_nobody_reads_is_lost_in_whole_sentences(line: SerialLine) -> None:
    said = [sentence(f"WIMWV,{step:05.1f},T,7.00,M,A") for step in range(60)]
    heard = []
    for text in said:
        before = line.unread_bytes()
        heard.append(line.write(text))
        while line.unread_bytes() == before:  # the kernel hands it over a moment later
            pass
    assert not all(heard)
    assert line.unread_bytes() <= UNREAD_BYTES_MAX + 82
    handle = os.open(line.link, os.O_RDONLY | os.O_NOCTTY)
    rest = os.read(handle, 65536)
    os.close(handle)
    assert rest == b"".join(said)[-len(rest) :]
    assert rest.startswith(b"$WIMWV")
    line.close()
