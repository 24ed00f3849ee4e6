"""Where a serial port is found."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-mast-port0"
