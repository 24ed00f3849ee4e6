"""The MQTT client against Mosquitto: versions and QoS, restarts, cut links, lost sessions, wrong passwords."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import pytest

from devices.profile_files import read_profiles
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt_client import link as link_module
from gateway.ingest.mqtt_client.settings import MqttClientSettings, Subscription
from headwater.cli.status import _broker_line
from headwater.dashboard.metrics import _brokers
from tests.support import peers
from tests.support.broker_node import reading
from tests.support.brokers import Mosquitto
from tests.support.certificates import Authority
from tests.support.mqtt_node import running

pytestmark = pytest.mark.peer("mosquitto")
long = pytest.mark.long("brokers")
VERSIONS = pytest.mark.parametrize("version", ["5", pytest.param("3.1.1", marks=long)])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as started:
        yield started


def settings(broker: Mosquitto, *topics: str | Subscription, **more: object) -> MqttClientSettings:
    options: dict[str, object] = {"name": "hall", "retry_max_ms": 200, **more}
    return MqttClientSettings(address=broker.address, topics=topics or ("site/#",), **options)  # type: ignore[arg-type]


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


@VERSIONS
def test_every_qos_is_stored_once_and_acknowledged(tmp_path: Path, broker: Mosquitto, version: str) -> None:
    async def story() -> None:
        everything = Subscription(filter="site/#", qos=2)
        async with reading(tmp_path / "data", settings(broker, everything, version=version)) as node:
            await node.connected()
            for qos in (0, 1, 2):
                lines = numbers(100, qos * 100)
                await asyncio.to_thread(broker.publish, f"site/{qos}", lines, "-V", "mqttv5", qos=qos)
            await node.until(lambda: len(node.readings()) == 300 and not node.status()["inflight"])
            assert node.values() == list(range(300))
            assert {record.key for record in node.readings()} == {"edge/site/0", "edge/site/1", "edge/site/2"}
            assert node.readings()[150].headers["hw-m"].endswith(b":broker:hall")
            status = node.status()
            assert (status["version"], status["granted"]) == (version, {"site/#": 2})
            assert node.source()["connected"]
            assert node.source()["readings"] == 300
        # nothing is owed: a second run gets nothing twice
        async with reading(tmp_path / "data", settings(broker, everything, version=version)) as node:
            await node.connected()
            assert node.status()["session_present"]
            await asyncio.to_thread(broker.publish, "site/1", ["last"], qos=2)
            await node.until(lambda: node.counts()["received"])
            assert (node.counts()["received"], node.counts()["dead_letters"]) == (1, 0)
            assert node.source()["id"] == "broker:hall"

    asyncio.run(story())


def test_a_restarted_broker_resumes_and_one_that_lost_its_sessions_is_named(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        async with reading(tmp_path / "data", settings(broker)) as node:
            await node.connected()
            await asyncio.to_thread(broker.stop)
            await node.until(lambda: not node.source()["connected"])
            assert "cannot connect" in node.source()["problem"] or "closed" in node.source()["problem"]
            await asyncio.to_thread(broker.start)
            await node.connected()
            assert node.status()["session_present"]
            assert node.source()["problem"] is None
            assert node.status()["sessions_lost"] == 0
            await asyncio.to_thread(broker.stop, signal.SIGKILL)
            (broker.folder / "mosquitto.db").unlink()
            await node.until(lambda: not node.status()["connected"])
            await asyncio.to_thread(broker.start)
            await node.connected()
            assert node.status()["sessions_lost"] == 1
            assert ("broker-session-lost", {"broker": "hall", "address": broker.address}) in node.events
            kinds = [kind for kind, _ in node.events]
            assert kinds[:3] == ["broker-up", "broker-down", "broker-up"]
            await asyncio.to_thread(broker.publish, "site/pump", ["1"])
            await node.until(lambda: node.values() == [1])

    asyncio.run(story())


@VERSIONS
def test_what_was_stored_and_not_acknowledged_is_recognised_after_a_cut(
    tmp_path: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    cuts = 3
    flush = link_module.Link.flush

    def cut_before_some_acknowledgements(link: link_module.Link) -> None:
        nonlocal cuts
        transport = link._transport
        if link._acks and cuts < 3 and transport is not None:
            cuts += not transport.is_closing()
            transport.abort()
        else:
            flush(link)

    monkeypatch.setattr(link_module.Link, "flush", cut_before_some_acknowledgements)

    async def story() -> None:
        nonlocal cuts
        async with reading(tmp_path / "data", settings(broker, version=version)) as node:
            await node.connected()
            for warm in (-2, -1):  # past identifier 1, with which a broker that numbers anew begins
                await asyncio.to_thread(broker.publish, "site/pump", [str(warm)])
                await node.until(lambda: not node.status()["inflight"] and len(node.values()) == warm + 3)  # noqa: B023
            cuts = 0
            await asyncio.to_thread(broker.publish, "site/pump", numbers(400))
            await node.until(lambda: len(set(node.values())) == 402 and node.status()["connects"] == 4)
            await node.until(lambda: not node.status()["inflight"])
            assert cuts == 3
            doubled = {value: count for value, count in Counter(node.values()).items() if count > 1}
            assert not doubled
            assert node.counts()["repeats_dup"] > 0

    asyncio.run(story())


@long
def test_a_broker_that_falls_silent_is_left_and_found_again(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        wanted = settings(broker, keep_alive_s=2, connect_timeout_ms=300)
        async with reading(tmp_path / "data", wanted) as node:
            await node.connected()
            broker.send(signal.SIGSTOP)  # its sockets stay open, and nothing answers
            await node.until(lambda: not node.status()["connected"])
            assert "not a byte from it" in node.source()["problem"]
            broker.send(signal.SIGCONT)
            await node.connected()
            assert node.source()["problem"] is None

    asyncio.run(story())


@long
def test_retained_copies_are_passed_over_and_live_messages_are_not(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        await asyncio.to_thread(broker.publish, "site/old", ["1"], "-r")
        for version, skipped in (("3.1.1", 1), ("5", 0)):  # an MQTT 5 broker is told to send none
            wanted = settings(broker, version=version, client_id=f"edge-{version}")
            async with reading(tmp_path / version, wanted) as node:
                await node.connected()
                await asyncio.to_thread(broker.publish, "site/new", ["2"], "-r")
                await node.until(lambda: node.values() == [2])
                assert node.status()["retained"] == skipped
                assert not node.status()["inflight"]
            await asyncio.to_thread(broker.publish, "site/new", [""], "-r")

    asyncio.run(story())


@long
def test_retained_copies_are_stored_under_their_own_time_and_flagged(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        now_ms = int(time.time() * 1000)
        old, undated = f'{{"ts":{now_ms - 60_000},"seq":1,"power":812.5}}', '{"power":1}'
        await asyncio.to_thread(broker.publish, "farm/t1/telemetry", [old], "-r")
        await asyncio.to_thread(broker.publish, "site/old", [undated], "-r")
        for version in ("3.1.1", "5"):
            wanted = settings(
                broker, "farm/#", "site/#", version=version, client_id=f"store-{version}", retained="store"
            )
            async with reading(tmp_path / version, wanted, profiles=read_profiles(["wind-turbine"])) as node:
                await node.connected()
                await node.until(lambda: node.counts()["undated_copies"] == 1 and bool(node.readings()))
                [record] = node.readings()
                assert (record.timestamp, record.headers["hw-q"]) == (now_ms - 60_000, b"retained")
                await node.until(lambda: not node.status()["inflight"])
                assert node.status()["retained"] == 0
        for topic in ("farm/t1/telemetry", "site/old"):
            await asyncio.to_thread(broker.publish, topic, [""], "-r")

    asyncio.run(story())


@long
def test_two_gateways_share_a_subscription(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        wanted = [settings(broker, "$share/g/site/#", name=name) for name in ("one", "two")]
        async with reading(tmp_path / "data", *wanted) as node:
            await node.connected()
            await asyncio.to_thread(broker.publish, "site/pump", numbers(200))
            await node.until(lambda: len(node.values()) >= 200)
            assert sorted(node.values()) == list(range(200))
            readings = {row["id"]: row["readings"] for row in node.counts()["sources"]}
            assert min(readings.values()) > 50

    asyncio.run(story())


@long
def test_a_filter_that_was_taken_out_delivers_no_more(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        async with reading(tmp_path / "data", settings(broker, "site/#", "old/#")) as node:
            await node.connected()
            await node.until((tmp_path / "data" / "node" / "brokers.json").exists)
        await asyncio.to_thread(broker.publish, "old/pump", ["1"])  # the session's still: not lost
        async with reading(tmp_path / "data", settings(broker, "site/#")) as node:
            await node.connected()
            await node.until(lambda: node.values() == [1])
            await asyncio.to_thread(broker.publish, "old/pump", ["2"])
            await asyncio.to_thread(broker.publish, "site/pump", ["3"])
            await node.until(lambda: 3 in node.values())
            assert node.values() == [1, 3]

    asyncio.run(story())


def test_a_password_is_asked_for_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    program = peers.program("mosquitto_passwd")
    assert program is not None
    passwords = tmp_path / "passwords"
    subprocess.run([program, "-b", "-c", str(passwords), "edge", "secret"], check=True, capture_output=True)
    extra = ["allow_anonymous false", f"password_file {passwords}"]

    async def story(broker: Mosquitto) -> None:
        for version in ("5", "3.1.1"):
            async with reading(tmp_path / version, settings(broker, version=version)) as node:
                await node.until(lambda: "not let" in node.source()["problem"] or "know" in node.source()["problem"])
                assert "password_file" in node.source()["problem"]
                assert "secret" not in str(node.status())
            wanted = settings(broker, version=version, user="edge", password="secret")
            async with reading(tmp_path / version, wanted) as node:
                await node.connected()

    with Mosquitto(tmp_path / "broker", extra=extra) as broker:
        asyncio.run(story(broker))


def test_a_message_that_is_too_large_is_settled_and_named(tmp_path: Path, broker: Mosquitto) -> None:
    async def story() -> None:
        async with reading(tmp_path / "data", settings(broker, packet_bytes_max=1_000)) as node:
            await node.connected()
            await asyncio.to_thread(broker.publish, "site/big", ["9" * 5_000])
            await asyncio.to_thread(broker.publish, "site/pump", ["1"])
            await node.until(lambda: node.values() == [1] and not node.status()["inflight"])
            assert node.status()["oversize"] == 1
            assert "packet_bytes_max" in node.source()["problem"]
            assert node.counts()["refused_messages"] == 1
        async with reading(tmp_path / "data", settings(broker)) as node:  # and it does not come again
            await node.connected()
            await asyncio.to_thread(broker.publish, "site/pump", ["2"])
            await node.until(lambda: node.values() == [1, 2])
            assert node.counts()["received"] == 1

    asyncio.run(story())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_refused_filter_stands_in_status_with_what_to_do(tmp_path: Path, version: str) -> None:
    async def story(port: int) -> None:
        address, level = f"127.0.0.1:{port}", cast("Literal['5', '3.1.1']", version)
        wanted = MqttClientSettings(name="other", address=address, topics=("site/#",), version=level)
        async with reading(tmp_path / "data", wanted) as node:
            await node.connected()
            assert list(node.status()["refused"]) == ["site/#"]
            assert "“site/#”" in node.source()["problem"]
            assert "access list" in node.source()["problem"]
            shown = _broker_line(node.status(), node.status()["since_ms"] + 60_000)
            assert shown == f"connected for 1 min 0 s, {address}, MQTT {version}, 0 filters and 1 refused"
            [up, refused, *_] = [family.samples[0] for family in _brokers([node.status()])]
            assert (up.name, up.labels, up.value) == ("headwater_broker_up", {"broker": "other"}, 1)
            assert (refused.name, refused.value) == ("headwater_broker_refused_filters", 1)

    with running(tmp_path / "listener", settings=MqttSettings(listen="127.0.0.1:0")) as listener:
        asyncio.run(story(listener.port))


def test_tls_shows_our_certificate_and_trusts_none_but_the_named_authority(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    server, client = ours.sign("server"), ours.sign("edge")
    files = [f"cafile {ours.file}", f"certfile {server.certificate}", f"keyfile {server.key}"]
    tls = {"tls": True, "tls_certificate_file": str(client.certificate), "tls_key_file": str(client.key)}

    async def story(broker: Mosquitto) -> None:
        async with reading(tmp_path / "1", settings(broker, tls_ca_file=str(ours.file), **tls)) as node:
            await node.connected()
            shown = ["--cafile", str(ours.file), "--cert", str(client.certificate), "--key", str(client.key)]
            await asyncio.to_thread(broker.publish, "site/pump", numbers(50), *shown)
            await node.until(lambda: node.values() == list(range(50)))
        async with reading(tmp_path / "2", settings(broker, tls_ca_file=str(others.file), **tls)) as node:
            await node.until(lambda: "authority that we do not trust" in node.source()["problem"])
        async with reading(tmp_path / "3", settings(broker, tls=True, tls_ca_file=str(tmp_path / "none"))) as node:
            await node.until(
                lambda: "none" in node.source()["problem"] and "cannot be read" in node.source()["problem"]
            )

    with Mosquitto(tmp_path / "broker", extra=[*files, "require_certificate true"]) as broker:
        asyncio.run(story(broker))
