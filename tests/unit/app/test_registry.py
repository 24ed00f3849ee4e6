from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from headwater.app.registry import Running, registered, running_nodes, runtime_dir


@pytest.fixture(autouse=True)
def own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_a_node_is_listed_while_it_runs() -> None:
    with registered("n", "/data", "/n.toml"):
        (found,) = running_nodes()
        assert (found.node, found.data_dir, found.pid) == ("n", "/data", os.getpid())
    assert running_nodes() == []


def test_the_entry_of_a_dead_process_is_removed() -> None:
    folder = Path(runtime_dir())
    folder.mkdir(mode=0o700)
    entry = folder / f"{os.getpid()}.json"
    entry.write_bytes(msgspec.json.encode(Running(os.getpid(), "1", "n", "/d", "/c")))  # this pid, another start
    assert running_nodes() == []
    assert not entry.exists()


def test_a_folder_that_others_may_write_to_is_not_trusted() -> None:
    folder = Path(runtime_dir())
    folder.mkdir()
    folder.chmod(0o777)
    with registered("n", "/data", "/n.toml"):
        assert list(folder.iterdir()) == []
    assert running_nodes() == []


def test_without_a_runtime_folder_tmp_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_dir() == f"/tmp/headwater-{os.getuid()}"
