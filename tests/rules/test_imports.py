"""Who may import whom: downwards, in no circle; and the cores have no clock, socket, task or chance of their own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.tree import PARTS, ROOT, modules, parsed

# Codecs, state machines and decisions: they are handed bytes, `now` and a Random, so that they can be tested whole,
# byte by byte, on an imaginary wire and in a simulated night.
CORES = (
    "gateway/log/records.py",
    "gateway/log/index.py",
    "gateway/log/chain.py",
    "gateway/log/quick_disk.py",
    "gateway/log/producers.py",
    "gateway/wire/schema.py",
    "gateway/wire/compiler.py",
    "gateway/wire/session.py",
    "gateway/wire/alike.py",
    "gateway/wire/framing.py",
    "gateway/wire/groups/*.py",
    "gateway/wire/acl.py",
    "gateway/wire/guard.py",
    "gateway/wire/guards/*.py",
    "gateway/wire/sasl.py",
    "gateway/scram.py",
    "gateway/strangers.py",
    "gateway/ingest/mqtt/packets.py",
    "gateway/ingest/mqtt/packets5.py",
    "gateway/ingest/mqtt/properties.py",
    "gateway/ingest/mqtt/reasons.py",
    "gateway/ingest/mqtt/session.py",
    "gateway/ingest/mqtt/state.py",
    "gateway/ingest/mqtt/version3.py",
    "gateway/ingest/mqtt/version5.py",
    "gateway/ingest/mqtt/wills.py",
    "gateway/ingest/mqtt_client/answers.py",
    "gateway/ingest/mqtt_client/core.py",
    "gateway/ingest/mqtt_client/packets.py",
    "gateway/ingest/mqtt_client/retry.py",
    "gateway/ingest/marks.py",
    "gateway/ingest/repeats.py",
    "gateway/ingest/eventtime.py",
    "gateway/replicate/core.py",
    "gateway/replicate/progress.py",
    "gateway/replicate/copies.py",
    "processors/windows/gridded.py",
    "processors/windows/closing.py",
    "processors/late.py",
    "processors/windows/memory.py",
    "processors/outages.py",
    "processors/silence.py",
    "processors/recompute.py",
    "processors/aggregates/field_state.py",
    "processors/alerts.py",
    "processors/marks.py",
    "processors/columns.py",
    "processors/rules/model.py",
    "processors/sinks/answers.py",
    "processors/sinks/batches.py",
    "processors/sinks/delivery.py",
    "processors/sinks/points.py",
    "devices/**/*.py",
)
# path -> why it is none, though a pattern above takes it in
NOT_CORES = {"devices/profile_files.py": "finds and reads the files; what they say is parsed in profile_text.py"}
KEPT_OUT = {"asyncio", "socket", "ssl", "threading", "time", "random", "os", "pathlib"}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """The top-level names of what a module imports anywhere in it, with line numbers."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not is_argument_type(node):
            yield node.lineno, node.module.split(".")[0]


def is_argument_type(node: ast.ImportFrom) -> bool:
    """`from random import Random`: a core is handed one, and says so in its signature."""
    return node.module == "random" and [alias.name for alias in node.names] == ["Random"]


def core_modules() -> list[Path]:
    known = modules()
    found = {path.relative_to(ROOT) for pattern in CORES for path in ROOT.glob(pattern)}
    return sorted(path for path in found & known.keys() if str(path) not in NOT_CORES)


def test_cores_take_time_chance_and_bytes_as_arguments() -> None:
    wrong = [
        f"{path}:{line}: a core imports {name}"
        for path in core_modules()
        for line, name in imported(path)
        if name in KEPT_OUT
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pattern", CORES)
def test_every_core_in_the_list_is_there(pattern: str) -> None:
    assert list(ROOT.glob(pattern)), f"{pattern} was moved: name its new place here, or the rule guards nothing"


def named() -> dict[str, str]:
    """Every module of the project, the tests' and the benchmarks' too, by its dotted name; docstrings left out."""
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
        for path, text in modules(*PARTS, "tests", "benchmarks").items()
    }


# Found as text: to parse eight hundred modules would take longer than all other rules together.
IMPORT = re.compile(r"^ *(?:from ([\w.]+) import (\([^)]*\)|.*)|import ([\w.]+))", re.MULTILINE)


def own_imports(text: str, known: Set[str]) -> set[str]:
    """The project's modules that a module imports anywhere in it: for types alone and inside functions too."""
    found: set[str] = set()
    for source, names, module in IMPORT.findall(text):
        inner = {f"{source}.{name}" for name in re.findall(r"\w+", names)} & known
        found |= inner or {source or module}
    return found & known


def test_no_module_leads_back_to_itself() -> None:
    """Two modules that need each other can only be read together: what both need belongs into a third."""
    known = named()
    try:
        TopologicalSorter({name: own_imports(text, known.keys()) for name, text in known.items()}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_part_of_headwater_has_its_layer() -> None:
    """Import-linter passes over what it is not told of."""
    layers = (ROOT / ".importlinter").read_text()
    parts = {path.parts[1].removesuffix(".py") for path in modules("headwater")} - {"__init__"}
    assert not [part for part in sorted(parts) if not re.search(rf"headwater\.{part}\b", layers)]


def test_the_parts_import_downwards_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
