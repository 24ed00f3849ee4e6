"""A year of weather through `headwater process`: what a group says of it is what the node itself said, byte for byte.

On a node of ours and on a real Kafka; and any split of the records says it too. `tests/e2e/test_replay.py` counts it.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.group_processing import Group, Said, feed, make_topic, said, until
from tests.support.kafka_node import KafkaNode
from tests.support.peers import Kafka
from tests.support.recorded import Played, Player
from tests.support.recordings import airport_weather

CONFIG = """
role = "edge"
node = "recorder"
data_dir = "data"
profiles = ["recorded-weather"]
rules = ["weather.toml"]
"""
FIELDS = """
every_field = []
[window.fields]
temp = ["count", "mean", "min", "max", "p95", "time_weighted_mean", "slope"]
wind_dir = ["circular_mean", "circular_spread"]
precip = ["sum", "distinct"]
"""
SHAPES = {
    "day": 'kind = "calendar"\ncalendar = "day"\nzone = "America/New_York"',
    "week": 'kind = "calendar"\ncalendar = "week"\nzone = "America/New_York"',
    "month": 'kind = "calendar"\ncalendar = "month"\nzone = "America/New_York"',
    "quarter_day": "size_s = 21600",
    "day_every_three_hours": 'kind = "hopping"\nsize_s = 86400\nevery_s = 10800',
    "without_a_hole": 'kind = "session"\ngap_s = 7200',
}
RULES = "".join(f'[[window]]\nname = "{name}"\n{shape}{FIELDS}' for name, shape in SHAPES.items())
LAST_MS = 1_388_451_600_000
"""Two hours behind the last rows, of 2013-12-30T23:00Z."""
pytestmark = [pytest.mark.long("recordings"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "weather.toml"
    path.write_text(RULES)
    return path


@pytest.fixture(scope="module")
def played(rules: Path) -> Played:
    (rules.parent / "headwater.toml").write_text(CONFIG)
    weather = airport_weather(rules.parent)
    arguments = ["replay", str(weather), "--time-column", "time_hour", "--device-column", "origin"]

    def is_over(told: list[Said]) -> bool:
        """The last mark closes what is open, and the last rule tells its sessions last."""
        return sum(at == LAST_MS and b"/without_a_hole/" in key for key, _, at in told) == 3

    return Player(rules.parent).play(arguments, is_over)


def test_any_split_says_the_same(played: Played, rules: Path) -> None:
    assert len(played.said) > 3 * (363 + 52 + 12 + 4 * 360 + 8 * 360)
    for size, restart in ((26_115, False), (997, True), (7, False)):
        assert played.again(rules, size, restart=restart) == played.said, size


def test_a_group_on_a_node_says_the_same(played: Played, rules: Path, tmp_path: Path) -> None:
    kafka = KafkaNode(tmp_path)
    try:
        compare(tmp_path, rules, kafka.address, played, "")
    finally:
        kafka.kill()


@pytest.mark.peer("kafka")
def test_a_group_on_a_real_kafka_says_the_same(played: Played, rules: Path, tmp_path: Path, kafka: Kafka) -> None:
    compare(tmp_path, rules, kafka.bootstrap, played, f"t{time.time_ns()}.")


def compare(folder: Path, rules: Path, address: str, played: Played, prefix: str) -> None:
    """Feed the records to a cluster and have a group of two members process them."""
    make_topic(address, f"{prefix}readings", 1, **{"retention.ms": "-1"})
    feed(address, [played.readings._replace(topic=f"{prefix}readings")])
    settings = f'rules = ["{rules}"]\ntopic_prefix = "{prefix}"\noutput_retention_days = 36500\n'
    group = Group(folder, address, settings)
    logs = {name: group.log_of(name) for name in "ab"}
    try:
        for name in "ab":
            group.start(name)
        until(lambda: any("took over" in log.read_text() for log in logs.values() if log.exists()), "begun", logs)
        until(lambda: len(said(address, f"{prefix}aggregates")[0]) >= len(played.said), "all is told", logs)
        assert said(address, f"{prefix}aggregates") == [played.said]
        assert group.stop("a") == group.stop("b") == 0
    finally:
        group.close()
