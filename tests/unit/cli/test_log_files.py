"""`headwater log verify` and `repair` on the small files of a data directory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from gateway.log.rewritten import Rewritten
from gateway.log.small_files import check_files, mend_files
from headwater.cli.log_files import NODE_FILES
from headwater.disk import ForgetfulDisk
from headwater.sealed import seal, unseal
from tests.support.data_files import DAMAGED, KINDS, kind_of
from tests.torture import damage
from tests.torture.small_files import KEEPERS
from tests.torture.small_files import build as build_small
from tests.unit.cli.test_log import Run, data, run

__all__ = ["data", "run"]

WITHOUT_SUM = ("log/", "node/chain/", "node/aborted/")  # a digit there may be another digit


@cache
def whole() -> dict[str, bytes]:
    """Every small file that a node keeps beside its partitions, by path."""
    files: dict[str, bytes] = {}
    for keeper in KEEPERS.values():
        small = build_small(keeper)
        files |= {path: small.files[path] for path in small.own}
    files |= damage.build(clean=True).files
    files |= {"/data/node/rewritten/c-0": Rewritten.encode({0: 77, 40: 1 << 60})}
    return {path: content for path, content in files.items() if not re.match("/data/(work/|log/.+/)", path)}


def disk_with(path: str = "", content: bytes | None = None) -> ForgetfulDisk:
    disk = ForgetfulDisk()
    for each, good in whole().items():
        disk.replace_file(each, good if each != path or content is None else content)
    return disk


def named(disk: ForgetfulDisk) -> list[str]:
    return [fault.path for fault in check_files(disk, "/data", NODE_FILES)]


def checked() -> list[str]:
    return sorted(path for path in whole() if KINDS[kind_of(path.removeprefix("/data/"))] == DAMAGED)


def test_every_kind_of_small_file_that_tests_damage_is_checked_and_here() -> None:
    """A new kind of file below `node/` belongs into `NODE_FILES`."""
    kinds = {kind for kind, how in KINDS.items() if how == DAMAGED and not kind.startswith(("work/", "log/…"))}
    kinds.remove("log/.kafka_cleanshutdown")  # that it is there is all that counts
    assert {each.pattern.replace("*", "…") for each in NODE_FILES} == kinds
    assert {kind_of(path.removeprefix("/data/")) for path in checked()} - {"log/.kafka_cleanshutdown"} == kinds
    assert named(disk_with()) == []


@pytest.mark.parametrize("what", ["zeros", "nothing", "a bit", "bad sector"])
def test_a_damaged_one_is_named_and_no_other(what: str) -> None:
    for path in checked():
        good = whole()[path]
        if path.endswith(".kafka_cleanshutdown") or (path.endswith("page-token") and what != "a bit"):
            continue  # an empty token file gets a token
        if what == "a bit" and path.removeprefix("/data/").startswith(WITHOUT_SUM):
            continue
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        content = {"zeros": bytes(len(good)), "nothing": b"", "a bit": bytes(flipped)}.get(what)
        disk = disk_with(path, content)
        if content is None:
            disk.bad_files.add(path)
        if what == "nothing" and path.endswith("meta.properties"):
            continue  # as one without entries
        assert named(disk) == [path], path


def test_of_what_lies_twice_the_good_copy_is_put_in_the_place_of_the_bad_one() -> None:
    twice = [path for path in checked() if path.endswith(".copy.json")]
    assert len(twice) == 6
    for copy in twice:
        bare = copy.removesuffix(".copy.json")
        main = bare if bare in whole() else f"{bare}.json"
        for path in (copy, main):
            disk = disk_with(path, b"{}x")
            (fault,) = check_files(disk, "/data", NODE_FILES)
            assert fault.detail.endswith("; the other copy counts")
            (said,) = mend_files(disk, "/data", NODE_FILES)
            assert said.startswith(f"{path}: ")
            assert said.endswith(": made again from the other copy")
            assert disk.read_file(path) == whole()[path]
            assert named(disk) == []
        disk = disk_with(main, b"{}x")
        disk.replace_file(copy, b"")
        assert list(mend_files(disk, "/data", NODE_FILES)) == []
        assert named(disk) == sorted((main, copy))


def test_what_is_as_good_as_none_is_removed() -> None:
    removed = []
    for path in checked():
        disk = disk_with(path, b"\0")
        for said in mend_files(disk, "/data", NODE_FILES):
            if not disk.exists(path):
                removed.append(path.removeprefix("/data/node/"))
                assert re.fullmatch(f"{path}: .+: removed, .+", said)
    assert removed == ["aborted/t-0", "arrivals", "brokers.json", "intervals", "rewritten/c-0"]


def test_what_is_left_after_a_repair_is_told_once_and_what_was_mended_is_not(run: Run, data: Path) -> None:
    for name, content in (("arrivals", b"1 00000000\n"), ("topics.copy.json", b"{}x"), ("producer-ids", b"7 0\n")):
        (data / "node" / name).write_bytes(content)
    (data / "log" / "log-start-offset-checkpoint").write_bytes(b"garbage\n")
    segments = sorted((data / "log" / "readings-0").glob("*.log"))
    segments[1].unlink()
    found = run("verify", str(data))
    assert found.status == 1
    for name in ("arrivals", "topics.copy.json", "producer-ids", "log-start-offset-checkpoint"):
        assert found.out.count(f"/{name}: damaged file: ") == 1
    rows = [json.loads(line) for line in run("verify", "--json", str(data)).out.splitlines()]
    assert sum(each["kind"] == "damaged file" for row in rows for each in row["faults"]) == 4
    mended = run("repair", str(data))
    assert mended.status == 1
    lines = mended.out.splitlines()
    assert len(set(lines)) == len(lines) == 6
    told: Callable[[str], list[str]] = lambda text: [line for line in lines if text in line]  # noqa: E731
    assert told("readings-0: range missing, offsets 8 to 15")
    assert told("arrivals: ")[0].endswith("removed, the age of segments begins anew")
    assert told("topics.copy.json: ")[0].endswith(": made again")
    assert told("log-start-offset-checkpoint: ")[0].endswith(": made again")
    missing, ids = told("left as it is: ")
    assert "range missing, offsets 8 to 15" in missing
    assert f"{data}/node/producer-ids: damaged file: the checksum is wrong; a start leaps over a million ids" in ids
    again = run("repair", str(data))
    assert again.status == 1
    assert "checkpoint" not in again.out


def test_a_data_directory_of_a_newer_format_is_refused_by_name(run: Run, data: Path) -> None:
    for name in ("topics", "identity"):
        path = data / "node" / f"{name}.json"
        good = path.read_bytes()
        path.write_bytes(seal({**unseal(good), "format": 2}))
        for command in ("verify", "repair"):
            ended = run(command, str(data))
            assert ended.status == 2
            assert f"{data} was written by a newer Headwater (format 2; this one knows 1)" in ended.err
            assert ended.out == ""
        path.write_bytes(good)
