"""The JSON Schema of a node's file, for editors; the sentences under the fields of the settings types are its texts."""

from __future__ import annotations

import ast
import inspect as source_inspect
import itertools
import re
import textwrap
from typing import Any

import msgspec

from headwater.settings.model import Settings

_NAMES = r"`?[a-z_0-9]+`?(?:, `?[a-z_0-9]+`?)*"
_LISTED = re.compile(rf"(?:- )?({_NAMES})(?::| ) +(\S.*)")


def settings_schema() -> dict[str, Any]:
    """Made from the types, so it cannot differ from what `load_settings` accepts (bar `<key>_file` for secrets)."""
    schema = msgspec.json.schema(Settings)
    kinds = {kind.__name__: kind for kind in _structs()}
    for name, definition in schema["$defs"].items():
        texts = field_texts(kinds[name])
        definition["description"] = (source_inspect.getdoc(kinds[name]) or "").split("\n\n")[0]
        for key, member in definition["properties"].items():
            if "$ref" in member:
                member.pop("default", None)  # a section's defaults stand with its own keys
            if key in texts:
                member["description"] = texts[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A Headwater node", **schema}


def field_texts(kind: type) -> dict[str, str]:
    """What each field of a settings type is: the sentence under it, or its line `name   text` in the class's own."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            texts |= _own_texts(base)
    return texts


def _own_texts(kind: type) -> dict[str, str]:
    definition = ast.parse(textwrap.dedent(source_inspect.getsource(kind))).body[0]
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    texts = _listed_texts(kind)
    for field, after in itertools.pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            texts[field.target.id] = " ".join(after.value.value.split())
    return texts


def _listed_texts(kind: type) -> dict[str, str]:
    """From lines `name   text`, `one, two   text` or `- `name`: text`, each going on in indented lines."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in (source_inspect.getdoc(kind) or "").splitlines():
        match = _LISTED.fullmatch(line)
        if match:
            names = re.findall(r"[a-z_0-9]+", match[1])
            texts |= dict.fromkeys(names, match[2])
        elif names and line.startswith("  "):
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
        else:
            names = []
    return texts


def _structs() -> list[type]:
    from msgspec import inspect

    from headwater.toml.check import item_at, struct_at

    found: list[type] = []

    def visit(shape: inspect.Type) -> None:
        struct = struct_at(shape) or struct_at(item_at(shape) or shape)
        if struct is not None and struct.cls not in found:
            found.append(struct.cls)
            for field in struct.fields:
                visit(field.type)

    visit(inspect.type_info(Settings))
    return found
