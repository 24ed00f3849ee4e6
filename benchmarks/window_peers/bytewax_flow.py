"""Bytewax at the `windows` benchmark, without recovery: run by its own Python, not ours.

    bytewax_flow.py BOOTSTRAP INPUT OUTPUT GROUP READINGS FOLDER

Says `first` and `last` with the time at which it had the first and the last reading, and goes on until it is ended.
"""

# What it imports lies in an environment of its own.
# mypy: ignore-errors
from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Reading = tuple[datetime, float]
Window = tuple[int, float, float, float]


def main() -> None:
    bootstrap, source, target, _, count, _ = sys.argv[1:]
    readings, seen = int(count), 0
    from_s = datetime.fromtimestamp

    def parse(message: KafkaSourceMessage) -> tuple[str, Reading]:
        nonlocal seen
        seen += 1
        if seen == 1 or seen == readings:
            print("first" if seen == 1 else "last", time.time(), flush=True)
        return message.key.decode(), (from_s(message.timestamp[1] / 1000, UTC), orjson.loads(message.value)["value"])

    def fold(window: Window, reading: Reading) -> Window:
        count, total, low, high = window
        value = reading[1]
        return count + 1, total + value, value if value < low else low, value if value > high else high

    def told(item: tuple[str, tuple[int, Window]]) -> KafkaSinkMessage:
        key, (number, (count, total, low, high)) = item
        value = {"start": number * 60_000, "count": count, "mean": total / count, "min": low, "max": high}
        return KafkaSinkMessage(key.encode(), json.dumps(value).encode())

    flow = Dataflow("windows")
    fetch = {"fetch.queue.backoff.ms": "10"}
    keyed = op.map("parse", op.input("read", flow, KafkaSource([bootstrap], [source], add_config=fetch)), parse)
    # Its clock goes on while nothing comes: with no wait a machine that stands still makes readings late.
    clock = win.EventClock(lambda reading: reading[0], wait_for_system_duration=timedelta(seconds=10))
    windows = win.TumblingWindower(length=timedelta(seconds=60), align_to=EPOCH)
    empty: Window = (0, 0.0, float("inf"), float("-inf"))
    folded = win.fold_window("fold", keyed, clock, windows, lambda: empty, fold, lambda a, b: a)
    kafka.output("write", op.map("tell", folded.down, told), brokers=[bootstrap], topic=target)
    cluster_main(flow, [], 0)


if __name__ == "__main__":
    main()
