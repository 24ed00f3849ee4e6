from __future__ import annotations

import os

import pytest

from simulators.fleet import MESSAGES_A_PROCESS, wanted_processes
from simulators.scenario import FleetSpec, Scenario, Signal


def scenario(*devices: int, devices_per_client: int = 1) -> Scenario:
    return Scenario(
        fleets=tuple(
            FleetSpec(
                name=f"f{count}", devices=count, devices_per_client=devices_per_client, signals={"level": Signal()}
            )
            for count in devices
        )
    )


def test_there_are_as_many_processes_as_the_messages_need_and_one_a_core_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    small, large = scenario(10), scenario(MESSAGES_A_PROCESS * 2)
    assert [wanted_processes(small, speed) for speed in (1.0, 60.0, 1_000.0)] == [1, 1, 3]
    assert [wanted_processes(large, speed) for speed in (1.0, 10.0)] == [2, 4]
    assert wanted_processes(small, None) == 4  # as fast as it goes


@pytest.mark.parametrize(("devices", "shared", "clients"), [((10, 30), 1, 30), ((10, 30), 20, 2), ((1,), 5, 1)])
def test_no_process_is_left_without_a_client(devices: tuple[int, ...], shared: int, clients: int) -> None:
    assert scenario(*devices, devices_per_client=shared).clients_max == clients
