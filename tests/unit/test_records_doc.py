"""docs/records.md against the code: each golden example there is what the code writes today, byte for byte.

When one of these fails the layout of a record changed, and data in the field has the old one. Do not regenerate the
example; decide first how old records stay readable.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from devices.description import DeviceSettings, DevicesSettings
from devices.profile_files import read_profiles
from devices.profile_text import load_profiles
from devices.reading import Reading
from gateway.consume.reader import Block
from gateway.ingest.devices import Devices
from gateway.ingest.events import Events
from gateway.ingest.outcome import Outcome
from gateway.ingest.pipeline import Ingest
from gateway.log.partition import PartitionLog
from gateway.log.records import decode_batch, decode_headers, encode_headers, split_batches
from gateway.replicate.copies import copy_records
from processors.processor import Output, PartitionProcessor
from processors.rules.files import load_rules
from tests.support.ingest import Edge

DOC = Path(__file__).parents[2] / "docs" / "records.md"
GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = re.compile(r"<!-- golden: ([\w ]+) -->\n```\n(.*?)```", re.S)
PAYLOAD = b'{"ts":1700000000000,"seq":41,"wind_speed":7.1,"wind_direction":350.0,"gearbox_temperature":90.5}'


def text_of(timestamp: int, key: bytes | None, value: bytes | None, headers: bytes) -> str:
    lines = [f"timestamp {timestamp}", f"key       {(key or b'').decode()}", f"value     {(value or b'').decode()}"]
    lines += [f"header    {name}: {(content or b'').decode()}" for name, content in decode_headers(headers)]
    return "\n".join(lines) + "\n"


def last_of(log: PartitionLog) -> str:
    columns = decode_batch(split_batches(log.read(log.log_start_offset, 1 << 20).data)[-1])
    return text_of(columns.timestamps[-1], columns.keys[-1], columns.values[-1], columns.headers[-1])


def copy_of(log: PartitionLog) -> str:
    columns = decode_batch(split_batches(log.read(log.log_start_offset, 1 << 20).data)[-1])
    copies = copy_records(columns, node="edge", partition=0, epoch=0, start=0, end=log.log_end_offset)
    return text_of(*copies[-1])


def edge_examples() -> dict[str, str]:
    edge = Edge(profiles=read_profiles(("wind-turbine",)))
    registry = edge.registry()
    session, present, _ = registry.open("turbine-01", clean=False, ends={"readings": 0, "deadletter": 0})
    turbine = edge.attach("turbine-01", session, resumed=present)
    found = {}
    edge.take(turbine, ("farm/turbine-01/telemetry", PAYLOAD, 7, 0))
    edge.sync()
    found["reading"] = last_of(edge.ingest.readings)
    edge.clock.advance(1000)
    late_clock = PAYLOAD.replace(b"1700000000000", b"1700003601000").replace(b'"seq":41', b'"seq":42')
    edge.take(turbine, ("farm/turbine-01/telemetry", late_clock, 8, 0))
    edge.sync()
    found["reading with a mark and an untrusted time"] = last_of(edge.ingest.readings)
    found["copy at the central"] = copy_of(edge.ingest.readings)
    edge.take(turbine, ("farm/turbine-01/telemetry", b"out of order", 9, 0))
    edge.sync()
    found["dead letter"] = last_of(edge.ingest.deadletter)
    edge.clock.advance(1500)
    edge.ingest.tick()
    edge.sync()
    found["health reading"] = last_of(edge.ingest.readings)
    events = Events(edge.store, node="edge", clock=edge.clock)
    events.emit("start", version="0.1.0")
    edge.store.flush_now()
    found["event"] = last_of(edge.store.topics["events"].partitions[0])
    return found


GAUGE = """
name = "rain_gauge"
decoder = "/x/rain_gauge.py:decode"
topics = ["rain/{device}"]
zone = "Europe/Berlin"
expected_interval_ms = 60000
[fields.rain]
unit = "mm"
min = 0
"""


def decoder_examples() -> dict[str, str]:
    """A message of a user's decoder, and what came of it."""
    profiles = load_profiles([("rain_gauge.toml", GAUGE)])
    edge = Edge(profiles=profiles)
    edge.clock.advance(2500)
    devices = Devices(edge.store, "edge", DevicesSettings(), [DeviceSettings(device="*", name="Roof", site="mill")])
    edge.ingest = Ingest(
        edge.store,
        node="edge",
        profiles=profiles,
        marks=edge.marks,
        clock=edge.clock,
        health=dict,
        devices=devices,
        loop=edge.loop,
    )
    registry = edge.registry()
    session, present, _ = registry.open("gauge-1", clean=False, ends={})
    edge.take(edge.attach("gauge-1", session, resumed=present), ("rain/gauge-1", b"two", 5, 0))
    edge.sync()
    found = {"raw message": last_of(edge.store.topics["raw"].partitions[0])}
    now_ms = edge.clock.wall_ms()
    outcome = Outcome(0, "mqtt:gauge-1", now_ms, "rain/gauge-1", [Reading("gauge-1", {"rain": 0.2})], payload=b"two")
    edge.ingest.take_outcomes("rain_gauge", [outcome], first=0, next_offset=1, done=lambda _: None)
    edge.store.flush_now()
    found["reading from a raw message"] = last_of(edge.ingest.readings)
    found["device"] = last_of(edge.store.topics["devices"].partitions[0])
    return found


def central_examples() -> dict[str, str]:
    """What the central computes of one hot turbine, from marks that close three windows."""
    start = 1_700_000_000_000
    processor = PartitionProcessor(load_rules(("wind-farm",)), "readings", 0, place="central")
    outputs: list[Output] = []
    for second in (*range(34), 180_000, 180_001):  # and two days later a reading of the beginning
        at = start + second * 1000
        mark = {
            "v": 1, "node": "edge", "epoch": 0, "partition": 0, "k": 1, "n": second + 1, "live": at - 2000,
            "src": {}, "clock": at, "every_ms": 1000, "open": [], "lost": [],
        }  # fmt: skip
        headers = encode_headers([("hw-mark", msgspec.json.encode(mark)), ("hw", b"edge/0/0/%d" % second)])
        value = msgspec.json.encode({"gearbox_temperature": 90.5, "wind_direction": 350.0})
        time = start if second == 180_001 else at
        block = Block("readings", 0, [second], [time], [b"edge/turbine-01"], [value], [headers], second + 1)
        outputs += processor.process(block)
    first = {output.topic: output for output in reversed(outputs)}
    firing = next(o for o in outputs if o.topic == "alerts" and b'"firing"' in (o.record[2] or b""))
    return {
        "aggregate": text_of(*first["aggregates"].record),
        "late reading": text_of(*first["late"].record),
        "alert": text_of(*firing.record),
    }


@pytest.fixture(scope="module")
def examples() -> dict[str, str]:
    progress = (GOLDEN / "progress-v1.json").read_text().strip()
    return (
        edge_examples()
        | decoder_examples()
        | central_examples()
        | {"progress": f"key       ridge-7\nvalue     {progress}\n"}
    )


def test_every_record_of_the_page_is_what_the_code_writes(examples: dict[str, str]) -> None:
    written = dict(EXAMPLE.findall(DOC.read_text()))
    assert written == examples
