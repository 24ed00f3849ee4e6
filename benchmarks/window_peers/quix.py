"""Quix Streams at the `windows` benchmark: run by its own Python, not ours.

    quix.py BOOTSTRAP INPUT OUTPUT GROUP READINGS FOLDER

Says `first` and `last` with the time at which it had the first and the last reading, and waits to be ended.
"""

# What it imports lies in an environment of its own.
# mypy: ignore-errors
from __future__ import annotations

import sys
import time

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Mean, Min


def main() -> None:
    bootstrap, source, target, group, count, folder = sys.argv[1:]
    readings, seen = int(count), 0
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=folder,
        loglevel="ERROR",
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
    )

    def had(value: dict) -> None:
        nonlocal seen
        seen += 1
        if seen == 1 or seen == readings:
            print("first" if seen == 1 else "last", time.time(), flush=True)

    frame = app.dataframe(app.topic(source, value_deserializer="json", key_deserializer="str"))
    frame = frame.update(had)
    aggregates = {"count": Count(), "mean": Mean("value"), "min": Min("value"), "max": Max("value")}
    frame = frame.tumbling_window(60_000).agg(**aggregates).final()
    frame.to_topic(app.topic(target, value_serializer="json", key_serializer="str"))
    app.run(count=readings, collect=False)
    sys.stdin.read()


if __name__ == "__main__":
    main()
