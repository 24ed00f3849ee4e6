"""No device gets the node's own name, whatever names it: its health's key is what marks and dead-man alerts go by."""

from __future__ import annotations

import pytest

from devices.profile_text import load_profiles
from devices.profiles import Profile
from headwater.errors import UserError
from tests.support.ingest import Edge


def profile(text: str) -> Profile:
    return load_profiles([("tank.toml", f'name = "tank"\n{text}')])[0]


def test_a_profile_cannot_name_its_device_so() -> None:
    with pytest.raises(UserError, match=r"tank.toml, line 2: device: no device may be called “\$gateway”"):
        profile('device = "$gateway"')


@pytest.mark.parametrize(
    ("text", "topic", "payload"),
    [
        ('topics = ["tank/{device}/state"]', "tank/$gateway/state", b'{"level":1}'),
        ('topics = ["tank/{device}/state"]\n[fields.level]', "tank/$gateway/state", b'{"level":1}'),
        ('topics = ["tank/{device}/state"]', "tank/$other/state", b'{"level":1}'),
        ('topics = ["tank"]\ndevice_path = "id"', "tank", b'{"id":"$gateway","level":1}'),
        ('topics = ["tank"]\nformat = "senml+json"', "tank", b'[{"bn":"$gateway:","n":"a","v":1}]'),
        ('topics = ["other"]', "tank/$gateway", b'{"level":1}'),  # its key would end as the health's does
    ],
)
def test_a_reserved_name_is_a_dead_letter_and_nobody_elses_is_lost(text: str, topic: str, payload: bytes) -> None:
    edge = Edge([profile(text)])
    edge.take(edge.attach("a"), ("pump", b'{"level":2}', 1, 2), (topic, payload, 2, 2), ("pump", b'{"level":3}', 3, 2))
    edge.sync()
    assert [(one.key, one.value) for one in edge.readings()] == [
        ("edge/pump", {"level": 2}),
        ("edge/pump", {"level": 3}),
    ]
    [letter] = edge.dead_letters()
    assert letter.value == payload
    assert b"$ begins the node's own names" in letter.headers["reason"]
    assert edge.acks == [("mqtt:a", [1, 2, 3])]
