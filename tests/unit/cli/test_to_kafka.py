"""`headwater log to-kafka`: what it copies, and what it refuses before anything is touched."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.log import checkpoints
from gateway.log.files import NOBODY
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.cli.to_kafka import DONE, NOT_YET, to_kafka
from headwater.clock import ManualClock
from headwater.disk import RealDisk
from headwater.errors import UserError
from tests.support.logs import append, marker

PLACES = (("t", 0), ("t", 1), ("kept", 0))


def open_store(data: Path) -> LogStore:
    return LogStore.open(
        str(data),
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0, segment_bytes=4_096),
        disk=RealDisk(),
        clock=ManualClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    store = open_store(tmp_path / "data")
    store.create_topic("t", partitions=2, config={"retention.ms": "60000", "segment.bytes": "4096"})
    store.create_topic("kept")
    store.create_topic("__consumer_offsets", config={"cleanup.policy": "compact"})
    for name, number in PLACES:
        log = store.topics[name].partitions[number]
        for _ in range(10):
            append(log, b"v" * 900)
        append(log, b"x", producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
        marker(log, 7, commit=True)
    store.close()
    return tmp_path / "data"


@pytest.fixture(name="broker")
def _broker(tmp_path: Path) -> Path:
    """The log directory of a broker that has been told of the topics, and stopped."""
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "meta.properties").write_text("node.id=1\n")
    (folder / checkpoints.CLEAN_SHUTDOWN).touch()
    (folder / checkpoints.LOG_STARTS).write_bytes(checkpoints.encode_offsets({("other", 0): 4}))
    for name, number in PLACES:
        place = folder / f"{name}-{number}"
        place.mkdir()
        for file in ("00000000000000000000.log", "00000000000000000000.index", "00000000000000000000.timeindex"):
            (place / file).touch()
        (place / "partition.metadata").write_text("theirs")
        (place / "leader-epoch-checkpoint").write_text("0\n0\n")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _killed(data: Path, broker: Path) -> None:
    (data / "log" / checkpoints.CLEAN_SHUTDOWN).unlink()


def _broker_killed(data: Path, broker: Path) -> None:
    (broker / checkpoints.CLEAN_SHUTDOWN).unlink()


def _no_note(data: Path, broker: Path) -> None:
    (data / "node" / "clean-stop").unlink()


def _other_snapshot(data: Path, broker: Path) -> None:
    snapshot = max((data / "log" / "t-1").glob("*.snapshot"))
    snapshot.write_bytes(NOBODY)


def _index_gone(data: Path, broker: Path) -> None:
    min((data / "log" / "kept-0").glob("*.index")).unlink()


def test_after_a_clean_stop_all_goes_over_and_the_broker_takes_it_as_it_is(
    data: Path, broker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broker / checkpoints.CLEAN_SHUTDOWN).write_bytes(b"of the broker's own epoch")
    before = tree(data)
    assert to_kafka(str(broker), str(data)) == DONE
    assert "as they are" in capsys.readouterr().out
    assert tree(data) == before
    for name, number in PLACES:
        ours = tree(data / "log" / f"{name}-{number}")
        assert {Path(file).suffix for file in ours} >= {".log", ".index", ".timeindex", ".snapshot"}
        assert tree(broker / f"{name}-{number}") == {**ours, "partition.metadata": b"theirs"}
    assert (broker / checkpoints.CLEAN_SHUTDOWN).read_bytes() == b"of the broker's own epoch"


@pytest.mark.parametrize("change", [_killed, _broker_killed, _no_note, _other_snapshot, _index_gone])
def test_where_a_stop_was_not_clean_batches_go_over_and_the_broker_will_read_them_all(
    data: Path, broker: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path, Path], None]
) -> None:
    change(data, broker)
    RealDisk().replace_file(str(data / "log" / checkpoints.LOG_STARTS), checkpoints.encode_offsets({("t", 1): 3}))
    before = tree(data)
    assert to_kafka(str(broker), str(data)) == DONE
    assert "2 topics, 3 partitions" in capsys.readouterr().out
    assert tree(data) == before
    for name, number in PLACES:
        ours, theirs = data / "log" / f"{name}-{number}", broker / f"{name}-{number}"
        segments = {path.name: path.read_bytes() for path in ours.glob("*.log")}
        assert len(segments) > 2
        assert tree(theirs) == {**segments, "partition.metadata": b"theirs"}
    assert not (broker / checkpoints.CLEAN_SHUTDOWN).exists()  # or the broker would trust indexes that are not there
    starts = checkpoints.decode_offsets((broker / checkpoints.LOG_STARTS).read_bytes())
    assert starts == {("other", 0): 4, ("t", 1): 3}


def test_topics_that_the_broker_lacks_are_told_as_commands(
    data: Path, broker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, number in PLACES:
        (broker / f"{name}-{number}" / "partition.metadata").unlink()
    assert to_kafka(str(broker), str(data)) == NOT_YET
    at = "kafka-topics.sh --bootstrap-server localhost:9092 --create --topic"
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert told == [
        f"{at} kept --partitions 1 --replication-factor 1 --config retention.ms=-1",
        f"{at} t --partitions 2 --replication-factor 1 --config retention.ms=60000",
    ]


def refused(data: Path, broker: Path) -> str:
    before = tree(broker)
    with pytest.raises(UserError) as raised:
        to_kafka(str(broker), str(data))
    assert tree(broker) in (before, {**before, ".lock": b""})
    return raised.value.what


def test_a_node_that_runs_is_refused(data: Path, broker: Path) -> None:
    store = open_store(data)
    assert "is in use by process" in refused(data, broker)
    store.close()


def test_a_broker_that_runs_is_refused(data: Path, broker: Path) -> None:
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(1, flush=True);"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(broker / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    said = refused(data, broker)
    holder.communicate()
    assert said == f"the broker of {broker} runs"


def test_records_that_are_there_already_are_left_alone(data: Path, broker: Path) -> None:
    (broker / "kept-0" / "00000000000000000000.log").write_bytes(b"theirs")
    assert "the broker's kept-0 holds records already" in refused(data, broker)


def test_an_open_transaction_is_refused(data: Path, broker: Path) -> None:
    store = open_store(data)
    log = store.topics["t"].partitions[1]
    first = log.log_end_offset
    append(log, b"x", producer_id=9, producer_epoch=0, base_sequence=0, transactional=True)
    append(log, b"more", producer_id=9, producer_epoch=0, base_sequence=1, transactional=True)
    store.close()
    assert f"t-1: the transaction of producer 9 from offset {first} is open" in refused(data, broker)


def test_damage_is_refused(data: Path, broker: Path) -> None:
    path = min((data / "log" / "t-0").glob("*.log"))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "t-0 is damaged" in refused(data, broker)


def test_what_a_failed_sync_took_back_stays_behind(data: Path, broker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(data)
    log = store.topics["t"].partitions[1]
    append(log, b"whole")
    store.flush_now()
    append(log, b"lost", producer_id=9, producer_epoch=0, base_sequence=0, transactional=True)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", failing_sync)
        store.flush_now()
    append(log, b"kept")
    store.close()
    before = tree(data)
    assert b"lost" in b"".join(before.values())
    assert to_kafka(str(broker), str(data)) == DONE
    assert tree(data) == before
    copied = tree(broker / "t-1")
    started = open_store(data)
    started.close()
    segments = {path.name: path.read_bytes() for path in (data / "log" / "t-1").glob("*.log")}
    assert copied == {**segments, "partition.metadata": b"theirs"}
    assert b"lost" not in b"".join(copied.values())


def failing_sync(handle: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_folder_that_is_no_brokers_is_refused(data: Path, tmp_path: Path) -> None:
    assert "is no broker's log directory" in refused(data, tmp_path)
