"""Emits the statements that encode a structure; `gateway.wire.compiler` makes functions of them."""

from __future__ import annotations

import struct
from dataclasses import replace

from gateway.wire.schema import REQUIRED, Field, within
from gateway.wire.source import FORMATS, Source, literal


def _flush_encode(src: Source) -> None:
    if (group := src.group()) is not None:
        name, _, expressions = group
        src.emit(f"o({name}.pack({', '.join(expressions)}))")


def _write_length(src: Source, length: str, form: str) -> None:
    """`length` is an expression without side effects; null is -1."""
    if src.flexible:
        _flush_encode(src)
        size = src.fresh("n")
        src.emit(f"{size} = {length} + 1")
        src.emit(f"o(V1[{size}] if {size} < 128 else uvarint({size}))")
    else:
        src.fixed(form, length)
        _flush_encode(src)


def _write_null(src: Source, form: str) -> None:
    if src.flexible:
        src.emit("o(V1[0])")
    else:
        name = f"NULL_{form}"
        src.names[name] = b"\xff" * struct.calcsize(form)
        src.emit(f"o({name})")


def _encode_value(src: Source, field: Field, value: str) -> None:
    kind, nullable = field.type, within(src.version, field.nullable)
    if kind in FORMATS:
        src.fixed(FORMATS[kind], value)
        return
    if kind == "struct":
        encode_struct(src, field.fields, value)
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


def _encode_array(src: Source, field: Field, value: str) -> None:
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
    if field.type in FORMATS and field.type not in {"bool", "uuid"}:
        src.names["struct_pack"] = struct.pack
        src.emit(f"o(struct_pack(f'>{{len({items})}}{FORMATS[field.type]}', *{items}))")
    else:
        item = src.fresh("x")
        src.emit(f"for {item} in {items}:")
        src.depth += 1
        if field.type == "struct":
            encode_struct(src, field.fields, item)
        else:
            element = replace(field, array=False, nullable=(1, 0), tag=None, default=REQUIRED)
            _encode_value(src, element, item)
            _flush_encode(src)
        src.depth -= 1
    if nullable:
        src.depth -= 1


def encode_struct(src: Source, fields: tuple[Field, ...], body: str) -> None:
    """Emit the writing of a structure whose dict is the expression `body`."""
    plain, tagged, _ = src.fields_of(fields)
    before = len(src.lines)
    for field in plain:
        value = f"{body}[{field.name!r}]"
        if field.default is not REQUIRED:
            value = f"{body}.get({field.name!r}, {literal(field)})"
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


def _encode_tags(src: Source, tagged: list[Field], body: str) -> None:
    tags = src.fresh("tags")
    src.emit(f"{tags} = []")
    outer = src.fresh("o")
    src.emit(f"{outer} = o")
    for field in tagged:
        value, parts = src.fresh("g"), src.fresh("p")
        src.emit(f"{value} = {body}.get({field.name!r}, {literal(field)})")
        src.emit(f"if {value} != {literal(field)}:")
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
