"""Python source under construction: what the compilers of decoders and encoders share."""

from __future__ import annotations

import struct

from gateway.wire import primitives
from gateway.wire.primitives import MalformedError
from gateway.wire.schema import REQUIRED, ZERO_UUID, Field, within, zero_of

FORMATS = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "bool": "?", "uuid": "16s", "float64": "d"}
SIZES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1, "uuid": 16, "float64": 8}


class Source:
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
        return SIZES.get(field.type) or (1 if self.flexible else 4 if field.type in {"bytes", "records"} else 2)


def literal(field: Field) -> str:
    """The expression of a field's default, or of its type's where it has none."""
    value = zero_of(field.type, array=field.array) if field.default is REQUIRED else field.default
    return "ZERO_UUID" if value == ZERO_UUID else repr(value)
