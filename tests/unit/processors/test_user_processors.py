"""Users' processors over a partition: state, timers, order, failures, and that no cut into blocks shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.log.records import decode_headers
from headwater.api import (
    ColumnMark,
    ColumnProcessor,
    ColumnState,
    Device,
    Driver,
    Floats,
    Ints,
    Mark,
    Output,
    Processor,
    Reading,
    Readings,
    StoredReading,
    Timer,
    filled,
    run,
)
from headwater.errors import UserError
from processors.user.loading import of_instance
from processors.user.partition import UserPartition, decoded
from processors.user.settings import UserLimits
from processors.user.trying import Given, block_of, whole


@dataclass
class Pump:
    blocked: bool = False
    seen: int = 0


class Blocked(Processor[Pump]):
    out = "blocked"
    in_order = True
    hold_s: float = 30.0

    def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
        device.state.seen += 1
        if reading["power"] > 100 and reading["flow"] < 0.5:
            if device.timer() is None and not device.state.blocked:
                device.set_timer(reading.time_ms + self.hold_s * 1000)
            return
        device.cancel_timer()
        if device.state.blocked:
            device.state.blocked = False
            device.emit({"blocked": False})

    def on_timer(self, timer: Timer, device: Device[Pump]) -> None:
        device.state.blocked = True
        device.emit({"blocked": True, "seen": device.state.seen})


def pump(second: float, flow: float, device: str = "pump-7") -> Reading:
    return Reading({"power": 900, "flow": flow}, device=device, time=second * 1000)


def test_a_time_out_comes_by_event_time_and_between_the_readings_where_it_belongs() -> None:
    blocked = Output({"blocked": True, "seen": 2}, "test/pump-7", 30_000, "blocked")
    assert run(Blocked(), [pump(0, 0), pump(10, 0), pump(31, 5)]) == [
        blocked,
        Output({"blocked": False}, "test/pump-7", 31_000, "blocked"),
    ]
    assert run(Blocked(), [pump(0, 0), pump(30, 5)]) == []  # at the same moment the reading counts first
    assert run(Blocked(), [pump(0, 0), pump(10, 0)], until=30_000) == [blocked]
    assert run(Blocked(hold_s=31), [pump(0, 0), pump(10, 0)], until=30_000) == []


def test_in_order_the_order_of_arrival_changes_nothing_and_what_is_late_says_so() -> None:
    readings = [pump(second, 0.0 if second < 20 else 5.0) for second in range(60)]
    shaken = [readings[at] for at in sorted(range(60), key=lambda at: at + Random(at).uniform(0, 5))]
    assert shaken != readings
    quick = Blocked(hold_s=15)
    assert run(quick, shaken, until=60_000, lateness_ms=6000) == run(quick, readings, until=60_000, lateness_ms=6000)

    heard = []

    class Hears(Processor[dict[str, int]]):
        def on_reading(self, reading: StoredReading, device: Device[dict[str, int]]) -> None:
            heard.append((reading.time_ms, reading.late))

    run(Hears(), [pump(5, 0), pump(4, 0), pump(6, 0)])
    assert heard == [(5000, False), (4000, True), (6000, False)]


def test_what_is_remembered_survives_a_restart_and_a_device_at_its_beginning_costs_nothing() -> None:
    driver = Driver(Blocked())
    driver.feed(pump(0, 0), pump(10, 0), pump(10, 0, "other"))
    driver.restart()
    assert (driver.state("pump-7"), driver.state("nobody")) == (Pump(seen=2), Pump())
    assert [one.key for one in driver.feed(pump(41, 0))] == ["test/pump-7", "test/other"]

    class Forgets(Processor[Pump]):
        def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
            device.state = Pump(seen=int(reading["n"]))

    partition = UserPartition(of_instance(Forgets()), 0, limits=UserLimits(devices_max=1))
    for key, n, there in (("n/a", 1, 1), ("n/a", 0, 0), ("n/b", 1, 1)):
        partition.process(block_of([Given(key, 0, b'{"n":%d}' % n, None)], "readings", 0))
        assert partition.counters()["devices"] == there
    [letter] = partition.process(block_of([Given("n/c", 0, b'{"n":1}', None)], "readings", 1))
    assert b"devices_max" in (dict(decode_headers(letter.record[3]))["reason"] or b"")


class Raises(Processor[Pump]):
    """Counts, sets a timer and emits, and only then raises."""

    out = ("good", "other")

    def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
        device.state.seen += 1
        device.emit({"seen": device.state.seen})
        device.set_timer(reading.time_ms)
        if "bad" in reading:
            raise ValueError(f"no good: {reading['bad']}")
        device.cancel_timer()


def rows(*values: str, key: str = "n/d") -> list[Given]:
    return [Given(key, at * 1000, value.encode(), None) for at, value in enumerate(values)]


def process(processor: Any, given: list[Given], **more: Any) -> tuple[UserPartition, list[Any]]:
    partition = UserPartition(of_instance(processor), 0, limits=UserLimits(failures_max=3), **more)
    return partition, partition.process(block_of(given, "readings", 100))


def test_an_exception_undoes_its_call_alone_and_the_reading_is_a_dead_letter_with_file_and_line() -> None:
    line = next(at for at, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise ValueError" in text)
    reason = f"raises: test_user_processors.py, line {line}: ValueError: no good: 7"
    partition, made = process(Raises(), rows("{}", '{"bad": 7}', "{}"))
    assert [decoded(one)[0] for one in made] == [
        {"seen": 1},
        {"reason": reason, "reading": {"bad": 7}},
        {"seen": 2},
    ]
    assert partition.state_of("n/d") == Pump(seen=2)
    headers = {name: (value or b"").decode() for name, value in decode_headers(made[1].record[3])}
    assert headers == {
        "reason": reason,
        "decoder": "processor:raises",
        "source": "processor:raises",
        "time": "1000",
        "record": "readings/0/101",
        "key": "n/d",
        "hw-out": "raises@1:deadletter/0/101.0",
    }
    assert made[1].record[1] == b"n/processor:raises"


def test_failures_in_a_row_stop_it_before_the_next_one_and_it_goes_on_there_once_it_is_mended() -> None:
    bad = '{"bad": 1}'
    partition, made = process(Raises(), rows(bad, bad, "{}", bad, bad, bad, "{}"))
    assert [one.topic for one in made] == ["deadletter", "deadletter", "good", "deadletter", "deadletter"]
    assert partition.stopped_at == 105
    assert "ValueError: no good: 1 (readings/0 at offset 105)" in partition.problem
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(partition.snapshot()))

    def again(processor: Any) -> UserPartition:
        partition = UserPartition(of_instance(processor, "raises"), 0, limits=UserLimits(failures_max=3))
        partition.restore(saved)
        return partition

    still = again(Raises())
    assert still.process(block_of(rows(bad, "{}"), "readings", 105)) == []  # one try, and no dead letter for it
    assert still.stopped_at == 105

    class Mended(Raises):
        def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
            device.state.seen += 1
            device.emit({"seen": device.state.seen})

    made = again(Mended()).process(block_of(rows(bad, "{}"), "readings", 105))
    assert [decoded(one)[0] for one in made] == [{"seen": 2}, {"seen": 3}]


def test_what_was_said_before_a_crash_is_not_said_again_although_the_file_was_mended_in_between() -> None:
    class Twice(Raises):
        def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
            device.emit({"n": 1})
            device.emit({"n": 2})

    _, made = process(Raises(), rows("{}", "{}"))
    assert [one.number >> 24 for one in made] == [100, 101]
    mended = UserPartition(of_instance(Twice(), "raises"), 0, limits=UserLimits())
    mended.written = {made[1].version: made[1].number + 1}
    said = mended.process(block_of(rows("{}", "{}", "{}"), "readings", 100))
    assert [(one.number >> 24, decoded(one)[0]["n"]) for one in said] == [(101, 2), (102, 1), (102, 2)]


def test_a_reading_that_kills_is_known_and_weighs_more() -> None:
    partition, made = process(Raises(), rows("{}", "{}", "{}"), killers={101: "hangs.py, line 3: still at it"})
    assert ([one.topic for one in made], partition.stopped_at) == (["good"], 101)
    partition = UserPartition(of_instance(Raises()), 0, limits=UserLimits(), killers={101: "hangs.py, line 3"})
    made = partition.process(block_of(rows("{}", "{}", "{}"), "readings", 100))
    assert [one.topic for one in made] == ["good", "deadletter", "good"]


@dataclass
class Odd:
    things: list[object] = field(default_factory=list)


@pytest.mark.parametrize(
    ("emit", "said"),
    [
        ({"topic": "elsewhere", "value": {}}, "elsewhere is none of its topics (good, other): name it in `out`"),
        ({"value": 3}, "emit takes a dict of fields, not int"),
        ({"value": {}, "time_ms": "noon"}, "time_ms is 'noon'; it should be milliseconds since 1970"),
        ({"value": {}, "time_ms": -1}, "time_ms is -1"),
        ({"value": {"a": object()}}, "type object is unsupported"),
    ],
)
def test_what_cannot_be_emitted_is_said_where_it_is_emitted(emit: dict[str, Any], said: str) -> None:
    class Emits(Raises):
        def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
            device.emit(emit["value"], **{name: value for name, value in emit.items() if name != "value"})

    with pytest.raises((ValueError, TypeError)) as error:
        run(Emits(), [Reading({})])
    assert said in str(error.value)


def test_a_state_that_cannot_be_kept_or_read_is_said() -> None:
    class Keeps(Processor[Odd]):
        def on_reading(self, reading: StoredReading, device: Device[Odd]) -> None:
            device.state.things.append(object())

    _, [letter] = process(Keeps(), rows("{}"))
    assert b"the state cannot be kept" in (dict(decode_headers(letter.record[3]))["reason"] or b"")
    partition, _ = process(Raises(), rows("{}"))
    saved = partition.snapshot()
    saved["engine"]["states"]["n/d"] = msgspec.msgpack.encode({"seen": "many"})
    with pytest.raises(UserError, match=r"the state of n/d cannot be read as Pump: .*raise the processor's version"):
        UserPartition(of_instance(Raises()), 0, limits=UserLimits()).restore(saved)
    saved["version"] = 0
    UserPartition(of_instance(Raises()), 0, limits=UserLimits()).restore(saved)  # another version begins empty


class AtMarks(Processor[Pump]):
    """Tells at each mark how many readings each device had since the last."""

    def on_reading(self, reading: StoredReading, device: Device[Pump]) -> None:
        device.state.seen += 1

    def on_mark(self, mark: Mark[Pump]) -> None:
        for device in mark.devices():
            device.emit({"seen": device.state.seen})
            device.state = Pump()
        mark.emit({"until": mark.watermark_ms}, key=mark.node)


class Totals(ColumnState):
    litres: Floats
    last: Floats = filled(math.nan)
    count: Ints


class Meter(ColumnProcessor[Totals]):
    out = "litres"

    def on_columns(self, readings: Readings, state: Totals) -> None:
        flow = readings.numbers("flow")
        if (flow.values[flow.present] == 13).any():
            raise ValueError("thirteen")
        where = readings.device[flow.present]
        np.add.at(state.litres, where, flow.values[flow.present])
        np.add.at(state.count, where, 1)
        state.last[where] = flow.values[flow.present]
        readings.emit(flow.values > 8, {"flow": flow.values[flow.values > 8], "high": True})
        readings.emit(readings.late, {"late": True})

    def on_mark(self, mark: ColumnMark, state: Totals) -> None:
        mine = mark.devices[state.count[mark.devices] > 0]
        mark.emit(mine, {"litres": state.litres[mine], "count": state.count[mine], "last": state.last[mine]})


def a_story(count: int, random: Random) -> list[Given]:
    newest = {"a": 0, "b": 0}
    given = []
    for at in range(count):
        node = random.choice("ab")
        time_ms = max(0, at * 1000 - random.choice((0, 0, 500, 4000, 20_000)))
        newest[node] = max(newest[node], time_ms)
        fields: Mapping[str, Any] = random.choice(
            (
                {"power": 900, "flow": random.choice((0.0, 0.1, 9.5, 13.0))},
                {"power": 900, "flow": 7},
                {"flow": None},
                {},
            )
        )
        watermark_ms = max(0, newest[node] - 2000) if random.random() < 0.2 else None
        given.append(Given(f"{node}/{random.randrange(4)}", time_ms, msgspec.json.encode(fields), watermark_ms))
    return given


@pytest.mark.parametrize(
    "processor", [Blocked(hold_s=3), AtMarks(), Meter(), Raises()], ids=lambda one: type(one).__name__
)
def test_no_cut_into_blocks_and_no_restart_shows(processor: Any) -> None:
    for seed in range(3):
        random = Random(seed)
        given, loaded = a_story(300, random), of_instance(processor)
        together = whole(loaded, given, [], restarts=False)
        assert len(together) > 20
        cuts = sorted(random.sample(range(1, 300), random.choice((3, 40, 299))))
        assert whole(loaded, given, cuts, restarts=True) == together


def test_columns_fail_by_the_reading_and_keep_their_shape() -> None:
    partition, made = process(Meter(), rows('{"flow":1}', '{"flow":13}', '{"flow":2}', "{}"))
    assert [(one.topic, decoded(one)[0]["reading"]) for one in made] == [("deadletter", {"flow": 13})]
    assert partition.state_of("n/d") == {"litres": 3.0, "last": 2.0, "count": 2}

    class Grows(Meter):
        def on_columns(self, readings: Readings, state: Totals) -> None:
            state.litres = np.append(state.litres, 1.0)

    _, [letter] = process(Grows(), rows("{}"))
    assert b"it should be float64 with 1 rows" in (dict(decode_headers(letter.record[3]))["reason"] or b"")
