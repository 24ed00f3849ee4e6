"""Topic `devices`: one record for each device and each change of it; unknown devices by policy."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import msgspec
import pytest

from devices.description import DeviceSettings, DevicesSettings, check_devices
from devices.profile_text import load_profiles
from gateway.ingest.devices import STATE_EVERY_MS, Devices
from gateway.ingest.pipeline import Ingest
from headwater.errors import UserError
from tests.support.ingest import Edge, stored

PROFILE = """
name = "pump"
topics = ["shed/{device}"]
type = "water pump"
zone = "Europe/Berlin"
expected_interval_ms = 5000

[fields.flow]
unit = "l/s"
max = 9
"""


@dataclass
class Shed(Edge):
    """An edge that describes its devices."""

    sections: tuple[DeviceSettings, ...] = ()
    policy: DevicesSettings = field(default_factory=DevicesSettings)

    def start(self) -> None:
        super().start()
        devices = Devices(self.store, "edge", self.policy, self.sections)
        self.ingest = Ingest(
            self.store,
            node="edge",
            profiles=self.profiles,
            marks=self.marks,
            clock=self.clock,
            health=dict,
            devices=devices,
            loop=self.loop,
        )

    def say(self, *topics: str) -> None:
        self.take(self.attach("a"), *((topic, b'{"flow":1.5}', 0, 0) for topic in topics))
        self.sync()

    def told(self) -> list[tuple[str, dict[str, object]]]:
        return [(one.key, one.value) for one in stored(self.store.topics["devices"].partitions[0])]

    def stored_of(self) -> list[str]:
        return [one.key for one in self.readings()]


def shed(*sections: DeviceSettings, **policy: object) -> Shed:
    profiles = load_profiles([("pump.toml", PROFILE)])
    return Shed(profiles, sections=sections, policy=msgspec.convert(policy, DevicesSettings))


def test_a_device_is_described_once_by_its_section_before_its_profile() -> None:
    edge = shed(DeviceSettings(device="p*", name="Any pump", site="mill"), DeviceSettings(device="p7", name="Old pump"))
    edge.say("shed/p7", "shed/p7", "shed/p1", "plain")
    edge.say("shed/p7")
    told = dict(edge.told())
    assert len(edge.told()) == 3
    assert told["edge/p7"] == {
        "device": "p7",
        "name": "Old pump",
        "site": None,
        "zone": "Europe/Berlin",
        "type": "water pump",
        "profile": "pump",
        "expected_interval_ms": 5000,
        "fields": {"flow": {"unit": "l/s", "max": 9.0}},
    }
    assert (told["edge/p1"]["name"], told["edge/p1"]["site"]) == ("Any pump", "mill")
    assert (told["edge/plain"]["profile"], told["edge/plain"]["fields"]) == (None, {})


def test_a_device_without_a_name_has_not_its_profiles() -> None:
    edge = shed()
    edge.say("shed/p2")
    assert dict(edge.told())["edge/p2"]["name"] is None


@pytest.mark.parametrize(
    ("more", "interval_ms"),
    [
        ("", 5_000),
        ("deadband = 0.5", 60_000),  # the heartbeat when the profile says none
        ("deadband = 0.5\n\n[fields.x]", 60_000),
    ],
)
def test_a_device_that_repeats_itself_is_expected_at_its_heartbeat(more: str, interval_ms: int) -> None:
    edge = Shed(load_profiles([("pump.toml", PROFILE + more)]))
    edge.say("shed/p2")
    assert dict(edge.told())["edge/p2"]["expected_interval_ms"] == interval_ms


def test_only_a_change_is_written_again_after_a_restart() -> None:
    edge = shed(DeviceSettings(device="p1", name="One"))
    edge.say("shed/p1", "shed/p2")
    edge.power_cut()
    edge.say("shed/p1", "shed/p2")
    assert [key for key, _ in edge.told()] == ["edge/p1", "edge/p2"]
    edge.sections = (DeviceSettings(device="p1", name="First"),)
    edge.power_cut()
    edge.say("shed/p1", "shed/p2")
    assert [(key, value["name"]) for key, value in edge.told()][2:] == [("edge/p1", "First")]


def test_more_devices_than_may_be_described_are_stored_all_the_same() -> None:
    edge = shed(devices_max=2)
    edge.say("shed/p1", "shed/p2", "shed/p3")
    assert len(edge.stored_of()) == 3
    assert len(edge.told()) == 2
    assert "more than 2 devices" in edge.ingest.status()["devices"]["note"]


def test_what_an_unknown_device_says_is_a_dead_letter() -> None:
    edge = shed(DeviceSettings(device="p?"), unknown="deadletter")
    edge.say("shed/p1", "shed/x", "shed/p2", "x")
    assert sorted(edge.stored_of()) == ["edge/p1", "edge/p2"]
    assert [key for key, _ in edge.told()] == ["edge/p1", "edge/p2"]
    reasons = [one.headers["reason"].decode() for one in edge.dead_letters()]
    assert sorted(reasons) == [f"unknown device “{name}”: no [[device]] names it" for name in ("x", "x")]
    assert {one.value for one in edge.dead_letters()} == {b'{"flow":1.5}'}
    assert edge.acks == [("mqtt:a", [0, 0, 0, 0])]


def test_what_an_unknown_device_says_is_refused_and_counted() -> None:
    edge = shed(DeviceSettings(device="p?"), unknown="refuse")
    edge.say("shed/p1", "shed/x", "shed/x")
    assert edge.stored_of() == ["edge/p1"]
    assert edge.dead_letters() == []
    status = edge.ingest.status()["devices"]
    assert (status["refused"], status["unknown"]) == (2, 1)
    assert status["note"] == "unknown devices x: its readings are refused until a [[device]] names it"


def test_sections_that_are_no_good_are_told() -> None:
    with pytest.raises(UserError, match="“a”: there is no time zone “Europe/Nowhere”"):
        check_devices([DeviceSettings(device="a", zone="Europe/Nowhere")])
    with pytest.raises(UserError, match="“a” is there twice"):
        check_devices([DeviceSettings(device="a"), DeviceSettings(device="a")])


# --- what goes with the readings

NORTH = DeviceSettings(device="p?", site="north", labels={"line": "3"})


def said(edge: Shed) -> list[tuple[str, dict[str, object] | None]]:
    """(device, what its reading says of it) of each reading in the log."""
    return [
        (one.key, msgspec.json.decode(one.headers["hw-device"]) if "hw-device" in one.headers else None)
        for one in edge.readings()
    ]


def test_a_devices_first_reading_says_what_it_is() -> None:
    edge = shed(NORTH)
    edge.say("shed/p1", "shed/p1", "plain", "shed/p2")
    edge.say("shed/p1")
    what: dict[str, object] = {"site": "north", "zone": "Europe/Berlin", "type": "water pump", "labels": {"line": "3"}}
    what["expected_interval_ms"] = 5000
    assert sorted(said(edge)[:4], key=str) == sorted(
        [("edge/p1", what), ("edge/p1", None), ("edge/plain", None), ("edge/p2", what)], key=str
    )
    assert said(edge)[4] == ("edge/p1", None)
    assert dict(edge.told())["edge/p1"]["labels"] == {"line": "3"}


def test_it_is_said_again_by_the_next_run_and_after_a_while() -> None:
    edge = shed(NORTH)
    edge.say("shed/p1")
    edge.power_cut()
    edge.say("shed/p1")
    edge.clock.advance(STATE_EVERY_MS - 1)
    edge.say("shed/p1")
    edge.clock.advance(1)
    edge.say("shed/p1")
    assert [what is not None for _, what in said(edge)] == [True, True, False, True]


def test_that_a_device_is_nothing_any_more_is_said_too() -> None:
    edge = shed(DeviceSettings(device="other", site="north"))
    edge.say("other")
    edge.sections = ()
    edge.power_cut()
    edge.say("other")
    assert said(edge) == [("edge/other", {"site": "north"}), ("edge/other", {})]


def test_what_lost_readings_said_is_said_again() -> None:
    edge = shed(NORTH)
    edge.say("shed/p1")
    edge.power_cut()  # from here on the topic devices has nothing new, so that the sync that fails is that of readings
    edge.take(edge.attach("a"), ("shed/p1", b'{"flow":1.5}', 0, 0))
    edge.ingest.commit()
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    edge.sync()
    assert edge.lost
    edge.say("shed/p1")
    assert said(edge)[-1][1] is not None
