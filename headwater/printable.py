"""Texts of strangers on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Texts of strangers must not move a terminal's cursor: what is no visible character is escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
