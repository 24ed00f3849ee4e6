"""Emits the statements that decode a structure; `gateway.wire.compiler` makes functions of them."""

from __future__ import annotations

import struct
from dataclasses import replace

from gateway.wire.schema import REQUIRED, Field, within
from gateway.wire.source import FORMATS, SIZES, Source, literal


def _flush_decode(src: Source) -> None:
    if (group := src.group()) is not None:
        name, size, targets = group
        src.emit(f"{', '.join(targets)}, = {name}.unpack_from(b, p)")
        src.emit(f"p += {size}")


def _read_length(src: Source, form: str) -> str:
    """Emit the reading of a length or count; the variable holds -1 for null."""
    length = src.fresh("n")
    if src.flexible:
        _flush_decode(src)
        src.emit(f"{length} = b[p]; p += 1")
        # Two bytes reach 16 KiB: most batches, without a call.
        src.emit(f"if {length} > 127:")
        src.emit("    if b[p] < 128:")
        src.emit(f"        {length} = {length} & 127 | b[p] << 7; p += 1")
        src.emit(f"    else: {length}, p = read_uvarint(b, p - 1)")
        src.emit(f"{length} -= 1")
    else:
        src.fixed(form, length)
        _flush_decode(src)
    return length


def _decode_value(src: Source, field: Field, target: str) -> None:
    kind, nullable = field.type, within(src.version, field.nullable)
    if kind in FORMATS:
        src.fixed(FORMATS[kind], target)
        return
    if kind == "struct":
        expression = decode_struct(src, field.fields)
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


def _decode_array(src: Source, field: Field, target: str) -> None:
    count = _read_length(src, "i")
    allowed = -1 if within(src.version, field.nullable) else 0
    src.emit(f"elements += {count}")
    src.emit(f"if {count} < {allowed} or {count} * {src.minimum(field)} > end - p or elements > {src.elements_max}:")
    src.emit(f"    raise MalformedError(f'{field.name}: {{{count}}} elements')")
    if allowed:
        src.emit(f"if {count} < 0: {target} = None; elements += 1")
        src.emit("else:")
        src.depth += 1
    if field.type in FORMATS and field.type not in {"bool", "uuid"}:
        src.names["struct_unpack_from"] = struct.unpack_from
        form, size = FORMATS[field.type], SIZES[field.type]
        src.emit(f"{target} = list(struct_unpack_from(f'>{{{count}}}{form}', b, p))")
        src.emit(f"p += {count} * {size}")
    else:
        src.emit(f"{target} = []")
        src.emit(f"for _ in range({count}):")
        src.depth += 1
        element = replace(field, array=False, nullable=(1, 0), tag=None, default=REQUIRED)
        item = src.fresh("x")
        if field.type == "struct":
            item = decode_struct(src, field.fields)
        else:
            _decode_value(src, element, item)
            _flush_decode(src)
        src.emit(f"{target}.append({item})")
        src.depth -= 1
    if allowed:
        src.depth -= 1


def decode_struct(src: Source, fields: tuple[Field, ...]) -> str:
    """Emit the reading of a structure; returns the expression of its dict."""
    plain, tagged, absent = src.fields_of(fields)
    values = {f.name: literal(f) for f in absent}
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


def _decode_tags(src: Source, tagged: list[Field]) -> dict[str, str]:
    targets = {field.name: src.fresh("t") for field in tagged}
    for field in tagged:
        src.emit(f"{targets[field.name]} = {literal(field)}")
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
