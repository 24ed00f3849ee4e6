"""The long tests: each names its part, and the runner does what CONTRIBUTING.md says."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.tree import modules, parsed

TWO_PARTS = """
import pytest

@pytest.mark.long("alpha", count=3, full=9)
def test_alpha(count):
    print(f"turns {count}")

@pytest.mark.long("beta")
def test_beta():
    pass

def test_quick():
    pass
"""


def is_long(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "long" and ast.unparse(node) == "pytest.mark.long"


def test_every_long_test_names_its_part() -> None:
    wrong, named = [], 0
    for path, text in modules("tests").items():
        if "mark.long" not in text:
            continue
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call) and is_long(node.func)]
        for call in calls:
            part = call.args[0].value if len(call.args) == 1 and isinstance(call.args[0], ast.Constant) else None
            if not isinstance(part, str) or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", part):
                wrong.append(f"{path}:{call.lineno}: {ast.unparse(call)}")
        marks = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.expr) and is_long(node)]
        wrong += [f"{path}:{each.lineno}: pytest.mark.long without a part" for each in marks[len(calls) :]]
        named += len(calls)
    assert not wrong, "\n".join(wrong)
    assert named >= 4


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> tuple[int, str]:
    pytester.makeini("[pytest]\nmarkers =\n  long: long\naddopts = --strict-markers -m 'not long'\n")
    pytester.makepyfile(text)
    done = pytester.runpytest_inprocess("-p", "tests.support.parts", "-p", "no:cacheprovider", "-qs", *arguments)
    return int(done.ret), done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        ((), 0, "1 passed, 2 deselected"),
        (("--part", "alpha"), 0, "turns 3"),
        (("--part", "alpha", "--count", "7"), 0, "turns 7"),
        (("--part", "gamma"), 4, "no part “gamma”; there are: alpha, beta"),
        (("--part", "alpha", "--count", "0"), 4, "--count is 0"),
        (("--parts",), 0, "alpha              1 tests  N=3 of 9\nbeta               1 tests\n"),
    ],
    ids=["no-part", "default", "count", "unknown", "zero", "list"],
)
def test_parts_and_counts(pytester: pytest.Pytester, arguments: tuple[str, ...], status: int, shown: str) -> None:
    ended, text = run(pytester, TWO_PARTS, *arguments)
    assert (ended, shown in text) == (status, True), text


def test_a_long_test_without_a_part_stops_the_run(pytester: pytest.Pytester) -> None:
    ended, text = run(pytester, "import pytest\n\n@pytest.mark.long\ndef test_x():\n    pass\n", "-m", "long")
    assert ended == 4, text
    assert "names its part" in text
