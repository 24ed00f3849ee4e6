"""A log of one partition on a forgetful disk; `store`, `log` and `disk` belong together."""

from __future__ import annotations

import pytest

from gateway.log.partition import PartitionLog
from gateway.log.store import LogStore
from headwater.disk import ForgetfulDisk
from tests.support.logs import open_log


@pytest.fixture
def disk() -> ForgetfulDisk:
    return ForgetfulDisk()


@pytest.fixture
def store_and_log(disk: ForgetfulDisk) -> tuple[LogStore, PartitionLog]:
    return open_log(disk)


@pytest.fixture
def store(store_and_log: tuple[LogStore, PartitionLog]) -> LogStore:
    return store_and_log[0]


@pytest.fixture
def log(store_and_log: tuple[LogStore, PartitionLog]) -> PartitionLog:
    return store_and_log[1]
