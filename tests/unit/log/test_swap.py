"""A swap whose last step fails leaves the old segment with its own indexes."""

from __future__ import annotations

import pytest

from gateway.log.swap import swap_in
from headwater.disk import ForgetfulDisk

PATH, OTHER = "/d/00000000000000000000", "/d/00000000000000000007"


class Refusing(ForgetfulDisk):
    """Does not rename the log into its place."""

    def rename(self, old: str, new: str) -> None:
        if old.endswith(".log.swap"):
            raise OSError(5, "Input/output error")
        super().rename(old, new)


def test_a_swap_that_fails_at_its_last_step_is_undone_whole_and_can_be_finished_later() -> None:
    disk = Refusing()
    for name, data in {
        ".log": b"old",
        ".index": b"of the old",
        ".log.swap": b"new",
        ".index.swap": b"of the new",
    }.items():
        disk.replace_file(PATH + name, data)
    disk.replace_file(PATH + ".timeindex.swap", b"new times")
    disk.replace_file(OTHER + ".log", b"other")
    with pytest.raises(OSError, match="Input/output"):
        swap_in(disk, PATH, [OTHER])
    there = {name: disk.read_file(f"/d/{name}") for name in disk.names("/d")}
    base = PATH.rpartition("/")[2]
    assert there == {
        f"{base}.log": b"old",
        f"{base}.index": b"of the old",
        f"{base}.log.swap": b"new",
        f"{base}.index.swap": b"of the new",
        f"{base}.timeindex.swap": b"new times",
        OTHER.rpartition("/")[2] + ".log": b"other",
    }
