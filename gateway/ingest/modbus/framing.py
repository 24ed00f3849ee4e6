"""Where a Modbus answer begins and ends: RTU on a serial line, and Modbus TCP. Sans-IO, bounded.

Both are told what was asked, and give the one answer to that; everything else is passed over: noise, the echo of the
own request on a two-wire line, answers that come after their time.
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import Protocol

from devices.checksums import crc16_modbus
from gateway.ingest.modbus.pdu import Request

HELD_MAX_BYTES = 512  # the longest frame has 256; an echo and some noise may stand before it
_PROTOCOL_MAX_BYTES = 254  # of unit identifier and PDU (Messaging on TCP/IP 1.0b, section 3.1.3)
FUNCTION_ERROR = 0x80


class Framing(Protocol):
    """One bus's framing; one request is under way at a time."""

    garbage_bytes: int
    late_answers: int

    def ask(self, unit: int, request: Request) -> bytes:
        """The request as it goes over the wire; what was held of an earlier answer is dropped."""

    def feed(self, data: bytes) -> bytes | None:
        """Take what was read, however it was cut; the PDU that answers the request, once it is whole.

        Raises `LostFraming` when nothing that follows can be read any more.
        """

    def answer_bytes(self, request: Request) -> int:
        """How long the answer is on the wire."""

    @property
    def held_bytes(self) -> int: ...
    def reset(self) -> None: ...


class LostFraming(Exception):  # noqa: N818 - it says what happened
    """The stream says what no Modbus TCP server says; it must be opened anew."""


class RtuFraming:
    """Modbus over Serial Line 1.02, section 2.5.1: unit, PDU, CRC-16.

    The standard parts frames by silence, which no program behind a USB adapter can hear. What was asked tells how long
    the answer is, and the CRC whether it is one.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._unit = 0
        self._function = 0
        self._data_bytes = 0
        self.garbage_bytes = 0
        self.late_answers = 0  # on a serial line none can be told from noise

    def ask(self, unit: int, request: Request) -> bytes:
        self.reset()
        pdu = request.pdu
        self._unit, self._function, self._data_bytes = unit, pdu[0], request.data_bytes
        frame = bytes((unit,)) + pdu
        return frame + pack("<H", crc16_modbus(frame))

    def feed(self, data: bytes) -> bytes | None:
        held = self._held
        held += data
        at = held.find(self._unit)
        while 0 <= at <= len(held) - 5:  # an exception is the shortest answer
            size = self._size_at(at)
            if size and at + size <= len(held) and not crc16_modbus(held[at : at + size]):
                pdu = bytes(held[at + 1 : at + size - 2])
                self.garbage_bytes += len(held) - size
                held.clear()
                return pdu
            at = held.find(self._unit, at + 1)
        if (over := len(held) - HELD_MAX_BYTES) > 0:
            self.garbage_bytes += over
            del held[:over]
        return None

    def _size_at(self, at: int) -> int:
        """How long the answer is if it begins here; 0 when none does."""
        function = self._held[at + 1]
        if function == self._function | FUNCTION_ERROR:
            return 5
        return self._data_bytes + 5 if function == self._function and self._held[at + 2] == self._data_bytes else 0

    def answer_bytes(self, request: Request) -> int:
        return request.data_bytes + 5

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def reset(self) -> None:
        self.garbage_bytes += len(self._held)
        self._held.clear()


class TcpFraming:
    """Modbus Messaging on TCP/IP 1.0b, section 3.1.3: transaction, protocol 0, length, unit, PDU."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._transaction = 0
        self._unit = 0
        self._function = 0
        self.garbage_bytes = 0
        self.late_answers = 0

    def ask(self, unit: int, request: Request) -> bytes:
        pdu = request.pdu
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._unit, self._function = unit, pdu[0]
        return pack(">HHHB", self._transaction, 0, len(pdu) + 1, unit) + pdu

    def feed(self, data: bytes) -> bytes | None:
        held = self._held
        held += data
        answer = None
        while len(held) >= 8:
            transaction, protocol, size, unit, function = unpack_from(">HHHBB", held)
            if protocol or not 2 <= size <= _PROTOCOL_MAX_BYTES:
                raise LostFraming(f"it sent {bytes(held[:8]).hex(' ')}, which is no Modbus TCP")
            if len(held) < size + 6:
                break
            is_mine = transaction == self._transaction and unit == self._unit
            if is_mine and function | FUNCTION_ERROR == self._function | FUNCTION_ERROR:
                answer = bytes(held[7 : size + 6])
            else:
                self.late_answers += 1
            del held[: size + 6]
        return answer

    def answer_bytes(self, request: Request) -> int:
        return request.data_bytes + 9

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def reset(self) -> None:
        """The connection is a new one."""
        self.garbage_bytes += len(self._held)
        self._held.clear()
