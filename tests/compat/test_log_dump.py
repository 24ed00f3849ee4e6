"""Kafka's own DumpLogSegments reads our segments, indexes, snapshots and transaction indexes.

It exits 0 even for a damaged file, so its text is read; and it takes the first record of a later segment for a gap
("Non-consecutive offsets"), which is no finding.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.log import records
from gateway.log.partition import PartitionLog
from gateway.log.records import Compression
from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from headwater.clock import ManualClock
from headwater.disk import RealDisk
from tests.support.logs import NOW_MS, append, marker
from tests.support.peers import kafka_tool

pytestmark = pytest.mark.peer("kafka")

DAMAGE = re.compile(r"isvalid: false|invalid bytes|Mismatches|Exception|Error")


def open_real(directory: Path) -> tuple[LogStore, PartitionLog]:
    store = LogStore.open(
        str(directory),
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0, segment_bytes=16_384, index_interval_bytes=512),
        disk=RealDisk(),
        clock=ManualClock(),
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )
    topic = store.topics.get("t") or store.create_topic("t")
    return store, topic.partitions[0]


def write_everything(log: PartitionLog) -> None:
    """Plain, compressed, sequenced and transactional batches, markers of both kinds, times that go back."""
    for number in range(40):
        append(log, b"v" * 150, b"w", timestamp=NOW_MS + 1_000 * (number if number % 7 else number - 5))
        codec = list(Compression)[number % 5]
        rows = [
            (NOW_MS + number, b"edge/t1", b'{"power":812.5}' * 9, records.encode_headers([("hw-m", b"7:ab:c")]))
        ] * 5
        log.append(records.encode_batch(rows, compression=codec), now_ms=NOW_MS)
        append(log, b"s" * 80, b"t", producer_id=70, producer_epoch=1, base_sequence=2 * number)
        for producer_id, commit in ((71, True), (72, False)):
            append(log, b"x", producer_id=producer_id, producer_epoch=0, base_sequence=number, transactional=True)
            marker(log, producer_id, commit=commit)
    append(log, b"open", producer_id=73, producer_epoch=4, base_sequence=0, transactional=True)


def count_batches(path: Path) -> int:
    return len(records.split_batches(path.read_bytes()))


@pytest.fixture(name="directory", scope="module")
def _directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partition's directory after a clean stop; every segment in it is closed."""
    data = tmp_path_factory.mktemp("data")
    store, log = open_real(data)
    write_everything(log)
    store.close()
    store, log = open_real(data)  # a second life goes on in the same segment
    append(log, b"v" * 3_000)
    append(log, b"again", producer_id=70, producer_epoch=1, base_sequence=80)
    store.close()
    return data / "log" / "t-0"


def test_every_batch_is_valid_and_none_is_damaged(directory: Path) -> None:
    logs = sorted(directory.glob("*.log"))
    assert len(logs) > 2
    text = kafka_tool("dump-log", "--deep-iteration", "--print-data-log", "--files", ",".join(map(str, logs)))
    assert not DAMAGE.search(text)
    assert text.count("isvalid: true") == sum(count_batches(path) for path in logs)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        assert f"compresscodec: {codec}" in text
    assert text.count("endTxnMarker: COMMIT coordinatorEpoch: 0") == 40
    assert text.count("endTxnMarker: ABORT coordinatorEpoch: 0") == 40
    assert "headerKeys: [hw-m]" in text
    assert "producerId: 70 producerEpoch: 1 partitionLeaderEpoch: 0" in text


def test_indexes_pass_the_sanity_check_and_agree_with_the_log(directory: Path) -> None:
    indexes = sorted([*directory.glob("*.index"), *directory.glob("*.timeindex")])
    assert len(indexes) == 2 * len(list(directory.glob("*.log")))
    names = ",".join(map(str, indexes))
    sane = kafka_tool("dump-log", "--index-sanity-check", "--files", names)
    assert sane.count("passed sanity check.") == len(indexes)
    verified = kafka_tool("dump-log", "--verify-index-only", "--files", names)
    assert not DAMAGE.search(verified)
    assert [line for line in verified.splitlines() if line and not line.startswith("Dumping")] == []


def test_producer_snapshots_and_aborted_transactions_are_read(directory: Path) -> None:
    snapshot = max(directory.glob("*.snapshot"))
    text = kafka_tool("dump-log", "--files", str(snapshot))
    assert re.search(
        r"producerId: 70 producerEpoch: 1 .*currentTxnFirstOffset: OptionalLong.empty .*lastSequence: 80", text
    )
    assert re.search(r"producerId: 73 producerEpoch: 4 .*currentTxnFirstOffset: OptionalLong\[\d+\]", text)
    indexes = sorted(directory.glob("*.txnindex"))
    text = kafka_tool("dump-log", "--files", ",".join(map(str, indexes)))
    assert text.count("producerId: 72") == 40
    assert not DAMAGE.search(text)


def test_the_judge_sees_damage_when_there_is_some(directory: Path, tmp_path: Path) -> None:
    """Without this, a tool that printed nothing would pass the tests above."""
    source = min(directory.glob("*.log"))
    data = bytearray(source.read_bytes())
    data[200] ^= 0xFF
    flipped = tmp_path / "flipped" / source.name
    cut = tmp_path / "cut" / source.name
    for path, content in ((flipped, bytes(data)), (cut, source.read_bytes()[:-100])):
        path.parent.mkdir()
        path.write_bytes(content)
        assert DAMAGE.search(kafka_tool("dump-log", "--files", str(path)))
