"""Kafka's own DumpLogSegments reads segments that this log has compacted: gaps, empty batches, delete horizons."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.log import records
from gateway.log.cleaner import Cleaner
from gateway.log.records import Compression
from gateway.log.steps import run_steps
from gateway.log.topic_config import DAY_MS, parse_config
from tests.compat.test_log_dump import DAMAGE, count_batches, open_real
from tests.support.logs import NOW_MS, marker
from tests.support.peers import kafka_tool
from tests.support.upkeep import put

pytestmark = pytest.mark.peer("kafka")
CONFIG = {"cleanup.policy": "compact", "segment.bytes": "8192", "min.cleanable.dirty.ratio": "0"}


@pytest.fixture(name="directory", scope="module")
def _directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compacted partition's directory after a clean stop."""
    data = tmp_path_factory.mktemp("data")
    store, log = open_real(data)
    store.configure_topic("t", CONFIG)
    for number in range(60):
        keys = [b"key-%d" % (number % 9 + more) for more in range(4)]
        rows = [(NOW_MS + number, key, b"%d" % number * 40, records.NO_HEADERS) for key in keys]
        log.append(records.encode_batch(rows, compression=list(Compression)[number % 5]), now_ms=NOW_MS)
        put(log, [(b"gone-%d" % (number % 5), None)])
        for producer_id, commit in ((71, True), (72, False)):
            key = b"txn-%d-%d" % (producer_id, number % 3)
            put(log, [(key, b"x")], producer_id=producer_id, producer_epoch=0, base_sequence=number, transactional=True)
            marker(log, producer_id, commit=commit)
    store.flush_now()
    for turn in range(3):
        log.roll_now()
        store.flush_now()
        now_ms = NOW_MS + turn * DAY_MS // 4
        cleaner = Cleaner(log, parse_config(CONFIG), cleaned_offset=0, now_ms=now_ms, keys_max=1_000)
        run_steps(cleaner.steps())
        assert cleaner.result is not None
        put(log, [(b"late", b"%d" % turn)])
        store.flush_now()
    store.close()
    return data / "log" / "t-0"


def test_every_batch_is_valid_with_its_gaps_empty_batches_and_horizons(directory: Path) -> None:
    logs = sorted(directory.glob("*.log"))
    text = kafka_tool("dump-log", "--deep-iteration", "--print-data-log", "--files", ",".join(map(str, logs)))
    assert not DAMAGE.search(text)
    assert text.count("isvalid: true") == sum(count_batches(path) for path in logs)
    assert re.search(r"count: 0 .*isvalid: true", text)
    assert re.search(r"deleteHorizonMs: OptionalLong\[\d{13}\]", text)
    assert len(re.findall(r"key: gone-\d", text)) == 5
    assert len(re.findall(r"key: key-\d+ ", text)) == 12
    assert "txn-72" not in text
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        assert f"compresscodec: {codec}" in text


def test_indexes_of_compacted_segments_agree_with_them(directory: Path) -> None:
    indexes = sorted([*directory.glob("*.index"), *directory.glob("*.timeindex")])
    names = ",".join(map(str, indexes))
    sane = kafka_tool("dump-log", "--index-sanity-check", "--files", names)
    assert len(re.findall(r"passed sanity check\.|\.index is empty\.", sane)) == len(indexes)
    verified = kafka_tool("dump-log", "--verify-index-only", "--files", names)
    assert not DAMAGE.search(verified)
    said = [line for line in verified.splitlines() if line and not line.startswith("Dumping")]
    assert [line for line in said if not line.endswith("is empty.")] == []
