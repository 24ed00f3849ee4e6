"""Topics' own settings: which there are, which values they take, and what they change."""

from __future__ import annotations

import re

import pytest

from gateway.log import records
from gateway.log.errors import InvalidTopic
from gateway.log.topic_config import parse_config
from tests.support.logs import NOW_MS, SMALL, FlakyDisk, append, open_log
from tests.support.upkeep import COMPACT


def test_a_topics_own_segment_settings_are_obeyed_and_may_change() -> None:
    disk = FlakyDisk()
    store, log = open_log(disk)
    append(log, bytes(3_000))
    append(log, bytes(300))
    assert log.segments_count == 1
    store.configure_topic("t", {"segment.bytes": "1024", "segment.ms": "1000"})
    append(log, b"1")
    assert log.segments_count == 2
    log.append(records.encode_batch([(NOW_MS, b"", b"", records.NO_HEADERS)]), now_ms=NOW_MS + 1_001)
    assert log.segments_count == 3
    disk.power_cut()
    store, log = open_log(disk)
    assert store.topics["t"].config["segment.bytes"] == "1024"


def test_only_a_compacted_topics_segments_are_small_by_default() -> None:
    assert parse_config({}).log_settings(SMALL) == SMALL
    big = SMALL.__class__()
    assert parse_config({"cleanup.policy": "compact"}).log_settings(big).segment_bytes == 1 << 20
    assert parse_config(COMPACT).log_settings(big).segment_bytes == 1_024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "squash"),
        ("cleanup.policy", ""),
        ("retention.ms", "-2"),
        ("retention.bytes", "much"),
        ("segment.bytes", "10"),
        ("min.cleanable.dirty.ratio", "1.5"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    store, _ = open_log(FlakyDisk())
    with pytest.raises(InvalidTopic, match=re.escape(f"{name} cannot be “{value}”")):
        store.create_topic("other", config={name: value})
    with pytest.raises(InvalidTopic, match=re.escape(name)):
        store.configure_topic("t", {name: value})
    store.create_topic("other", config={"max.message.bytes": "7", "cleanup.policy": "compact,delete"})
