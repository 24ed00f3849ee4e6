"""Certificates, and doors that do not keep a test waiting."""

from __future__ import annotations

import pytest

from gateway import doors, users
from tests.support.certificates import Authority


@pytest.fixture
def quick_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cheap hashes, and files that are looked at often."""
    monkeypatch.setattr(users, "_N", 4)
    monkeypatch.setattr(doors, "LOOK_S", 0.02)
    monkeypatch.setattr(doors, "_REFUSAL_DELAY_S", 0.01)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.sign("node")
    return made
