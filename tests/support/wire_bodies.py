"""Random message bodies after the tables, for the codec's tests."""

from __future__ import annotations

from random import Random
from typing import Any

from gateway.wire.schema import REQUIRED, Field, within, zero_of

_BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def random_value(field: Field, version: int, random: Random) -> Any:
    if within(version, field.nullable) and random.random() < 0.25:
        return None
    if field.array:
        count = random.choice((0, 1, 1, 2, 3))
        return [random_one(field, version, random) for _ in range(count)]
    return random_one(field, version, random)


def random_one(field: Field, version: int, random: Random) -> Any:
    if field.type == "struct":
        return random_body(field.fields, version, random)
    if field.type == "bool":
        return random.random() < 0.5
    if field.type == "uuid":
        return random.randbytes(16)
    if field.type == "string":
        return "".join(random.choice("abcäß€𝄞 .-") for _ in range(random.choice((0, 3, 20, 200))))
    if field.type in {"bytes", "records"}:
        return random.randbytes(random.choice((0, 1, 61, 127, 128, 20_000)))
    limit = 1 << random.randrange(_BITS[field.type] + 1)
    return random.randrange(-limit, limit)


def random_body(fields: tuple[Field, ...], version: int, random: Random) -> dict[str, Any]:
    """Every field of the version; now and then one that has a default is left out."""
    body = {}
    for field in fields:
        if within(version, field.versions) and (field.default is REQUIRED or random.random() < 0.8):
            body[field.name] = random_value(field, version, random)
    return body


def completed(fields: tuple[Field, ...], version: int, body: dict[str, Any]) -> dict[str, Any]:
    """What decoding must give back: every field of every version, with defaults where nothing was sent."""
    whole = {}
    for field in fields:
        default = zero_of(field.type, array=field.array) if field.default is REQUIRED else field.default
        value = body.get(field.name, default)
        if field.type == "struct" and value is not None:
            if field.array:
                value = [completed(field.fields, version, item) for item in value]
            else:
                value = completed(field.fields, version, value)
        whole[field.name] = value
    return whole


def plain(value: Any) -> Any:
    """The same with `bytes` for views, so that it compares."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview | bytearray) else value
