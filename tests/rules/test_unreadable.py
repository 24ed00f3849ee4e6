"""Bytes from elsewhere that are no UTF-8 make `msgspec` raise a UnicodeDecodeError, which is none of its own errors."""

from __future__ import annotations

import ast

import msgspec
import pytest

from headwater.errors import UNREADABLE
from tests.support.tree import modules, parsed

# path -> why it may catch less
KNOWN: dict[str, str] = {}


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":"\xb2"}', b"[" * 100_000, b"7", b'{"a":' + b'{"a":' * 50_000])
def test_whatever_the_bytes_are_it_is_caught(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(data, type=dict[str, object])


def test_nobody_catches_only_a_part_of_it() -> None:
    wrong = [
        f"{path}:{node.lineno}: catch headwater.errors.UNREADABLE, not {ast.unparse(node.type)}"
        for path, text in modules().items()
        if "msgspec" in text and str(path) not in KNOWN
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
        if {"msgspec.MsgspecError", "msgspec.DecodeError"}
        & {ast.unparse(each) for each in ast.walk(node.type) if isinstance(each, ast.expr)}
    ]
    assert not wrong, "\n".join(wrong)
