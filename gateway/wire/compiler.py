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

from gateway.wire import primitives
from gateway.wire.primitives import MalformedError
from gateway.wire.schema import MESSAGES, REQUIRED, ZERO_UUID, Field, Message, within, zero_of

Body = dict[str, Any]
Decoder = Callable[[memoryview, int], tuple[Body, int]]
Encoder = Callable[[Body, Callable[[bytes], None]], None]

# A small element may cost 200 times its bytes in memory: what peers send is bounded tighter than what we ask for.
REQUEST_ELEMENTS_MAX = 100_000
RESPONSE_ELEMENTS_MAX = 1_000_000

_FORMATS = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "bool": "?", "uuid": "16s", "float64": "d"}
_SIZES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1, "uuid": 16, "float64": 8}


class _Source:
    """The lines of a function under construction, and the group of fixed-size fields not yet written out."""

    def __init__(self, version: int, *, flexible: bool, elements_max: int) -> None:
        self.version = version
        self.flexible = flexible
        self.elements_max = elements_max
        self.lines: list[str] = []
        self.names: dict[str, object] = {
            "MalformedError": MalformedError,
            "V1": primitives.VARINT1,
            "uvarint": primitives.encode_uvarint,
            "read_uvarint": primitives.decode_uvarint,
            "skip_tags": primitives.skip_tags,
            "read_tags": primitives.read_tags,
            "encode_tags": primitives.encode_tags,
            "ZERO_UUID": ZERO_UUID,
        }
        self.depth = 1
        self._pending: list[tuple[str, str]] = []
        self._count = 0

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def fixed(self, form: str, expression: str) -> None:
        """Add one fixed-size value to the group: a target when decoding, an expression when encoding."""
        self._pending.append((form, expression))

    def group(self) -> tuple[str, int, list[str]] | None:
        """Take the group: the name of its Struct, its size, its expressions."""
        if not self._pending:
            return None
        packer = struct.Struct(">" + "".join(form for form, _ in self._pending))
        name = "S_" + packer.format[1:].replace("?", "B_").replace("16s", "U")
        self.names[name] = packer
        expressions = [expression for _, expression in self._pending]
        self._pending = []
        return name, packer.size, expressions

    def fields_of(self, fields: tuple[Field, ...]) -> tuple[list[Field], list[Field], list[Field]]:
        """(plain ones of this version, tagged ones of this version, the absent)."""
        here = [f for f in fields if within(self.version, f.versions)]
        absent = [f for f in fields if not within(self.version, f.versions)]
        tagged = sorted((f for f in here if f.tag is not None), key=lambda f: f.tag or 0)
        return [f for f in here if f.tag is None], tagged, absent

    def minimum(self, field: Field) -> int:
        """The fewest bytes one element of this array field can take."""
        if field.type == "struct":
            plain, _, _ = self.fields_of(field.fields)
            inner = sum((1 if self.flexible else 4) if f.array else self.minimum(f) for f in plain)
            return inner + (1 if self.flexible else 0)
        return _SIZES.get(field.type) or (1 if self.flexible else 4 if field.type in {"bytes", "records"} else 2)


def _literal(field: Field) -> str:
    value = zero_of(field.type, array=field.array) if field.default is REQUIRED else field.default
    return "ZERO_UUID" if value == ZERO_UUID else repr(value)


# ---- decoding ----------------------------------------------------------------------------------------------------


def _flush_decode(src: _Source) -> None:
    if (group := src.group()) is not None:
        name, size, targets = group
        src.emit(f"{', '.join(targets)}, = {name}.unpack_from(b, p)")
        src.emit(f"p += {size}")


def _read_length(src: _Source, form: str) -> str:
    """Emit the reading of a length or count; the variable holds -1 for null."""
    length = src.fresh("n")
    if src.flexible:
        _flush_decode(src)
        src.emit(f"{length} = b[p]; p += 1")
        src.emit(f"if {length} > 127: {length}, p = read_uvarint(b, p - 1)")
        src.emit(f"{length} -= 1")
    else:
        src.fixed(form, length)
        _flush_decode(src)
    return length


def _decode_value(src: _Source, field: Field, target: str) -> None:
    kind, nullable = field.type, within(src.version, field.nullable)
    if kind in _FORMATS:
        src.fixed(_FORMATS[kind], target)
        return
    if kind == "struct":
        expression = _decode_struct(src, field.fields)
        src.emit(f"{target} = {expression}")
        return
    length = _read_length(src, "h" if kind == "string" else "i")
    slice_ = f"b[p:p + {length}]"
    value = {"string": f"str({slice_}, 'utf-8')", "bytes": f"bytes({slice_})", "records": slice_}[kind]
    if nullable:
        src.emit(f"if {length} == -1: {target} = None")
        src.emit(f"elif {length} < 0: raise MalformedError('{field.name}: negative length')")
    else:
        src.emit(f"if {length} < 0: raise MalformedError('{field.name}: null or negative length')")
    src.emit("else:")
    src.depth += 1
    src.emit(f"{target} = {value}")
    src.emit(f"p += {length}")
    src.depth -= 1


def _decode_array(src: _Source, field: Field, target: str) -> None:
    count = _read_length(src, "i")
    allowed = -1 if within(src.version, field.nullable) else 0
    src.emit(f"elements += {count}")
    src.emit(f"if {count} < {allowed} or {count} * {src.minimum(field)} > end - p or elements > {src.elements_max}:")
    src.emit(f"    raise MalformedError(f'{field.name}: {{{count}}} elements')")
    if allowed:
        src.emit(f"if {count} < 0: {target} = None; elements += 1")
        src.emit("else:")
        src.depth += 1
    if field.type in _FORMATS and field.type not in {"bool", "uuid"}:
        src.names["struct_unpack_from"] = struct.unpack_from
        form, size = _FORMATS[field.type], _SIZES[field.type]
        src.emit(f"{target} = list(struct_unpack_from(f'>{{{count}}}{form}', b, p))")
        src.emit(f"p += {count} * {size}")
    else:
        src.emit(f"{target} = []")
        src.emit(f"for _ in range({count}):")
        src.depth += 1
        element = Field(field.name, field.type, False, field.versions, (1, 0), None, REQUIRED, field.fields)  # noqa: FBT003
        item = src.fresh("x")
        if field.type == "struct":
            item = _decode_struct(src, field.fields)
        else:
            _decode_value(src, element, item)
            _flush_decode(src)
        src.emit(f"{target}.append({item})")
        src.depth -= 1
    if allowed:
        src.depth -= 1


def _decode_struct(src: _Source, fields: tuple[Field, ...]) -> str:
    """Emit the reading of a structure; returns the expression of its dict."""
    plain, tagged, absent = src.fields_of(fields)
    values = {f.name: _literal(f) for f in absent}
    for field in plain:
        values[field.name] = target = src.fresh("v")
        if field.array:
            _decode_array(src, field, target)
        else:
            _decode_value(src, field, target)
    _flush_decode(src)
    if src.flexible:
        values |= _decode_tags(src, tagged)
    return "{" + ", ".join(f"{f.name!r}: {values[f.name]}" for f in fields) + "}"


def _decode_tags(src: _Source, tagged: list[Field]) -> dict[str, str]:
    targets = {field.name: src.fresh("t") for field in tagged}
    for field in tagged:
        src.emit(f"{targets[field.name]} = {_literal(field)}")
    src.emit("if b[p] == 0: p += 1")
    if not tagged:
        src.emit("else: p = skip_tags(b, p)")
        return targets
    src.emit("else:")
    src.depth += 1
    reader = src.fresh("known")
    src.emit(f"def {reader}(tag, p, end):")
    src.depth += 1
    src.emit(f"nonlocal elements, {', '.join(targets.values())}")
    for field in tagged:
        src.emit(f"if tag == {field.tag}:")
        src.depth += 1
        if field.array:
            _decode_array(src, field, targets[field.name])
        else:
            _decode_value(src, field, targets[field.name])
        _flush_decode(src)
        src.emit("return p")
        src.depth -= 1
    src.emit("return None")
    src.depth -= 1
    src.emit(f"p = read_tags(b, p, {reader})")
    src.depth -= 1
    return targets


# ---- encoding ----------------------------------------------------------------------------------------------------


def _flush_encode(src: _Source) -> None:
    if (group := src.group()) is not None:
        name, _, expressions = group
        src.emit(f"o({name}.pack({', '.join(expressions)}))")


def _write_length(src: _Source, length: str, form: str) -> None:
    """`length` is an expression without side effects; null is -1."""
    if src.flexible:
        _flush_encode(src)
        size = src.fresh("n")
        src.emit(f"{size} = {length} + 1")
        src.emit(f"o(V1[{size}] if {size} < 128 else uvarint({size}))")
    else:
        src.fixed(form, length)
        _flush_encode(src)


def _write_null(src: _Source, form: str) -> None:
    if src.flexible:
        src.emit("o(V1[0])")
    else:
        name = f"NULL_{form}"
        src.names[name] = b"\xff" * struct.calcsize(form)
        src.emit(f"o({name})")


def _encode_value(src: _Source, field: Field, value: str) -> None:
    kind, nullable = field.type, within(src.version, field.nullable)
    if kind in _FORMATS:
        src.fixed(_FORMATS[kind], value)
        return
    if kind == "struct":
        _encode_struct(src, field.fields, value)
        return
    form = "h" if kind == "string" else "i"
    data = src.fresh("s")
    if nullable:
        _flush_encode(src)
        src.emit(f"{data} = {value}")
        src.emit(f"if {data} is None:")
        src.depth += 1
        _write_null(src, form)
        src.depth -= 1
        src.emit("else:")
        src.depth += 1
        value = data
    src.emit(f"{data} = {value}" + (".encode()" if kind == "string" else ""))
    _write_length(src, f"len({data})", form)
    src.emit(f"o({data})")
    if nullable:
        src.depth -= 1


def _encode_array(src: _Source, field: Field, value: str) -> None:
    items = src.fresh("a")
    nullable = within(src.version, field.nullable)
    src.emit(f"{items} = {value}")
    if nullable:
        _flush_encode(src)
        src.emit(f"if {items} is None:")
        src.depth += 1
        _write_null(src, "i")
        src.depth -= 1
        src.emit("else:")
        src.depth += 1
    _write_length(src, f"len({items})", "i")
    if field.type in _FORMATS and field.type not in {"bool", "uuid"}:
        src.names["struct_pack"] = struct.pack
        src.emit(f"o(struct_pack(f'>{{len({items})}}{_FORMATS[field.type]}', *{items}))")
    else:
        item = src.fresh("x")
        src.emit(f"for {item} in {items}:")
        src.depth += 1
        if field.type == "struct":
            _encode_struct(src, field.fields, item)
        else:
            element = Field(field.name, field.type, False, field.versions, (1, 0), None, REQUIRED)  # noqa: FBT003
            _encode_value(src, element, item)
            _flush_encode(src)
        src.depth -= 1
    if nullable:
        src.depth -= 1


def _encode_struct(src: _Source, fields: tuple[Field, ...], body: str) -> None:
    plain, tagged, _ = src.fields_of(fields)
    before = len(src.lines)
    for field in plain:
        value = f"{body}[{field.name!r}]"
        if field.default is not REQUIRED:
            value = f"{body}.get({field.name!r}, {_literal(field)})"
        if field.array:
            _encode_array(src, field, value)
        else:
            _encode_value(src, field, value)
    _flush_encode(src)
    if src.flexible and tagged:
        _encode_tags(src, tagged, body)
    elif src.flexible:
        src.emit("o(V1[0])")
    elif len(src.lines) == before:
        src.emit("pass")


def _encode_tags(src: _Source, tagged: list[Field], body: str) -> None:
    tags = src.fresh("tags")
    src.emit(f"{tags} = []")
    outer = src.fresh("o")
    src.emit(f"{outer} = o")
    for field in tagged:
        value, parts = src.fresh("g"), src.fresh("p")
        src.emit(f"{value} = {body}.get({field.name!r}, {_literal(field)})")
        src.emit(f"if {value} != {_literal(field)}:")
        src.depth += 1
        src.emit(f"{parts} = []; o = {parts}.append")
        if field.array:
            _encode_array(src, field, value)
        else:
            _encode_value(src, field, value)
        _flush_encode(src)
        src.emit(f"{tags}.append(({field.tag}, {parts}))")
        src.depth -= 1
    src.emit(f"o = {outer}")
    src.emit(f"o(encode_tags({tags}) if {tags} else V1[0])")


def _define(src: _Source, title: str, name: str) -> Any:
    source = "\n".join([f"def {name}({title}):", *src.lines])
    exec(compile(source, f"<{name}>", "exec"), src.names)  # noqa: S102 - the source comes from our own tables alone
    return src.names[name]


def _message(name: str, version: int, *, response: bool) -> tuple[Message, tuple[Field, ...], _Source]:
    message = MESSAGES[name]
    if not within(version, message.versions):
        raise ValueError(f"{name} has no version {version}")
    limit = RESPONSE_ELEMENTS_MAX if response else REQUEST_ELEMENTS_MAX
    src = _Source(version, flexible=message.is_flexible(version), elements_max=limit)
    return message, message.response if response else message.request, src


@cache
def decoder(name: str, version: int, *, response: bool = False) -> Decoder:
    """`decode(view, position) -> (body, next position)`; raises `PeerError`. `view` must end where the message may."""
    message, fields, src = _message(name, version, response=response)
    src.emit("end = len(b); elements = 0")
    src.emit(f"d = {_decode_struct(src, fields)}")
    src.emit("if p > end: raise MalformedError('cut short')")
    src.emit("return d, p")
    raw: Decoder = _define(src, "b, p", f"decode_{message.name}_{version}")
    what = f"{message.name} {'response' if response else 'request'} v{version}"

    def decode(view: memoryview, position: int) -> tuple[Body, int]:
        try:
            return raw(view, position)
        except MalformedError as error:
            raise MalformedError(f"{what}: {error.what}") from None
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise MalformedError(f"{what}: {error}") from None

    return decode


@cache
def encoder(name: str, version: int, *, response: bool = False) -> Encoder:
    """`encode(body, append)`: hands the message's parts to `append`. A missing field is a `KeyError`, our own fault."""
    message, fields, src = _message(name, version, response=response)
    _encode_struct(src, fields, "d")
    encode: Encoder = _define(src, "d, o", f"encode_{message.name}_{version}")
    return encode
