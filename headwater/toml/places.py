"""Where each key of a TOML text stands, so that an error can name its line.

`tomllib` gives values without places. This scanner runs after `tomllib` has accepted the text, hence it never
judges: it only walks keys, strings, brackets and newlines.
"""

from __future__ import annotations

Path = tuple[str | int, ...]

_SPACE = " \t"
_BLANK = " \t\r\n"
_BARE_END = ",]}#\r\n"


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every table, key and list item of a valid TOML text, by its path."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def show_path(path: Path) -> str:
    """A path as people write it: `serial[0].port`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # how many elements each array of tables has so far

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self, count: int = 1) -> str:
        piece = self.text[self.at : self.at + count]
        self.line += piece.count("\n")
        self.at += count
        return piece

    def skip(self, characters: str) -> None:
        while (char := self.peek()) and char in characters:
            self.take()

    def skip_blank(self) -> None:
        """Spaces, newlines and comments."""
        while True:
            self.skip(_BLANK)
            if self.peek() != "#":
                return
            while self.peek() not in ("\n", ""):
                self.take()

    def document(self) -> None:
        table: Path = ()
        while True:
            self.skip_blank()
            if not self.peek():
                return
            if self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        line = self.line
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.take(brackets)
        self.skip(_SPACE)
        key = self.dotted_key()
        self.skip(_SPACE)
        self.take(brackets)
        path: Path = ()
        for position, part in enumerate(key):
            path += (part,)
            last = position == len(key) - 1
            if last and brackets == 2:
                self.counts[path] = self.counts.get(path, 0) + 1
            self.lines.setdefault(path, line)
            if path in self.counts:
                path += (self.counts[path] - 1,)
                self.lines.setdefault(path, line)
        return path

    def pair(self, table: Path) -> None:
        line = self.line
        key = self.dotted_key()
        path = table
        for part in key:
            path += (part,)
            self.lines.setdefault(path, line)
        self.skip(_SPACE)
        self.take()  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def dotted_key(self) -> list[str]:
        parts = []
        while True:
            self.skip(_SPACE)
            if self.peek() in "\"'":
                parts.append(self.string())
            else:
                start = self.at
                while (char := self.peek()) and (char.isalnum() or char in "_-"):
                    self.take()
                parts.append(self.text[start : self.at])
            self.skip(_SPACE)
            if self.peek() != ".":
                return parts
            self.take()

    def value(self, path: Path) -> None:
        char = self.peek()
        if char in ('"', "'"):
            self.string()
        elif char == "[":
            self.array(path)
        elif char == "{":
            self.inline_table(path)
        else:
            while (char := self.peek()) and char not in _BARE_END:
                self.take()

    def array(self, path: Path) -> None:
        self.take()
        index = 0
        while True:
            self.skip_blank()
            if self.peek() in ("]", ""):
                self.take()
                return
            self.lines[(*path, index)] = self.line
            self.value((*path, index))
            index += 1
            self.skip_blank()
            if self.peek() == ",":
                self.take()

    def inline_table(self, path: Path) -> None:
        self.take()
        while True:
            self.skip_blank()
            if self.peek() in ("}", ""):
                self.take()
                return
            self.pair(path)
            self.skip_blank()
            if self.peek() == ",":
                self.take()

    def string(self) -> str:
        quote = self.peek()
        triple = self.text.startswith(quote * 3, self.at)
        end = quote * 3 if triple else quote
        self.take(len(end))
        start = self.at
        while self.at < len(self.text) and not self.text.startswith(end, self.at):
            self.take(2 if self.peek() == "\\" and quote == '"' else 1)
        content = self.text[start : self.at]
        self.take(len(end))
        while triple and self.peek() == quote:  # up to two quotes may stand just before the closing three
            self.take()
        return content
