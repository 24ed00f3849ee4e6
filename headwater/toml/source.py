"""Read TOML files (a node's, and the `conf.d/*.toml` beside it) into one table that remembers where each key stands.

Merge: files of `conf.d` come after the main file, in the order of their names. Tables are merged key by key, lists of
tables (`[[serial]]`) are joined, any other value (a plain list too) replaces the earlier one.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from headwater.errors import UNREADABLE, UserError
from headwater.toml.places import Path, key_lines

_ENV = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Source:
    """The merged table, and the place of every path in it."""

    def __init__(self, main: str) -> None:
        self.main = main
        self.files: list[str] = []
        self.table: dict[str, Any] = {}
        self.places: dict[Path, Place] = {}
        self.from_environment: set[Path] = set()
        self.faulty: set[Path] = set()
        """Where a problem was found, and what a misspelt key meant: that it is missing is no further problem."""
        self._problems: list[tuple[Place, str]] = []

    @property
    def problems(self) -> list[str]:
        """Each with its place, in the order of files and lines."""

        def order(found: tuple[Place, str]) -> tuple[int, int]:
            file, line = found[0]
            return self.files.index(file) if file in self.files else -1, line

        return [f"{place}: {message}" for place, message in sorted(self._problems, key=order)]

    def place(self, path: Path) -> Place:
        """Where a path stands; else its nearest parent; else the main file."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[:-1]
        return Place(self.main, 0)

    def problem(self, path: Path, message: str) -> None:
        self.faulty.add(path)
        self._problems.append((self.place(path), message))

    def forget_item(self, path: Path) -> None:
        """A list's item was taken out of the table: those behind it move up, and their places with them."""
        self.places = {moved: place for found, place in self.places.items() if (moved := _moved(found, path))}
        self.faulty = {moved for found in self.faulty if (moved := _moved(found, path))} | {path[:-1]}

    def add_file(self, file: str) -> None:
        """Merge one more file over what is there; raises UserError when it cannot be read or is no TOML."""
        self.add_text(file, _read_text(file))

    def add_text(self, file: str, text: str) -> None:
        """Merge a text that is called `file`; raises UserError when it is no TOML."""
        try:
            table = tomllib.loads(text)
            lines = {path: Place(file, line) for path, line in key_lines(text).items()}
        except UNREADABLE as error:  # besides its own error: a number of thousands of digits, brackets without end
            raise UserError(_toml_error(file, str(error), text), hint=_toml_hint(str(error))) from None
        self.files.append(file)
        self._merge(self.table, table, (), (), lines)

    def _merge(
        self, into: dict[str, Any], table: dict[str, Any], at: Path, read_at: Path, lines: dict[Path, Place]
    ) -> None:
        for key, value in table.items():
            path, source = (*at, key), (*read_at, key)
            old = into.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self.places.setdefault(path, lines.get(source, Place(self.main, 0)))
                self._merge(old, value, path, source, lines)
            elif isinstance(old, list) and _is_table_list(old) and _is_table_list(value):
                self._take_places(path, source, lines, shift=len(old))
                old.extend(value)
            else:
                self._take_places(path, source, lines, shift=0)
                into[key] = value

    def _take_places(self, path: Path, source: Path, lines: dict[Path, Place], *, shift: int) -> None:
        depth = len(source)
        for found, place in lines.items():
            if found[:depth] != source:
                continue
            rest = found[depth:]
            if shift and rest:
                rest = (int(rest[0]) + shift, *rest[1:])
            self.places[(*path, *rest)] = place

    def expand(self, environ: Mapping[str, str]) -> None:
        """Put the environment into `${NAME}`; `$${NAME}` is the text `${NAME}` itself."""
        self.table = self._expand(self.table, (), environ)

    def _expand(self, value: Any, path: Path, environ: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._expand(inner, (*path, key), environ) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._expand(inner, (*path, index), environ) for index, inner in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value

        def replace(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]
            if match[2] not in environ:
                self.problem(path, f"the environment has no {match[2]}; set it, or write the value here")
            self.from_environment.add(path)
            return environ.get(match[2], "")

        return _ENV.sub(replace, value)


def read_source(file: str, *, missing: str = "") -> Source:
    """The main file and its `conf.d`, merged; raises UserError for a file that cannot be read.

    `missing`: what to do when there is no such file, where it is more than to check the path.
    """
    if missing and not os.path.lexists(file):
        raise UserError(f"{file}: there is no such file", hint=missing)
    source = Source(file)
    source.add_file(file)
    folder = os.path.join(os.path.dirname(file) or ".", "conf.d")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".toml") and not name.startswith("."):
            source.add_file(os.path.join(folder, name))
    return source


def _moved(found: Path, gone: Path) -> Path | None:
    """Where a path stands after a list's item is gone; None for the item itself and what was in it."""
    holder, index, depth = gone[:-1], gone[-1], len(gone) - 1
    at = found[depth] if len(found) > depth and found[:depth] == holder else None
    if not isinstance(at, int) or not isinstance(index, int) or at < index:
        return found
    return (*holder, at - 1, *found[depth + 1 :]) if at > index else None


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _read_text(file: str) -> str:
    try:
        # editors on Windows begin a file with a byte order mark, which nobody sees and TOML does not know
        with open(file, encoding="utf-8-sig") as handle:
            return handle.read()
    except FileNotFoundError:
        hint = "Check the path; a relative one begins at the folder that you are in."
        raise UserError(f"{file}: there is no such file", hint=hint) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start}", hint="Save the file as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", hint="Check the path and its permissions.") from None


def _toml_hint(message: str) -> str:
    if "Cannot overwrite" in message:
        return "That key stands there already; keep one of the two."
    if "Cannot declare" in message or "Cannot mutate" in message:
        return "That section stands there already; put its keys together, or write [[…]] for a list of them."
    return "Mend that line; strings stand in quotes."


def _toml_error(file: str, message: str, text: str) -> str:
    if match := re.search(r" \(at line (\d+), column \d+\)$", message):
        return f"{file}:{match[1]}: no valid TOML: {message[: match.start()]}"
    last = text.rstrip().count("\n") + 1
    if message.endswith(" (at end of document)"):
        return f"{file}:{last}: no valid TOML: {message.removesuffix(' (at end of document)')} at the end of the file"
    if "integer string conversion" in message:
        number = re.search(r"\d{4000}", text)
        line = text.count("\n", 0, number.start()) + 1 if number else last
        return f"{file}:{line}: no valid TOML: a number of thousands of digits"
    deepest = re.search(r"[\[{][\[{\s]{100}", text)
    line = text.count("\n", 0, deepest.start()) + 1 if deepest else last
    return f"{file}:{line}: no valid TOML: lists or tables within each other without end"


def table_of(path: str) -> dict[str, Any]:
    """What a file says, to see what kind of file it is; nothing of one that cannot be read."""
    source = Source(path)
    try:
        source.add_file(path)
    except UserError:
        return {}
    return source.table
