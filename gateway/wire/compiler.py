"""Compiles one version of a message to a straight-line Python function, on first use.

Fixed-size neighbours share one pre-built `struct.Struct`; loops are unrolled down to arrays. Decoding gives every
field of the message: those that the version does not have carry their default. `records` stay views of the input.

Hostile input: an array's count is held against the bytes that remain and against a total of elements per message,
and any failure becomes a `PeerError`. Some bounds are checked once, at the end: a slice past the end is only short.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from gateway.wire.decoding import decode_struct
from gateway.wire.encoding import encode_struct
from gateway.wire.schema import MESSAGES, Field, Message, within
from gateway.wire.source import Source

Body = dict[str, Any]
Decoder = Callable[[memoryview, int], tuple[Body, int]]
Encoder = Callable[[Body, Callable[[bytes], None]], None]

# A small element may cost 200 times its bytes in memory: what peers send is bounded tighter than what we ask for.
REQUEST_ELEMENTS_MAX = 100_000
RESPONSE_ELEMENTS_MAX = 1_000_000


def _define(src: Source, title: str, name: str) -> Any:
    source = "\n".join([f"def {name}({title}):", *src.lines])
    exec(compile(source, f"<{name}>", "exec"), src.names)  # noqa: S102 - the source comes from our own tables alone
    return src.names[name]


def _message(name: str, version: int, *, response: bool) -> tuple[Message, tuple[Field, ...], Source]:
    message = MESSAGES[name]
    if not within(version, message.versions):
        raise ValueError(f"{name} has no version {version}")
    limit = RESPONSE_ELEMENTS_MAX if response else REQUEST_ELEMENTS_MAX
    src = Source(version, flexible=message.is_flexible(version), elements_max=limit)
    return message, message.response if response else message.request, src


@cache
def decoder(name: str, version: int, *, response: bool = False) -> Decoder:
    """`decode(view, position) -> (body, next position)`; raises `PeerError`. `view` must end where the message may."""
    message, fields, src = _message(name, version, response=response)
    what = f"{message.name} {'response' if response else 'request'} v{version}"
    src.names["failures"] = (IndexError, struct.error, UnicodeDecodeError)
    src.emit("try:")
    src.depth += 1
    src.emit("end = len(b); elements = 0")
    src.emit(f"d = {decode_struct(src, fields)}")
    src.emit("if p > end: raise MalformedError('cut short')")
    src.emit("return d, p")
    src.depth -= 1
    src.emit("except MalformedError as error:")
    src.emit(f"    raise MalformedError(f'{what}: {{error.what}}') from None")
    src.emit("except failures as error:")
    src.emit(f"    raise MalformedError(f'{what}: {{error}}') from None")
    decode: Decoder = _define(src, "b, p", f"decode_{message.name}_{version}")
    return decode


@cache
def encoder(name: str, version: int, *, response: bool = False) -> Encoder:
    """`encode(body, append)`: hands the message's parts to `append`. A missing field is a `KeyError`, our own fault."""
    message, fields, src = _message(name, version, response=response)
    encode_struct(src, fields, "d")
    encode: Encoder = _define(src, "d, o", f"encode_{message.name}_{version}")
    return encode
