"""What users' processors know of devices: site, zone, type and labels, from the record on that says it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from headwater.api import (
    ColumnMark,
    ColumnProcessor,
    ColumnState,
    Device,
    Ints,
    Mark,
    Output,
    Processor,
    Reading,
    Readings,
    StoredReading,
    Timer,
    run,
)
from processors.user.loading import of_instance
from processors.user.partition import UserPartition, decoded
from processors.user.settings import UserLimits
from processors.user.trying import Given, block_of

PUMP = {"site": "north", "zone": "Europe/Berlin", "type": "pump", "labels": {"line": "3"}}


@dataclass
class Seen:
    count: int = 0


class Tells(Processor[Seen]):
    out = "told"
    deterministic = True

    def on_reading(self, reading: StoredReading, device: Device[Seen]) -> None:
        device.state.count += 1
        if "raise" in reading:
            raise ValueError("as it was asked to")
        device.set_timer(reading.time_ms + 500)
        device.emit({"at": [device.site, device.zone, device.type, device.label("line"), device.label("other")]})

    def on_timer(self, timer: Timer, device: Device[Seen]) -> None:
        device.emit({"timer": device.site})

    def on_mark(self, mark: Mark[Seen]) -> None:
        mark.emit({"mark": [device.site for device in mark.devices()]}, key="mark")


class Counts(ColumnState):
    count: Ints


class TellsColumns(ColumnProcessor[Counts]):
    out = "told"
    deterministic = True

    def on_columns(self, readings: Readings, state: Counts) -> None:
        np.add.at(state.count, readings.device, 1)
        readings.emit(slice(None), {"site": readings.about("site"), "line": readings.about("labels.line")})

    def on_mark(self, mark: ColumnMark, state: Counts) -> None:
        mark.emit(mark.devices, {"mark": mark.about("site")})


def test_a_test_says_what_is_known_of_devices() -> None:
    told = run(Tells(), [Reading({"x": 1}, device="p"), Reading({"x": 1}, device="q")], devices={"p": PUMP})
    assert [output.value for output in told] == [
        {"at": ["north", "Europe/Berlin", "pump", "3", None]},
        {"mark": ["north"]},
        {"at": [None, None, None, None, None]},
        {"timer": "north"},
        {"mark": ["north", None]},
    ]
    told = run(TellsColumns(), [Reading({"x": 1}, device="p")], devices={"p": PUMP})
    assert told == [
        Output({"site": "north", "line": "3"}, key="test/p", time_ms=0, topic="told"),
        Output({"mark": "north"}, key="test/p", time_ms=0, topic="told"),
    ]


def rows() -> list[Given]:
    found = []
    for second in range(40):
        says = msgspec.json.encode({"site": f"s{second // 10}"}) if second % 10 == 5 else None
        live = second * 1000 - 2000 if second % 4 == 3 else None
        found.append(Given(f"test/{'pq'[second % 3 == 0]}", second * 1000, b'{"x":1}', live, says))
    return found


def partition(processor: Any) -> UserPartition:
    return UserPartition(of_instance(processor), 0, limits=UserLimits())


@pytest.mark.parametrize("make", [Tells, TellsColumns])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 20], list(range(1, 40))])
def test_it_holds_from_the_reading_on_that_says_it_however_the_log_is_cut(make: Any, cuts: list[int]) -> None:
    said: list[list[Output]] = []
    for parts in ([], cuts):
        one, outputs = partition(make()), []
        for begin, end in pairwise([0, *parts, 40]):
            block = block_of(rows()[begin:end], "readings", begin)
            outputs += [Output(*decoded(output)) for output in one.process(block)]
            saved = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
            one = partition(make())
            one.restore(saved)
        said.append(outputs)
    assert said[1] == said[0]
    sites = [output.value.get("at", [output.value.get("site")])[0] for output in said[0] if "mark" not in output.value]
    known = dict.fromkeys("pq")
    wanted: list[str | None] = []
    for row in rows():
        device = row.key[-1]
        if row.says is not None:
            known[device] = msgspec.json.decode(row.says)["site"]
        wanted.append(known[device])
    assert [
        site
        for site, output in zip(sites, [one for one in said[0] if "mark" not in one.value], strict=True)
        if "timer" not in output.value
    ] == wanted


def test_what_stands_behind_a_pause_is_not_known_before_it_goes_on() -> None:
    def given(second: int, value: bytes, site: str) -> Given:
        return Given("test/p", second * 1000, value, None, msgspec.json.encode({"site": site}))

    loaded = of_instance(Tells())
    one = UserPartition(loaded, 0, limits=UserLimits(failures_max=1))
    all_rows = [given(0, b'{"x":1}', "a"), given(1, b'{"raise":1}', "b"), given(2, b'{"x":1}', "c")]
    told = one.process(block_of(all_rows, "readings", 0))
    assert [decoded(output)[0]["at"][0] for output in told] == ["a"]
    assert one.stopped_at == 1
    other = UserPartition(loaded, 0, limits=UserLimits())
    other.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot())))
    mended = [Given("test/p", 1000, b'{"x":1}', None), all_rows[2]]
    told = other.process(block_of(mended, "readings", 1))
    assert [decoded(output)[0]["at"][0] for output in told] == ["a", "c"]
