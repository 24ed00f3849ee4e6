"""Long tests in named parts: a pytest plugin behind `make test-long`.

`@pytest.mark.long("sigkill", count=1_000)` puts a test into a part and states how often its loop turns; the fixture
`count` hands it that number, or the one from `--count`. `full=` states a larger number that a promise speaks of, where
that takes more than the part's quarter of an hour.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

PART_S_MAX = 900
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("long tests")
    group.addoption("--part", help="run the long tests of this part only")
    group.addoption(
        "--parts", action="store_true", help="list the parts of the long tests, with their counts, and stop"
    )
    group.addoption("--count", type=int, help="how often the loops of long tests turn; each has a default")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.part or config.option.parts:
        config.option.markexpr = "long"
    if config.option.count is not None and config.option.count < 1:
        raise pytest.UsageError(f"--count is {config.option.count}; give a number from 1")


def part_of(item: pytest.Item) -> str | None:
    """The part of a long test. Raises `pytest.UsageError` where the mark names none."""
    mark = item.get_closest_marker("long")
    if mark is None:
        return None
    if len(mark.args) != 1 or not isinstance(mark.args[0], str) or not _NAME.fullmatch(mark.args[0]):
        raise pytest.UsageError(f'{item.nodeid}: @pytest.mark.long("part-name") names its part in small letters')
    if unknown := mark.kwargs.keys() - {"count", "full"}:
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.long takes count= and full=, not {', '.join(unknown)}")
    return mark.args[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    parts = {item: part for item in items if (part := part_of(item)) is not None}
    for item in parts:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PART_S_MAX))
    if (wanted := config.option.part) is None:
        return
    if wanted not in parts.values():
        raise pytest.UsageError(f"no part “{wanted}”; there are: {', '.join(sorted(set(parts.values()))) or 'none'}")
    config.hook.pytest_deselected(items=[item for item in items if parts.get(item) != wanted])
    items[:] = [item for item in items if parts.get(item) == wanted]


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.parts:
        return
    tests: Counter[str] = Counter()
    counts: defaultdict[str, set[str]] = defaultdict(set)
    for item in session.items:
        if (part := part_of(item)) is not None and (mark := item.get_closest_marker("long")) is not None:
            tests[part] += 1
            if "count" in mark.kwargs:
                full = f" of {mark.kwargs['full']:,}" if "full" in mark.kwargs else ""
                counts[part].add(f"N={mark.kwargs['count']:,}{full}")
    lines = [f"{part:16} {tests[part]:3} tests  {', '.join(sorted(counts[part]))}".rstrip() for part in sorted(tests)]
    print("\n".join(["", *lines]))
    session.items.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.option.parts and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How often this long test's loop turns: `--count` (`make test-long PART=... N=...`), or the mark's `count=`."""
    mark = request.node.get_closest_marker("long")
    if mark is None or "count" not in mark.kwargs:
        raise pytest.UsageError(
            f'{request.node.nodeid} asks for `count`: @pytest.mark.long("part", count=...) states it'
        )
    given: int | None = request.config.option.count
    return int(mark.kwargs["count"]) if given is None else given
