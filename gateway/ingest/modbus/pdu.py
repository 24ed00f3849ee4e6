"""Modbus requests and answers without their framing (Modbus Application Protocol 1.1b3). Sans-IO.

Only what reads: function codes 1 to 4. A gateway that wrote to devices would be another product.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import NamedTuple

from devices.decoders.modbus import Span

FUNCTIONS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
BIT_TABLES = ("coil", "discrete")
BITS_A_REGISTER = 16
BITS_MAX = 2_000  # of one request (sections 6.1, 6.2)

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE, ACKNOWLEDGE, BUSY = 1, 2, 3, 4, 5, 6
NO_PATH, NO_TARGET = 10, 11
EXCEPTIONS = {
    ILLEGAL_FUNCTION: "illegal function",
    ILLEGAL_ADDRESS: "illegal data address",
    ILLEGAL_VALUE: "illegal data value",
    DEVICE_FAILURE: "device failure",
    ACKNOWLEDGE: "acknowledge: it needs longer",
    BUSY: "device busy",
    8: "memory parity error",
    NO_PATH: "gateway path unavailable",
    NO_TARGET: "the device behind the gateway does not answer",
}


class Request(NamedTuple):
    """What one request reads: `size` registers or bits from `address`; `spans` are the fields in it, each once."""

    table: str
    address: int
    size: int
    spans: tuple[Span, ...]

    @property
    def pdu(self) -> bytes:
        return pack(">BHH", FUNCTIONS[self.table], self.address, self.size)

    @property
    def data_bytes(self) -> int:
        """How many bytes of data the answer has."""
        return (self.size + 7) // 8 if self.table in BIT_TABLES else self.size * 2

    def __str__(self) -> str:
        return f"{self.table} {self.address} to {self.address + self.size - 1}"


def exception_name(code: int) -> str:
    """The exception as the specification calls it (section 7)."""
    return f"exception {code}, {EXCEPTIONS.get(code, 'of the device’s own')}"


def requests(spans: Sequence[Span], *, registers_max: int, gap_max: int) -> list[Request]:
    """The fewest requests that read all `spans`, in the order of tables and addresses.

    Neighbours are read together, and what lies between them too while it is at most `gap_max` registers (of coils and
    inputs: 16 times as many bits). A span is never cut, so one that is longer than `registers_max` stands alone.
    """
    found: list[Request] = []
    for table in FUNCTIONS:
        factor = BITS_A_REGISTER if table in BIT_TABLES else 1
        size_max = min(BITS_MAX, registers_max * factor)
        current: list[Span] = []
        end = 0
        for span in sorted({span for span in spans if span.table == table}):
            new_end = max(end, span.address + span.size)
            fits = current and span.address <= end + gap_max * factor and new_end - current[0].address <= size_max
            if not fits:
                if current:
                    found.append(_request(current))
                current, new_end = [], span.address + span.size
            current.append(span)
            end = new_end
        if current:
            found.append(_request(current))
    return found


def smaller(request: Request) -> list[Request]:
    """The same fields in smaller requests: without the gaps, else in two halves; [] when it is one field already."""
    without_gaps = requests(request.spans, registers_max=request.size, gap_max=0)
    if len(without_gaps) > 1:
        return without_gaps
    half = len(request.spans) // 2
    return [_request(request.spans[:half]), _request(request.spans[half:])] if half else []


def _request(spans: Sequence[Span]) -> Request:
    start = spans[0].address
    end = max(span.address + span.size for span in spans)
    return Request(spans[0].table, start, end - start, tuple(spans))
