"""The project's files, for the tests that hold its rules."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("gateway", "processors", "devices", "simulators", "headwater")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git has or would take in, relative to the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return tuple(sorted(Path(name) for name in set(names) if name and (ROOT / name).is_file()))


@cache
def texts() -> dict[Path, str]:
    """The tracked files that are text, by path."""
    found = {}
    for path in tracked():
        try:
            found[path] = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a golden file
    return found


def modules(*parts: str) -> dict[Path, str]:
    """The Python modules under the given top-level folders (default: the product's packages)."""
    wanted = parts or PARTS
    return {path: text for path, text in texts().items() if path.suffix == ".py" and path.parts[0] in wanted}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(texts()[path], filename=str(path))
