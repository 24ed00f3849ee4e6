"""The judge on made-up logs: a clean story passes, and each kind of failure is found by the number that names it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulators.ledger import Ledger, LedgerView
from simulators.truth import WINDOW_MS
from simulators.verdict import Facts, Judge, Report, Topics, failures

START = 1_700_000_000_000 - 1_700_000_000_000 % WINDOW_MS
FACTS = Facts(acknowledged_min=20, outages_planned=1, kills_planned=1, alerts_planned=1, uplink_outages=1, edge_kills=1)
encode = msgspec.json.encode


class Message:
    def __init__(self, key: str, value: bytes, timestamp: int = 0, headers: dict[str, bytes] | None = None) -> None:
        self._key, self._value, self._timestamp, self._headers = key, value, timestamp, headers

    def key(self) -> bytes:
        return self._key.encode()

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self._headers.items()) if self._headers else None


class Story:
    """Two turbines (the second with a fast clock) and a mast, 24 s at one reading a second, two closed windows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.central: dict[str, list[Message]] = {"readings": [], "deadletter": [], "aggregates": [], "alerts": []}
        self.edge: list[Message] = []
        self.offset = 0
        with Ledger(path) as ledger:
            for second in range(24):
                for device, shift in (("turbine-01", 0), ("turbine-02", 3_600_000)):
                    self.reading(ledger, device, second, shift)
                self.store("mast-01", START + second * 1000, {"wind_speed": 5.0 + second, "wind_angle": 10.0})
            ledger.garbage("turbine-01", 1, START, b"\xff")
            ledger.total("resent", 3)
        self.mark(START + 20_000)
        self.central["deadletter"].append(Message("edge/turbine-01", b"\xff"))
        for device in ("turbine-01", "turbine-02", "mast-01"):
            for start in (START, START + WINDOW_MS):
                self.window(device, start)
        for number, state in enumerate(("pending", "firing", "recovering", "resolved")):
            self.alert(number, state)

    def reading(self, ledger: Ledger, device: str, second: int, shift: int) -> None:
        at = START + second * 1000
        fields = dict.fromkeys(("wind_speed", "power", "rotor_rpm", "gearbox_temperature"), 10.0 + second)
        fields |= {"wind_direction": (355.0 + second) % 360.0, "seq": second + 1}
        ledger.sent(device, second + 1, at + shift, encode({"ts": at + shift, **fields}))
        ledger.acked(device, second + 1, at)
        self.store(device, at, fields)

    def store(self, device: str, at: int, fields: dict[str, Any]) -> None:
        self.edge.append(Message(f"edge/{device}", encode(fields), at))
        identity = {"hw": b"edge/0/0/%d" % self.offset}
        self.central["readings"].append(Message(f"edge/{device}", encode(fields), at, identity))
        self.offset += 1

    def mark(self, live: int) -> None:
        mark = {"hw-mark": encode({"v": 1, "node": "edge", "live": live})}
        self.central["readings"].append(Message("edge/$gateway", b"{}", live, mark))

    def window(self, device: str, start: int, *, revision: int = 0, complete: bool = True, **change: Any) -> None:
        rows = [
            msgspec.json.decode(message.value())
            for message in self.edge
            if message.key().decode() == f"edge/{device}" and start <= message.timestamp()[1] < start + WINDOW_MS
        ]
        fields: dict[str, dict[str, float]] = {}
        for name in rows[0]:
            values = [row[name] for row in rows]
            mean = sum(values) / len(values)
            fields[name] = {"count": len(values), "mean": mean, "min": min(values), "max": max(values)}
            if name == "wind_direction":
                east, north = (sum(turn(math.radians(x)) for x in values) for turn in (math.sin, math.cos))
                fields[name]["circular_mean"] = math.degrees(math.atan2(east, north)) % 360.0
        for path, value in change.items():
            field, member = path.split("__")
            fields[field][member] = value
        result = {"rule": "farm_10s", "group": f"edge/{device}", "start": start, "end": start + WINDOW_MS}
        result |= {"revision": revision, "complete": complete, "count": len(rows), "fields": fields}
        self.central["aggregates"].append(Message(f"edge/{device}/farm_10s/{start}", encode(result)))

    def alert(self, number: int, state: str) -> None:
        value = {"rule": "hot", "instance": "edge/turbine-01", "transition": number, "state": state}
        self.central["alerts"].append(Message("hot/edge/turbine-01", encode(value)))

    def judge(self) -> tuple[Report, list[str], Judge]:
        ledger = LedgerView(self.path)
        judge = Judge(ledger, "edge", "central", node="edge", timed_by_log=["turbine-02"], source=self.source)
        report = judge.wait(0.0)
        for name in ("uplink_outages", "edge_kills"):
            setattr(report, name, getattr(FACTS, name))
        broken = failures(report, FACTS, ledger.garbage_sent)
        ledger.close()
        return report, broken, judge

    def source(self, bootstrap: str, topics: Topics) -> Pages:
        return Pages({"readings": self.edge} if bootstrap == "edge" else self.central, topics)

    def record(self, device: str, second: int) -> Message:
        wanted = (f"edge/{device}".encode(), START + second * 1000)
        return next(m for m in self.central["readings"] if (m.key(), m.timestamp()[1]) == wanted)


class Pages:
    def __init__(self, log: dict[str, list[Message]], topics: Topics) -> None:
        self._log, self._topics = log, topics
        self._done = False

    def read_to_end(self, timeout_s: float) -> bool:
        for topic, add in self._topics.items() if not self._done else ():
            for message in self._log[topic]:
                add(message)
        self._done = True
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(str(tmp_path / "ledger.db"))


def test_a_clean_story_passes(story: Story) -> None:
    report, broken, judge = story.judge()
    assert judge.examples == []
    assert broken == []
    assert (report.sent, report.acknowledged, report.edge_log, report.central_log) == (48, 48, 72, 72)
    assert (report.windows_compared, report.windows_different, report.premature) == (6, 0, 0)
    assert (report.resent, report.dead_lettered) == (3, 1)
    assert (report.alerts_raised, report.alerts_resolved) == (1, 1)
    assert judge.left_out == 3, "the third window of each device: no mark has passed it"


def drop(story: Story) -> None:
    story.central["readings"].remove(story.record("turbine-01", 21))


def twice_by_identity(story: Story) -> None:
    story.central["readings"].append(story.record("mast-01", 21))


def twice_by_sequence(story: Story) -> None:
    record = story.record("turbine-01", 21)
    other = {"hw": b"edge/1/0/1"}
    story.central["readings"].append(Message("edge/turbine-01", record.value(), record.timestamp()[1], other))


def wrong_mean(story: Story) -> None:
    story.window("turbine-01", START, revision=1, power__mean=14.500001)


def wrong_direction(story: Story) -> None:
    story.window("turbine-01", START, revision=1, wind_direction__circular_mean=179.5)


def wrong_fast_window(story: Story) -> None:
    story.window("turbine-02", START, revision=1, power__max=1.0)


def wrong_mast_window(story: Story) -> None:
    story.window("mast-01", START, revision=1, wind_speed__count=9)


def absent_window(story: Story) -> None:
    story.central["aggregates"].pop(0)


def window_of_nothing(story: Story) -> None:
    story.window("turbine-01", START)
    value = msgspec.json.decode(story.central["aggregates"][-1].value())
    value |= {"start": START - WINDOW_MS, "end": START}
    story.central["aggregates"].append(Message("", encode(value)))


def early_and_mended(story: Story) -> None:
    story.central["aggregates"].pop(0)
    story.window("turbine-01", START, power__min=11.0)
    story.window("turbine-01", START, revision=1)


def no_dead_letter(story: Story) -> None:
    story.central["deadletter"].clear()


def dead_letter_twice(story: Story) -> None:
    story.central["deadletter"] *= 2


def no_resolution(story: Story) -> None:
    story.central["alerts"].pop()


def no_alert(story: Story) -> None:
    story.central["alerts"].clear()


@pytest.mark.parametrize(
    ("damage", "member", "value", "words"),
    [
        (drop, "missing", 1, "not in the central log"),
        (twice_by_identity, "duplicates", 1, "twice"),
        (twice_by_sequence, "duplicates", 1, "twice"),
        (wrong_mean, "windows_different", 1, "differ"),
        (wrong_direction, "windows_different", 1, "differ"),
        (wrong_fast_window, "windows_different", 1, "differ"),
        (wrong_mast_window, "windows_different", 1, "differ"),
        (absent_window, "windows_different", 1, "differ"),
        (window_of_nothing, "windows_different", 1, "differ"),
        (early_and_mended, "premature", 1, "too early"),
        (no_dead_letter, "dead_lettered", 0, "dead letters"),
        (dead_letter_twice, "dead_lettered", 2, "dead letters"),
        (no_resolution, "alerts_resolved", 0, "not resolved"),
        (no_alert, "alerts_raised", 0, "not raised"),
    ],
)
def test_each_kind_of_failure_is_found(
    story: Story, damage: Callable[[Story], None], member: str, value: int, words: str
) -> None:
    damage(story)
    report, broken, _ = story.judge()
    assert getattr(report, member) == value
    assert any(words in sentence for sentence in broken)


def test_an_early_window_that_said_incomplete_is_not_premature(story: Story) -> None:
    story.central["aggregates"].pop(0)
    story.window("turbine-01", START, complete=False, power__min=11.0)
    story.window("turbine-01", START, revision=1)
    report, broken, _ = story.judge()
    assert (report.premature, broken) == (0, [])


def test_a_revision_is_judged_not_what_it_replaced(story: Story) -> None:
    story.central["aggregates"].insert(0, story.central["aggregates"].pop())
    story.window("mast-01", START, revision=2)
    story.window("mast-01", START, revision=1, wind_speed__mean=0.0)
    assert story.judge()[1] == []


def test_an_alert_that_is_told_twice_counts_once(story: Story) -> None:
    story.alert(1, "firing")
    assert story.judge()[0].alerts_raised == 1


def test_windows_of_another_length_are_not_judged(story: Story) -> None:
    value = msgspec.json.decode(story.central["aggregates"][0].value())
    value |= {"rule": "farm_1min", "end": value["start"] + 60_000, "count": 1}
    story.central["aggregates"].append(Message("", encode(value)))
    report, broken, _ = story.judge()
    assert (report.windows_compared, broken) == (6, [])


def test_unacknowledged_readings_that_arrived_belong_to_the_truth(tmp_path: Path) -> None:
    story = Story(str(tmp_path / "ledger.db"))
    with sqlite3.connect(story.path) as db:
        db.execute("DELETE FROM acked WHERE device='turbine-01' AND seq=3")
    db.close()
    report, broken, _ = story.judge()
    assert (report.acknowledged, report.missing, broken) == (47, 0, [])


def test_nothing_compared_and_too_little_acknowledged_are_failures() -> None:
    broken = failures(Report(acknowledged=4999), Facts(outages_planned=1, kills_planned=1), 0)
    assert broken == [
        "only 4999 readings were acknowledged, fewer than 5000",
        "no window was compared",
        "the planned outage of the uplink did not happen",
        "the planned kill of the edge did not happen",
    ]


def test_the_report_has_exactly_the_promised_members() -> None:
    assert list(msgspec.to_builtins(Report())) == [
        "sent",
        "acknowledged",
        "edge_log",
        "central_log",
        "missing",
        "duplicates",
        "resent",
        "suppressed",
        "dead_lettered",
        "windows_compared",
        "windows_different",
        "premature",
        "alerts_raised",
        "alerts_resolved",
        "uplink_outages",
        "edge_kills",
        "seconds",
    ]
