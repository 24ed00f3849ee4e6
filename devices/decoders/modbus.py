"""Modbus registers to Readings: what a poll answered, or a message that carries the bytes of registers.

A register is two bytes, the high one first (Modbus Application Protocol 1.1b3, section 4.2); how several make one
value, the protocol leaves open, so a field's `register` says it: address, encoding, order of the bytes. Coils and
discrete inputs are bits, the first in the lowest bit of the first byte (sections 6.1, 6.2).

`decode_group` takes each message for one block, beginning at the profile's `options.address` in `options.table`; with
`options.layout` = "blocks" a message says itself which blocks it holds, as a poll's answers are taken in. Fields that
no block covers are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

from devices.decoders.plans import PlanCache
from devices.options import ModbusOptions, read_options
from devices.profiles import FieldSpec, Profile, RegisterSpec
from devices.reading import Reading, Undecodable
from devices.shape import Shape

DECODER = "modbus"
_FORMS = {"uint": "HIQ", "int": "hiq", "float": " fd"}
_TABLES = ("coil", "discrete", "holding", "input")  # in the order of the function codes that read them, from 1
_BIT_TABLES = ("coil", "discrete")
_BLOCK = Struct(">BHH")


class Block(NamedTuple):
    """Registers, or bits, that stand side by side; `data` as it came over the wire."""

    table: str
    address: int
    data: bytes


class Span(NamedTuple):
    """What a field takes up: `size` registers, or bits, from `address`."""

    table: str
    address: int
    size: int


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, bytes of registers), in order: a reading, or why there is none."""
    plan = _plans.of(profile)
    results: list[list[Reading] | Undecodable] = []
    for topic, payload in messages:
        try:
            if not payload:
                raise _undecodable("the message is empty")
            results.append([plan.reading(topic, plan.blocks(payload))])
        except Undecodable as error:
            results.append(error)
    return results


def encode_blocks(blocks: Sequence[Block]) -> bytes:
    """Blocks as one message: of each the function code that reads it (1 byte), address and quantity (2 bytes each, the
    high one first, as in the request), then its data as in the answer."""
    parts = []
    for table, address, data in blocks:
        quantity = len(data) * 8 if table in _BIT_TABLES else len(data) // 2
        parts += [_BLOCK.pack(_TABLES.index(table) + 1, address, quantity), data]
    return b"".join(parts)


def split_blocks(message: bytes) -> list[Block]:
    """The blocks of a message that `encode_blocks` made. Raises `Undecodable`."""
    blocks = []
    at = 0
    while at < len(message):
        if at + _BLOCK.size > len(message):
            raise _undecodable(f"{len(message) - at} bytes after the last block")
        function, address, quantity = _BLOCK.unpack_from(message, at)
        if not 1 <= function <= len(_TABLES):
            raise _undecodable(f"function code {function} reads no registers")
        table = _TABLES[function - 1]
        at += _BLOCK.size
        size = (quantity + 7) // 8 if table in _BIT_TABLES else quantity * 2
        if at + size > len(message):
            raise _undecodable(
                f"the block of {table} from {address} should have {size} bytes, {len(message) - at} are there"
            )
        blocks.append(Block(table, address, message[at : at + size]))
        at += size
    return blocks


def decode_blocks(profile: Profile, device: str, blocks: Sequence[Block]) -> Reading:
    """One poll's answers as one reading of `device`. Raises `Undecodable`."""
    return _plans.of(profile).reading(device, blocks)


def spans(profile: Profile) -> dict[Span, int]:
    """What a poller must ask for, in the profile's order, and at every how many polls."""
    found: dict[Span, int] = {}
    for span, _, _, register in _plans.of(profile).fields:
        found[span] = min(register.every, found.get(span, register.every))
    return found


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        self.options = read_options(ModbusOptions, profile.options if profile is not None else {})
        self._shape = Shape(profile, DECODER)
        self.fields: list[tuple[Span, str, FieldSpec, RegisterSpec]] = []
        for name, spec in profile.fields.items() if profile is not None else ():
            if (register := spec.register) is not None:
                span = Span(register.table or self.options.table, register.address, register.words)
                self.fields.append((span, spec.path or name, spec, register))

    def blocks(self, message: bytes) -> list[Block]:
        if self.options.layout == "blocks":
            return split_blocks(message)
        return [Block(self.options.table, self.options.address, message)]

    def reading(self, topic: str, blocks: Sequence[Block]) -> Reading:
        if not self.fields:
            raise _undecodable("bytes of registers say nothing without a profile that lists fields")
        values: dict[str, Any] = {}
        for block in blocks:
            is_bits = block.table in _BIT_TABLES
            if not is_bits and len(block.data) % 2:
                raise _undecodable(f"{len(block.data)} bytes are no whole number of registers")
            end = block.address + (len(block.data) * 8 if is_bits else len(block.data) // 2)
            for span, path, _, register in self.fields:
                if span.table == block.table and block.address <= span.address and span.address + span.size <= end:
                    at = span.address - block.address
                    if is_bits:
                        values[path] = bool(block.data[at // 8] >> at % 8 & 1)
                    else:
                        values[path] = value_of(register, block.data[at * 2 : (at + span.size) * 2])
        if not values:
            ranges = ", ".join(f"{block.table} from {block.address}, {len(block.data)} bytes" for block in blocks)
            raise _undecodable(f"none of the profile's registers is in the message ({ranges})")
        return self._shape.reading(topic, values)


def value_of(register: RegisterSpec, data: bytes) -> int | float | bool | str:
    """The value in the bytes of as many registers as it takes up. Raises `Undecodable` for a text that is none."""
    data = _ordered(data, register.order)
    encoding = register.encoding
    if encoding == "text":
        try:
            return data.rstrip(b"\0 ").decode("ascii")
        except UnicodeDecodeError:
            raise _undecodable(f"register {register.address}: {data[:40]!r} is no ASCII text") from None
    if encoding == "bool":
        return any(data)
    kind, words = encoding.rstrip("0123456789"), len(data) // 2
    value: int | float = Struct(">" + _FORMS[kind][words.bit_length() - 1]).unpack(data)[0]
    if register.bit is None and register.bits is None:
        return value
    shifted = int(value) >> (register.bit or 0)
    return bool(shifted & 1) if register.bits is None else shifted & ((1 << register.bits) - 1)


def _ordered(data: bytes, order: str) -> bytes:
    """The bytes with the most significant first."""
    if order == "DCBA":
        return data[::-1]
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order == "CDAB":
        words.reverse()
    elif order == "BADC":
        words = [word[::-1] for word in words]
    return b"".join(words)


def _undecodable(reason: str) -> Undecodable:
    return Undecodable(reason, decoder=DECODER)


_plans: PlanCache[_Plan] = PlanCache(_Plan)
