"""What `scripts/older-data` runs with the code of an earlier commit: `python older_data.py FOLDER`.

It writes `data`, a data directory, and `records.json`: per topic [offset, key, value] of every record that is served,
and the points of the page's history. So it uses only what was there from the beginning.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from gateway.log import records
from gateway.log.partition import PartitionLog
from gateway.log.settings import LogSettings
from gateway.log.steps import run_steps
from gateway.log.store import LogStore
from gateway.log.upkeep import Upkeep
from gateway.replicate.journal import Remembered, RunJournal
from headwater.clock import ManualClock
from headwater.disk import RealDisk

NOW_MS = 1_700_000_000_000
SMALL = {"segment.bytes": "1024"}
COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0", "delete.retention.ms": "0"}
DEVICE, WHERE = "n/a", ("aggregates", 0)


def opened(data: str, clock: ManualClock) -> LogStore:
    return LogStore.open(
        data,
        node="edge-1",
        settings=LogSettings(fsync_interval_ms=0, segment_bytes=4_096, reserve_bytes=0),
        disk=RealDisk(),
        clock=clock,
        call_in_loop=lambda callback: callback(),
        flusher="manual",
    )


def listing(log: PartitionLog) -> list[list[Any]]:
    """[offset, key, value] of what a reader of committed records is shown."""
    at, found = log.log_start_offset, []
    aborting: set[int] = set()
    while data := (result := log.read(at, 4_096, committed=True)).data:
        pending = sorted(result.aborted, key=lambda each: each[1])
        for view in records.split_batches(data):
            header = records.check_batch(view)
            at = header.next_offset
            while pending and pending[0][1] <= header.last_offset:
                aborting.add(pending.pop(0)[0])
            if header.is_control:
                aborting.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborting):
                columns = records.decode_batch(view)
                rows = zip(columns.offsets, columns.keys, columns.values, strict=True)
                found += [[offset, (key or b"").decode(), (value or b"").decode()] for offset, key, value in rows]
    return found


def put(log: PartitionLog, number: int, **producer: Any) -> None:
    rows = [(NOW_MS + number, b"k%d" % (number % 3), b"%d " % number + b"x" * 90, records.NO_HEADERS)]
    log.append(records.encode_batch(rows, **producer), now_ms=NOW_MS + number)


def end(log: PartitionLog, *, commit: bool) -> None:
    marker = records.encode_control(
        commit=commit, producer_id=7, producer_epoch=0, coordinator_epoch=0, timestamp_ms=NOW_MS
    )
    log.append(marker, now_ms=NOW_MS, control=True)


def write(folder: Path) -> None:
    data, clock = str(folder / "data"), ManualClock(wall_ms=NOW_MS)
    store = opened(data, clock)
    for topic, config in (("t", SMALL), ("c", SMALL | COMPACT)):
        log = store.create_topic(topic, config=config).partitions[0]
        for number in range(24):
            put(log, number)
            store.flush_now()
        for sequence, commit in enumerate((True, False)):
            put(log, 30 + sequence, producer_id=7, producer_epoch=0, base_sequence=sequence, transactional=True)
            end(log, commit=commit)
            store.flush_now()
        put(log, 40)
        store.flush_now()
    upkeep = Upkeep(store, clock=clock, trusted=lambda: True)
    for _ in range(3):
        clock.advance(20_000)
        run_steps(upkeep.turn())
        store.flush_now()
    upkeep.close()
    journal = RunJournal.begin(
        store.disk, data, first={"t/0": 3}, random=Random(1), boot_id="b", wall_ms=NOW_MS, monotonic_ms=0.0
    )
    journal.remember(Remembered(cluster="c", topic_id="i", partition=0, offset=42, txn=9))
    known: dict[str, Any] = {name: listing(topic.partitions[0]) for name, topic in store.topics.items()}
    store.close()
    known["run"] = journal.run
    known["history"] = history(str(folder / "data" / "work" / "history.db"))
    (folder / "records.json").write_text(json.dumps(known))


def history(path: str) -> list[Any]:
    """The points of a history, which is begun where there is none; [] before there were any."""
    try:
        from processors.history.store import HistoryStore
    except ImportError:
        return []
    store = HistoryStore(path, bytes_max=64 << 20)
    if not store.positions():
        row = {"rule": "w", "group": DEVICE, "revision": 0, "complete": True, "count": 2}
        values = [
            json.dumps({**row, "start": at, "end": at + 60_000, "fields": {"t": {"mean": at % 977 / 7}}}).encode()
            for at in range(NOW_MS, NOW_MS + 1_800_000, 60_000)
        ]
        store.take(values, WHERE, len(values))
        store.flush()
    points = store.read(DEVICE, "w", "t", "mean", NOW_MS, NOW_MS + 3_600_000)
    store.close()
    return [list(point) for point in points]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
