from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from headwater.cli.run import allow_open_files


@pytest.fixture
def few_files() -> Iterator[int]:
    """A soft limit far below the hard one, which the test may lift."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] // 2, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_node_may_open_as_many_files_as_its_user(few_files: int) -> None:
    allow_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_files, few_files)
