from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from simulators.herd import Herd, Message
from simulators.scenario import Clocks, Delivery, FleetSpec, Scenario, Signal

START_MS = 1_735_689_600_000
decode = msgspec.json.Decoder(dict[str, Any]).decode


def scenario(**changes: Any) -> Scenario:
    spec: dict[str, Any] = {
        "name": "pump",
        "devices": 20,
        "signals": {"level": Signal(base=1, noise=0.1)},
        **changes,
    }
    return Scenario(fleets=(FleetSpec(**spec),))


def play(what: Scenario, seconds: int, *, seed: int = 1, part: int = 0, parts: int = 1) -> list[Message]:
    herd = Herd(what, start_ms=START_MS, seed=seed, part=part, parts=parts)
    said = []
    while herd.next_ms < START_MS + seconds * 1000:
        said += herd.due(herd.next_ms, 100)
    return said


def plain(messages: list[Message]) -> list[tuple[str, str, int, bytes]]:
    return [(message.kind, message.device.name, message.number, message.payload) for message in messages]


def test_each_device_says_each_reading_once_in_order_when_nothing_goes_wrong() -> None:
    said = play(scenario(), 10)
    by_device: dict[str, list[int]] = {}
    for message in said:
        body = decode(message.payload)
        assert (body["seq"], body["ts"]) == (message.number, message.ts)
        by_device.setdefault(message.device.name, []).append(message.number)
    assert len(by_device) == 20
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_device.values())
    assert {len(numbers) for numbers in by_device.values()} <= {9, 10}


def test_the_same_seed_says_the_same_bytes_and_another_one_others() -> None:
    chaos = scenario(delivery=Delivery(missing=0.1, duplicate=0.1, out_of_order=0.2, late=0.1, garbage=0.1))
    assert plain(play(chaos, 20)) == plain(play(chaos, 20))
    assert plain(play(chaos, 20)) != plain(play(chaos, 20, seed=2))


def test_a_devices_readings_do_not_depend_on_how_many_processes_play() -> None:
    chaos = scenario(delivery=Delivery(missing=0.1, duplicate=0.1, garbage=0.1), devices_per_client=3)
    whole = Counter(plain(play(chaos, 20)))
    parts = [play(chaos, 20, part=part, parts=3) for part in range(3)]
    assert sum((Counter(plain(part)) for part in parts), Counter()) == whole
    clients = [{message.device.client for message in part} for part in parts]
    assert not clients[0] & clients[1]
    assert not clients[1] & clients[2]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_shares_are_kept(share: float) -> None:
    delivery = Delivery(missing=share, duplicate=share, garbage=share)
    herd_said = play(scenario(devices=100, delivery=delivery), 100)
    kinds = Counter(message.kind for message in herd_said)
    taken = 100 * 100
    assert kinds["reading"] == pytest.approx(taken * (1 - share), rel=0.03)
    assert kinds["again"] == pytest.approx(kinds["reading"] * share, rel=0.25)
    assert kinds["garbage"] / (kinds["garbage"] + kinds["reading"]) == pytest.approx(share, rel=0.25)


def test_overtaken_readings_come_out_of_order_and_none_is_lost() -> None:
    said = play(scenario(devices=50, jitter=0.0, delivery=Delivery(out_of_order=0.3, out_of_order_by=5)), 200)
    backwards = total = 0
    seen: dict[str, list[int]] = {}
    for message in said:
        numbers = seen.setdefault(message.device.name, [])
        backwards += bool(numbers) and message.number < max(numbers)
        total += 1
        numbers.append(message.number)
    assert backwards / total == pytest.approx(0.3, abs=0.03)
    for numbers in seen.values():
        assert len(set(numbers)) == len(numbers)
        assert set(range(1, max(numbers) - 25)) <= set(numbers)  # the last ones are still held back


def test_late_readings_keep_the_time_at_which_they_were_taken() -> None:
    what = scenario(delivery=Delivery(late=0.5, late_by_ms=60_000))
    herd = Herd(what, start_ms=START_MS, seed=1)
    held = []
    while herd.next_ms < START_MS + 120_000:
        now_ms = herd.next_ms
        held += [now_ms - message.ts for message in herd.due(now_ms, 100)]
    assert max(held) > 30_000
    assert min(held) >= -1
    assert max(held) <= 60_001


def test_wrong_clocks_are_wrong_by_what_the_scenario_says() -> None:
    clocks = Clocks(fast=0.2, fast_by_ms=3_600_000, slow=0.2, slow_by_ms=600_000, drift_ppm=1000)
    firsts: dict[str, int] = {}
    for message in play(scenario(devices=200, clocks=clocks), 3):
        firsts.setdefault(message.device.name, message.ts - START_MS)
    fast = sum(3_599_000 <= ahead <= 3_602_000 for ahead in firsts.values())
    slow = sum(-601_000 <= ahead <= -598_000 for ahead in firsts.values())
    right = sum(-10 <= ahead <= 2000 for ahead in firsts.values())
    assert fast + slow + right == 200
    assert 20 <= fast <= 60
    assert 20 <= slow <= 60


def test_what_waits_is_bounded_by_rate_and_delay() -> None:
    herd = Herd(scenario(delivery=Delivery(late=1.0, late_by_ms=10_000)), start_ms=START_MS, seed=1)
    most = 0
    while herd.next_ms < START_MS + 100_000:
        herd.due(herd.next_ms, 100)
        most = max(most, len(herd._waiting))
    assert most <= 20 + 20 * 11


def test_one_to_so_many_later_readings_overtake_one() -> None:
    overtakers: Counter[int] = Counter()
    seen: dict[str, set[int]] = {}
    for message in play(scenario(devices=50, delivery=Delivery(out_of_order=0.02, out_of_order_by=5)), 200):
        numbers = seen.setdefault(message.device.name, set())
        overtakers[sum(number > message.number for number in numbers)] += 1
        numbers.add(message.number)
    assert all(overtakers[count] > 20 for count in range(1, 6))
    assert sum(overtakers[count] for count in overtakers if count > 5) < 10  # another held one may slip in between
