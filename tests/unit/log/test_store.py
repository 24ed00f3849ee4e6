from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from gateway.log import checkpoints
from gateway.log.errors import InvalidTopic, LogFailed, TopicExists
from gateway.log.offset_files import OffsetFiles
from gateway.log.recovery import Outcome
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock
from headwater.disk import ForgetfulDisk, RealDisk
from headwater.errors import UserError
from headwater.sealed import copy_of, seal, unseal
from tests.support.logs import DATA, SMALL, all_files, append, open_log, open_store, overwrite, read_all


def open_real(directory: Path, node: str = "edge-1") -> LogStore:
    return LogStore.open(
        str(directory),
        node=node,
        settings=LogSettings(),
        disk=RealDisk(),
        clock=ManualClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )


def test_a_topic_is_durable_with_its_settings_when_it_is_announced() -> None:
    disk = ForgetfulDisk()
    made = open_store(disk).create_topic("readings", partitions=3, config={"retention.ms": "1000"})
    disk.power_cut()
    topic = open_store(disk).topics["readings"]
    assert (topic.topic_id, topic.config, len(topic.partitions)) == (made.topic_id, {"retention.ms": "1000"}, 3)
    assert [log.index for log in topic.partitions] == [0, 1, 2]
    metadata = disk.read_file(f"{DATA}/log/readings-2/partition.metadata")
    assert checkpoints.decode_partition_metadata(metadata) == made.topic_id


def test_a_topic_whose_creation_failed_is_not_there() -> None:
    disk = ForgetfulDisk()
    store = open_store(disk)
    disk.fail_next["sync"] = OSError(5, "Input/output error")
    with pytest.raises(LogFailed, match="Cannot create topic t"):
        store.create_topic("t")
    assert not store.topics
    disk.power_cut()
    store = open_store(disk)
    assert not store.topics
    made = store.create_topic("t").topic_id
    metadata = disk.read_file(f"{DATA}/log/t-0/partition.metadata")
    assert checkpoints.decode_partition_metadata(metadata) == made


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\u00fc", "x" * 250])
def test_names_that_kafka_would_not_take_are_refused(name: str) -> None:
    with pytest.raises(InvalidTopic, match="cannot be a topic's name"):
        open_store(ForgetfulDisk()).create_topic(name)


def test_topics_that_exist_or_collide_are_refused() -> None:
    store = open_store(ForgetfulDisk())
    store.create_topic("a.b")
    with pytest.raises(TopicExists):
        store.create_topic("a.b")
    with pytest.raises(InvalidTopic, match="collide"):
        store.create_topic("a_b")
    with pytest.raises(InvalidTopic, match="0 partitions"):
        store.create_topic("c", partitions=0)


def test_partition_by_name_and_number() -> None:
    store, log = open_log(ForgetfulDisk())
    assert store.partition("t", 0) is log
    for topic, index in (("t", 1), ("t", -1), ("u", 0)):
        assert store.partition(topic, index) is None


def test_the_flushers_recovery_point_and_a_deleted_topics_checkpoints_do_not_meet() -> None:
    inside, met = threading.Event(), threading.Event()

    class Slow(ForgetfulDisk):
        def replace_file(self, path: str, data: bytes, *, mode: int = 0o640) -> None:
            if path.endswith(checkpoints.RECOVERY_POINTS):
                if inside.is_set():
                    met.set()
                inside.set()
                met.wait(0.2)
                inside.clear()
            super().replace_file(path, data)

    files = OffsetFiles(Slow(), DATA)
    flusher = threading.Thread(target=files.set_recovery_point, args=(("t", 0), 7))
    flusher.start()
    assert inside.wait(5)
    files.forget([("gone", 0)])
    files.write_all({("t", 0): 7}, {})
    flusher.join()
    assert not met.is_set()


def test_a_deleted_topic_is_gone_and_may_come_again_empty() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"a")
    store.flush_now()
    store.delete_topic("t")
    assert not [name for name in disk.names(f"{DATA}/log") if name.startswith("t-")]
    with pytest.raises(LogFailed):
        append(log, b"b")
    store.flush_now()
    disk.power_cut()
    store = open_store(disk)
    assert not store.topics
    assert store.create_topic("t").partitions[0].log_end_offset == 0
    with pytest.raises(InvalidTopic):
        store.delete_topic("u")


def test_a_deletion_that_a_power_cut_ended_is_finished_at_the_next_start() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"a")
    store.flush_now()
    original, disk.remove_directory = disk.remove_directory, _fail  # type: ignore[method-assign]
    with pytest.raises(LogFailed):
        store.delete_topic("t")
    disk.remove_directory = original  # type: ignore[method-assign]
    disk.power_cut()
    store = open_store(disk)
    assert not store.topics
    assert not disk.names(f"{DATA}/log/t-0")


def _fail(path: str) -> None:
    raise OSError(5, "Input/output error", path)


@pytest.mark.parametrize("text", [None, b"", b"{}", b'{"format": 1'])
def test_a_lost_list_of_topics_is_made_again_from_the_directories(text: bytes | None) -> None:
    disk, alarms = ForgetfulDisk(), list[str]()
    store, log = open_log(disk)
    topic_id = store.topics["t"].topic_id
    append(log, b"a")
    store.create_topic("with-dash", partitions=2)
    store.close()
    for name in ("topics.json", "topics.copy.json"):
        if text is None:
            disk.remove(f"{DATA}/node/{name}")
        else:
            overwrite(disk, f"{DATA}/node/{name}", text)
    store = open_store(disk, alarm=alarms.append)
    assert sorted(store.topics) == ["t", "with-dash"]
    assert store.topics["t"].topic_id == topic_id
    assert len(store.topics["with-dash"].partitions) == 2
    assert read_all(store.topics["t"].partitions[0]) == [(0, b"a")]
    assert len(alarms) == 2


def test_checkpoints_are_kafkas_after_a_close() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"a", b"b")
    store.close()
    store.close()
    for name in (checkpoints.RECOVERY_POINTS, checkpoints.HIGH_WATERMARKS):
        assert disk.read_file(f"{DATA}/log/{name}") == b"0\n1\nt 0 2\n"
    assert disk.read_file(f"{DATA}/log/t-0/leader-epoch-checkpoint") == b"0\n1\n0 0\n"
    properties = checkpoints.decode_properties(disk.read_file(f"{DATA}/log/meta.properties"))
    assert properties["cluster.id"] == store.cluster_id
    assert properties["directory.id"] == store.directory_id
    assert (properties["node.id"], properties["version"]) == ("1", "1")
    assert disk.exists(f"{DATA}/log/.kafka_cleanshutdown")
    again = open_store(disk)
    assert (again.cluster_id, again.directory_id) == (store.cluster_id, store.directory_id)
    assert not disk.exists(f"{DATA}/log/.kafka_cleanshutdown")


def test_status_names_the_ends_and_what_was_found() -> None:
    disk = ForgetfulDisk()
    store, log = open_log(disk)
    append(log, b"a")
    store.flush_now()
    append(log, b"b")
    status = store.status()
    (partition,) = status["topics"]["t"]["partitions"]
    assert (partition["start"], partition["end"], partition["synced"]) == (0, 2, 1)
    assert status["topics"]["t"]["bytes"] == log.size_bytes
    assert status["syncs"] == 1
    disk.power_cut(keep_tail_bytes=9)
    assert [each["outcome"] for each in open_store(disk).status()["recovered"]] == [Outcome.TORN_TAIL.value]


# -- directories that must not be used


def test_another_nodes_directory_is_refused_and_named() -> None:
    disk = ForgetfulDisk()
    open_store(disk, node="edge-1").close()
    with pytest.raises(UserError, match="belongs to node “edge-1”, and this node is “edge-2”") as caught:
        open_store(disk, node="edge-2")
    assert "data_dir" in caught.value.hint


@pytest.mark.parametrize(
    "text", [b'{"format": 2, "node": "edge-1", "cluster_id": "a", "directory_id": "b"}', b'{"format": 3}']
)
def test_a_newer_format_is_refused(text: bytes) -> None:
    disk = ForgetfulDisk()
    open_store(disk).close()
    overwrite(disk, f"{DATA}/node/identity.json", text)
    with pytest.raises(UserError, match="written by a newer Headwater"):
        open_store(disk)


@pytest.mark.parametrize("damaged", ["", "topics.json", "identity.json"])
def test_a_newer_list_of_topics_is_refused_and_nothing_in_its_directory_is_touched(damaged: str) -> None:
    disk = ForgetfulDisk()
    open_log(disk)[0].close()
    for name in ("topics.json", "topics.copy.json"):
        members = unseal(disk.read_file(f"{DATA}/node/{name}"))
        overwrite(disk, f"{DATA}/node/{name}", seal({**members, "format": 2, "shapes": ["new"]}))
    if damaged:
        overwrite(disk, f"{DATA}/node/{damaged}", b"\0")
    before = all_files(disk)
    with pytest.raises(UserError, match=r"/data was written by a newer Headwater \(format 2; this one knows 1\)"):
        open_store(disk)
    assert all_files(disk) == before


@pytest.mark.parametrize("form", [0, -1, "1", None, True])
def test_what_is_no_format_at_all_is_damage(form: object) -> None:
    disk, alarms = ForgetfulDisk(), list[str]()
    open_log(disk)[0].close()
    for name in ("topics.json", "topics.copy.json"):
        members = unseal(disk.read_file(f"{DATA}/node/{name}"))
        overwrite(disk, f"{DATA}/node/{name}", seal({**members, "format": form}))
    assert list(open_store(disk, alarm=alarms.append).topics) == ["t"]
    assert alarms == ["Topic t was missing from the list of topics; found its directories again"]


@pytest.mark.parametrize("name", ["identity.json", "topics.json"])
@pytest.mark.parametrize("fault", ["zeros", "gone", "bad sector", "a bit"])
def test_one_of_two_copies_is_enough_and_the_other_is_made_again(name: str, fault: str) -> None:
    disk, alarms = ForgetfulDisk(), list[str]()
    store, _ = open_log(disk)
    store.create_topic("set", config={"retention.ms": "1234"})
    store.close()
    path = f"{DATA}/node/{name}"
    before = disk.read_file(path)
    assert disk.read_file(copy_of(path)) == before
    if fault == "zeros":
        overwrite(disk, path, bytes(len(before)))
    elif fault == "gone":
        disk.remove(path)
    elif fault == "bad sector":
        disk.bad_files.add(path)
    else:
        overwrite(disk, path, before.replace(b"edge-1", b"edge-0").replace(b"1234", b"1334"))
    again = open_store(disk, alarm=alarms.append)
    assert (again.cluster_id, again.directory_id) == (store.cluster_id, store.directory_id)
    assert again.topics["set"].config == {"retention.ms": "1234"}
    assert alarms == []
    disk.bad_files.clear()
    assert disk.read_file(path) == disk.read_file(copy_of(path)) == before


def test_a_file_from_before_there_were_checksums_counts_and_gets_one() -> None:
    disk = ForgetfulDisk()
    open_log(disk)[0].close()
    for name in ("identity", "topics"):
        fields = msgspec.json.decode(disk.read_file(f"{DATA}/node/{name}.json"))
        del fields["crc"]
        overwrite(disk, f"{DATA}/node/{name}.json", msgspec.json.encode(fields))
        disk.remove(f"{DATA}/node/{name}.copy.json")
    store = open_store(disk)
    assert list(store.topics) == ["t"]
    for name in ("identity", "topics"):
        assert b'"crc"' in disk.read_file(f"{DATA}/node/{name}.json")
        assert disk.exists(f"{DATA}/node/{name}.copy.json")


def test_a_damaged_identity_is_made_again_with_the_same_ids() -> None:
    disk = ForgetfulDisk()
    store = open_store(disk)
    store.close()
    for name in ("identity.json", "identity.copy.json"):
        overwrite(disk, f"{DATA}/node/{name}", b"\0\0\0")
    again = open_store(disk)
    assert (again.cluster_id, again.directory_id) == (store.cluster_id, store.directory_id)


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("not ours")
    with pytest.raises(UserError, match=r"no Headwater data directory: it holds letters\.txt"):
        open_real(tmp_path)
    assert os.listdir(tmp_path) == ["letters.txt"]


def test_a_mount_and_a_configuration_beside_the_data_are_no_strangers(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "edge.toml").write_text("")
    open_real(tmp_path).close()


def test_an_unwritable_directory_is_named_with_the_cure() -> None:
    disk = ForgetfulDisk()
    disk.fail_next["replace_file"] = PermissionError(13, "Permission denied", "/data/node/identity.json.tmp")
    with pytest.raises(
        UserError, match=r"Cannot use /data/node/identity\.json\.tmp as data: Permission denied"
    ) as caught:
        open_store(disk)
    assert "may write" in caught.value.hint


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match=r"Cannot use .*data"):
        open_real(tmp_path / "data")


HOLD = """
import sys
from gateway.log.lock import DirectoryLock
lock = DirectoryLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_directory_in_use_names_its_holder(tmp_path: Path) -> None:
    open_real(tmp_path).close()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "node" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        reserve = tmp_path / "node" / "reserve"
        reserve.write_bytes(b"not free to go")
        with (
            patch.object(RealDisk, "free_bytes", return_value=0),
            pytest.raises(UserError, match=f"{tmp_path} is in use by process {holder.pid} ") as caught,
        ):
            open_real(tmp_path)
        assert reserve.exists()
        assert "python" in caught.value.what
        holder.communicate()
    open_real(tmp_path).close()


def test_the_real_disk_keeps_a_log_over_a_restart(tmp_path: Path) -> None:
    store = open_real(tmp_path / "a" / "data")
    log = store.create_topic("t").partitions[0]
    append(log, b"a")
    store.close()
    store = open_real(tmp_path / "a" / "data")
    assert store.stopped_cleanly
    assert read_all(store.topics["t"].partitions[0]) == [(0, b"a")]
    store.delete_topic("t")
    assert not (tmp_path / "a" / "data" / "log" / "t-0").exists()
    store.close()


def test_many_closed_segments_keep_few_files_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = LogStore.open(
        str(tmp_path),
        node="edge-1",
        settings=LogSettings(segment_bytes=SMALL.segment_bytes, open_segments_max=3, fsync_interval_ms=0),
        disk=RealDisk(),
        clock=ManualClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )
    log = store.create_topic("t").partitions[0]
    for _ in range(200):
        append(log, b"x" * 200)
    store.flush_now()
    assert log.segments_count > 10
    assert len(read_all(log)) == 200
    assert len(os.listdir("/proc/self/fd")) - before <= 3 + 2  # the readers', the active segment, the lock
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before
