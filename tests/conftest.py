"""What every test shares: foreign peers that may be missing, and skips that CI does not accept."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, settings

from tests.support import peers
from tests.support.data_files import data_directories, unknown_files
from tests.support.sockets import sockets_left

pytest_plugins = ["pytester", "tests.support.parts"]
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
missing_peer = lru_cache(peers.missing)

# No clock fails a property: a busy machine takes any time over an example. How long is too long, pytest's timeout says.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose foreign program is missing, and say which and what to do."""
    for mark in item.iter_markers("peer"):
        for name in mark.args:
            if (reason := missing_peer(name)) is not None:
                pytest.skip(reason)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI everything that tests need has been installed, so a skip would only hide that a test no longer runs."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not accept: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True)
def no_unknown_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever nodes write below their data directories is of a kind that the damage tests know."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    for data in data_directories(folder) if folder is not None else ():
        found = sorted(unknown_files(data))
        assert not found, f"new kinds of files: {found}; tests/support/data_files.py says what they need"


@pytest.fixture(autouse=True)
def no_sockets_left() -> Iterator[None]:
    """Whoever leaves a connection open is told, not the test during which the collector finds it."""
    with sockets_left() as left:
        yield
    assert not left, f"this test closed its event loop with connections open: {left}"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Kafka]:
    """One Apache Kafka for the whole run; tests use topics of their own. Mark the test `@pytest.mark.peer("kafka")`."""
    if (reason := missing_peer("kafka")) is not None:
        pytest.skip(reason)
    node = peers.Kafka.start(tmp_path_factory.mktemp("kafka"))
    yield node
    node.stop()
