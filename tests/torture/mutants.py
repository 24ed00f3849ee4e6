"""Negative controls: every sync and every rename in the source, left out, must turn a torture scenario red."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from headwater.disk import Disk
from tests.support.tree import ROOT, modules, parsed
from tests.torture.simulated_os import SKIP, SimulatedOs

SEAM = frozenset({"sync", "sync_directory", "rename"})  # `replace_file` is made of these, in the seam itself
OS_CALLS = frozenset({"fsync", "fdatasync", "replace", "rename"})
_DISK = re.compile(r"(?:.*[._])?disk|RealDisk\(\)")
_MAYBE = re.compile(r"\.(?:f?sync|fdatasync|sync_directory|rename|replace)\b")
_SEAM_FILE = "headwater/disk.py"


class Site(NamedTuple):
    """A call: where it is, for people and for the documentation, and its lines."""

    path: str
    function: str
    call: str
    number: int
    first_line: int
    last_line: int

    @property
    def name(self) -> str:
        """Holds while lines move: the n-th such call of a function."""
        number = f" {self.number}" if self.number > 1 else ""
        return f"{self.path} {self.function} {self.call}{number}"


@cache
def sites() -> list[Site]:
    """All of them, found in the source."""
    return [site for path, text in modules().items() if _MAYBE.search(text) for site in _sites_in(path)]


def _sites_in(path: Path) -> Iterator[Site]:
    numbers: Counter[tuple[str, str]] = Counter()
    for function, node in _calls(parsed(path), ""):
        assert isinstance(node.func, ast.Attribute)
        receiver, call = ast.unparse(node.func.value), node.func.attr
        inside = str(path) == _SEAM_FILE and function.startswith("RealDisk.")
        if (
            (call in SEAM and _DISK.fullmatch(receiver))
            or (call in OS_CALLS and receiver == "os")
            or (call in SEAM and inside and receiver == "self")
        ):
            numbers[function, call] += 1
            assert node.end_lineno is not None
            yield Site(str(path), function, call, numbers[function, call], node.lineno, node.end_lineno)


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}" if function else child.name
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            yield function, child
        yield from _calls(child, inner)


def uncalled() -> list[str]:
    """Where such a method is handed on instead of called: no mutant could be made of it."""
    found = []
    for path, text in modules().items():
        if not _MAYBE.search(text):
            continue
        called = {id(node.func) for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and node.attr in SEAM | OS_CALLS and id(node) not in called:
                receiver = ast.unparse(node.value)
                if (node.attr in SEAM and _DISK.fullmatch(receiver)) or (node.attr in OS_CALLS and receiver == "os"):
                    found.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    return found


class Mutant:
    """Makes disks that leave one call out; `dropped` counts how often."""

    def __init__(self, site: Site | None) -> None:
        self.site = site
        self.dropped = 0

    def __call__(self, simulated: SimulatedOs) -> Disk:
        """`RealDisk` on these files, but for the call."""
        disk = simulated.disk()
        if self.site is None:
            return disk
        if self.site.path == _SEAM_FILE or self.site.call in OS_CALLS - SEAM:
            self._leave_out(simulated)
            return disk
        mutated: Disk = type("MutantDisk", (_Leaving,), {})(disk, self)
        return mutated

    def _leave_out(self, simulated: SimulatedOs) -> None:
        before = simulated.before

        def leaving(call: str, path: str) -> object:
            told = before(call, path)
            # before <- SimulatedOs.call <- RealDisk's method <- …
            return SKIP if call in OS_CALLS and self.is_here(sys._getframe(2)) else told

        simulated.before = leaving

    def is_here(self, frame: FrameType | None) -> bool:
        """Whether this frame, or one of its callers within the seam, is at the call."""
        site = self.site
        while site is not None and frame is not None:
            name = frame.f_code.co_filename
            if name == str(ROOT / site.path) and site.first_line <= frame.f_lineno <= site.last_line:
                self.dropped += 1
                return True
            if not name.endswith(_SEAM_FILE):
                return False
            frame = frame.f_back
        return False


class _Leaving:
    """A disk that leaves out the calls which a mutant's site makes."""

    def __init__(self, disk: Disk, mutant: Mutant) -> None:
        self._inner = disk
        self._mutant = mutant

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if self._mutant.site is None or name != self._mutant.site.call:
            return method

        def call(*arguments: Any) -> Any:
            return None if self._mutant.is_here(sys._getframe(1)) else method(*arguments)

        return call
