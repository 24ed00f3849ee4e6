"""A module or function that outgrows a screen or two has two jobs; an exception is named here, with the reason."""

from __future__ import annotations

import ast

from tests.support.tree import PARTS, modules, parsed

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# path -> why it may be longer
LONG_MODULES: dict[str, str] = {}
# path::function -> why it may be longer
LONG_FUNCTIONS: dict[str, str] = {}


def test_modules_fit_in_a_head() -> None:
    """The tests' and the benchmarks' too."""
    long = {
        str(path): lines
        for path, text in modules(*PARTS, "tests", "benchmarks").items()
        if (lines := text.count("\n")) > MODULE_LINES_MAX and str(path) not in LONG_MODULES
    }
    assert not long, "\n".join(f"{path}: {lines} lines, {MODULE_LINES_MAX} allowed" for path, lines in long.items())


def functions() -> dict[str, int]:
    """Every function's length in lines, its docstring left out: `path::name` -> lines."""
    lengths: dict[str, int] = {}
    for path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node, clean=False) is not None:
                    document = node.body[0]
                    assert document.end_lineno is not None
                    lines -= document.end_lineno - document.lineno + 1
                lengths[f"{path}::{node.name}"] = max(lines, lengths.get(f"{path}::{node.name}", 0))
    return lengths


def test_functions_fit_on_a_screen() -> None:
    long = {
        name: lines for name, lines in functions().items() if lines > FUNCTION_LINES_MAX and name not in LONG_FUNCTIONS
    }
    assert not long, "\n".join(f"{name}: {lines} lines, {FUNCTION_LINES_MAX} allowed" for name, lines in long.items())


def test_no_exception_outlives_its_reason() -> None:
    known = {str(path) for path in modules(*PARTS, "tests", "benchmarks")}
    assert LONG_MODULES.keys() <= known
    assert LONG_FUNCTIONS.keys() <= functions().keys()
