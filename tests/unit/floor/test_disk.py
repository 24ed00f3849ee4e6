"""One suite for both disks, and what only the forgetful one does."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from headwater.disk import Disk, ForgetfulDisk, RealDisk


@pytest.fixture(params=["real", "forgetful"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    disk = ForgetfulDisk()
    disk.make_directory("/data")
    return disk, "/data"


def test_append_read_truncate(place: tuple[Disk, str]) -> None:
    disk, folder = place
    handle = disk.open(f"{folder}/log", create=True)
    disk.append(handle, b"hello ")
    disk.append(handle, memoryview(b"world"))
    assert (disk.size(handle), disk.read_at(handle, 5, 6), disk.read_at(handle, 99, 9)) == (11, b"world", b"ld")
    disk.truncate(handle, 5)
    disk.append(handle, b"!")
    disk.sync(handle)
    disk.close(handle)
    assert disk.read_file(f"{folder}/log") == b"hello!"


def test_names_rename_remove(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.make_directory(f"{folder}/a/b")
    disk.replace_file(f"{folder}/a/x", b"1")
    disk.replace_file(f"{folder}/a/x", b"2")
    disk.rename(f"{folder}/a/x", f"{folder}/a/y")
    disk.sync_directory(f"{folder}/a")
    assert disk.names(f"{folder}/a") == ["b", "y"]
    assert disk.read_file(f"{folder}/a/y") == b"2"
    disk.remove(f"{folder}/a/y")
    assert not disk.exists(f"{folder}/a/y")
    assert disk.names(f"{folder}/nowhere") == []


def test_missing_files_say_so(place: tuple[Disk, str]) -> None:
    disk, folder = place
    for call in (disk.open, disk.read_file, disk.remove):
        with pytest.raises(FileNotFoundError):
            call(f"{folder}/none")


def test_a_power_cut_takes_what_was_not_synced() -> None:
    disk = ForgetfulDisk()
    disk.make_directory("/d")
    handle = disk.open("/d/log", create=True)
    disk.sync_directory("/d")
    disk.append(handle, b"safe")
    disk.sync(handle)
    disk.append(handle, b"lost")
    disk.power_cut(keep_tail_bytes=2)
    assert disk.read_file("/d/log") == b"safelo"


def test_a_power_cut_takes_names_whose_directory_was_not_synced() -> None:
    disk = ForgetfulDisk()
    disk.make_directory("/d")
    handle = disk.open("/d/log", create=True)
    disk.append(handle, b"x")
    disk.sync(handle)
    disk.power_cut()
    assert not disk.exists("/d/log")


def test_a_failure_can_be_asked_for_once() -> None:
    disk = ForgetfulDisk()
    disk.make_directory("/d")
    handle = disk.open("/d/log", create=True)
    disk.fail_next["sync"] = OSError(errno.EIO, "I/O error")
    with pytest.raises(OSError, match="I/O error"):
        disk.sync(handle)
    disk.sync(handle)


def test_a_directory_whose_entry_could_not_be_made_durable_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next try would find it there, and a power cut would take it with all that is acknowledged in it."""
    disk, synced = RealDisk(), []

    def sync(path: str) -> None:
        synced.append(path)
        if len(synced) == 2:
            raise OSError(errno.EIO, "bad sector", path)

    monkeypatch.setattr(disk, "sync_directory", sync)
    with pytest.raises(OSError, match="bad sector"):
        disk.make_directory(f"{tmp_path}/a/b")
    disk.make_directory(f"{tmp_path}/a/b")
    assert synced == [f"{tmp_path}", f"{tmp_path}/a", f"{tmp_path}/a"]
