"""Users at the listener on real sockets: who comes in, under which client id, to which topics, from where."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway import credentials, users
from gateway.ingest.mqtt import listener, packets, packets5
from gateway.ingest.mqtt.packets import Connect, Publish, Will
from gateway.ingest.mqtt.properties import Property
from gateway.ingest.mqtt.reasons import ReasonCode as R
from gateway.ingest.mqtt.settings import AclRule, MqttSettings
from gateway.users import add_user
from headwater.errors import UserError
from tests.support.mqtt_client import Client, node_at, run
from tests.support.mqtt_node import Node
from tests.support.waiting import eventually

MQTT = frozenset({"mqtt"})
ALICE, BOB = ("alice", b"wonderland"), ("bob", b"builder")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_N", 4)
    monkeypatch.setattr(listener, "SWEEP_S", 0.01)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, password in (ALICE, BOB):
        add_user(str(tmp_path / "node" / "users"), name, password, MQTT)
    return tmp_path


def connect(
    who: tuple[str | None, bytes | None] = (None, None), *, client: str = "c1", level: int = 5, **more: Any
) -> bytes:
    asked = Connect(level, client, clean=more.pop("clean", False), user=who[0], password=who[1], **more)
    return (
        packets5.encode_connect(asked, {Property.SESSION_EXPIRY_INTERVAL: 60})
        if level == 5
        else packets.encode_connect(asked)
    )


def publish(topic: str, packet_id: int, *, level: int = 5, qos: int = 1) -> bytes:
    encode = packets5.encode_publish if level == 5 else packets.encode_publish
    return encode(Publish(topic, b"1", qos, packet_id, dup=False, retain=False))


async def answered(node: Node, data: bytes) -> tuple[Client, int]:
    client = await Client.open(node)
    client.writer.write(data)
    return client, (await client.packet())[3]


async def is_refused(node: Node, data: bytes, code: int) -> None:
    client, found = await answered(node, data)
    assert found == code
    await client.closed()


async def enters(node: Node, data: bytes) -> Client:
    client, code = await answered(node, data)
    assert code == 0
    return client


@pytest.mark.parametrize(
    ("who", "code", "code_4"),
    [
        ((None, None), R.NOT_AUTHORIZED, 5),
        (("alice", None), R.NOT_AUTHORIZED, 5),
        (("alice", b""), R.BAD_USER_NAME_OR_PASSWORD, 4),
        (("alice", b"builder"), R.BAD_USER_NAME_OR_PASSWORD, 4),
        (("carol", b"wonderland"), R.BAD_USER_NAME_OR_PASSWORD, 4),
        (("", b"wonderland"), R.BAD_USER_NAME_OR_PASSWORD, 4),
    ],
)
def test_who_is_turned_away_and_why(data: Path, who: tuple[str | None, bytes | None], code: int, code_4: int) -> None:
    async def test() -> None:
        async with node_at(data) as node:
            await is_refused(node, connect(who) + publish("a", 1), code)
            await is_refused(node, connect(who, level=4) + publish("a", 1, level=4), code_4)
            assert node.ingest.status()["refused"] == 2
            assert node.ingest.status()["sessions"] == 0
            assert node.readings() == []

    run(test)


@pytest.mark.parametrize("level", [4, 5])
def test_who_comes_in_publishes_at_once(data: Path, level: int) -> None:
    async def test() -> None:
        async with node_at(data) as node:
            for _ in range(2):  # hashed, then remembered
                client = await enters(node, connect(ALICE, level=level) + publish("a", 1, level=level))
                assert await client.packet() == b"\x40\2\0\1"
                await client.close()

    run(test)


def test_a_password_is_hashed_once_and_again_when_it_changes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    matches = users.matches

    def counted(user: users.User | None, password: bytes) -> bool:
        hashed.append(password)
        return matches(user, password)

    monkeypatch.setattr(credentials, "matches", counted)

    async def test() -> None:
        async with node_at(data) as node:
            clients = [await enters(node, connect(ALICE, client=f"c{number}")) for number in range(3)]
            bob = await enters(node, connect(BOB, client="bob"))
            assert hashed == [ALICE[1], BOB[1]]
            add_user(str(data / "node" / "users"), "alice", b"new", MQTT, replace=True)
            for client in clients:  # whoever came with the old one goes
                assert (await client.packet())[2] == R.ADMINISTRATIVE_ACTION
                await client.closed()
            await is_refused(node, connect(ALICE), R.BAD_USER_NAME_OR_PASSWORD)
            client = await enters(node, connect(("alice", b"new")))
            await bob.say(b"\xc0\0", b"\xd0\0")
            await client.close()
            await bob.close()

    run(test)


def test_only_so_many_wait_for_their_hash(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "WAITING_MAX", 0)

    async def test() -> None:
        async with node_at(data) as node:
            await is_refused(node, connect(ALICE), R.SERVER_BUSY)

    run(test)


def test_a_client_id_is_its_users(data: Path) -> None:
    async def test() -> None:
        async with node_at(data) as node:
            alice = await enters(node, connect(ALICE))
            await is_refused(node, connect(BOB), R.NOT_AUTHORIZED)  # no takeover either
            await is_refused(node, connect(BOB, clean=True), R.NOT_AUTHORIZED)
            await alice.say(b"\xc0\0", b"\xd0\0")
            await alice.close()
            await eventually(lambda: node.ingest.status()["connections"] == 0)
            await is_refused(node, connect(BOB), R.NOT_AUTHORIZED)
            await (await enters(node, connect(BOB, client="c2"))).close()
        async with node_at(data) as node:  # and after a restart
            await is_refused(node, connect(BOB), R.NOT_AUTHORIZED)
            await (await enters(node, connect(ALICE))).close()

    run(test)


def test_a_connected_clients_id_is_its_users_without_a_session_too(data: Path) -> None:
    async def test() -> None:
        async with node_at(data) as node:
            alice = await enters(node, connect(ALICE, level=4, clean=True))
            await is_refused(node, connect(BOB, level=4, clean=True), 5)
            await alice.say(b"\xc0\0", b"\xd0\0")
            await alice.close()
            await eventually(lambda: node.ingest.status()["connections"] == 0)
            await (await enters(node, connect(BOB, level=4, clean=True))).close()

    run(test)


ACL = (AclRule(publish=("farm/%u/%c/#",)),)


@pytest.mark.parametrize("level", [4, 5])
def test_topics_that_are_anothers_are_refused_also_once_they_are_known(data: Path, level: int) -> None:
    async def test() -> None:
        async with node_at(data, acl=ACL) as node:
            bob = await enters(node, connect(BOB, client="b1", level=level))
            bob.writer.write(publish("farm/bob/b1/x", 1, level=level) * 2)
            assert await bob.packet() + await bob.packet() == b"\x40\2\0\1" * 2
            alice = await enters(node, connect(ALICE, client="a1", level=level))
            mine = publish("farm/alice/a1/x", 1, level=level)
            for topic in ("farm/bob/b1/x", "farm/alice/a2/x"):
                alice.writer.write(mine + publish(topic, 0, level=level, qos=0) + publish(topic, 2, level=level) + mine)
                if level == 4:  # no way to refuse one message but to close
                    await alice.closed()
                    alice = await enters(node, connect(ALICE, client="a1", level=level))
                    continue
                assert await alice.packet() == b"\x40\2\0\1"
                assert await alice.packet() == b"\x40\3\0\2\x87"
                assert await alice.packet() == b"\x40\2\0\1"
            await eventually(lambda: node.ingest.status()["refused_messages"] == (2 if level == 4 else 4))
            allowed = {"edge/farm/bob/b1/x", "edge/farm/alice/a1/x"}
            await eventually(lambda: {record.key for record in node.readings()} == allowed)
            if level == 5:
                [found] = [each for each in node.ingest.status()["sources"] if each["id"] == "mqtt:a1"]
                assert "farm/bob/b1/x" in found["problem"]
            await alice.close()
            await bob.close()

    run(test)


def test_wills_and_client_ids_are_checked_before_they_are_let_in(data: Path) -> None:
    async def test() -> None:
        async with node_at(data, acl=ACL) as node:
            will = Will("farm/bob/c1/x", b"1", 0, retain=False)
            await is_refused(node, connect(ALICE, will=will), R.NOT_AUTHORIZED)
            await is_refused(node, connect(ALICE, client="+"), R.CLIENT_IDENTIFIER_NOT_VALID)
            own = will._replace(topic="farm/alice/c1/x")
            client = await enters(node, connect(ALICE, will=own))
            await client.close()
            await eventually(lambda: len(node.readings()) == 1)
            assert node.ingest.status()["sessions"] == 1

    run(test)


def test_without_users_only_loopback_is_served_until_one_is_added(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        node = Node(tmp_path, (), MqttSettings(listen="0.0.0.0:0"))
        await node.open()
        assert node.listener.address[0] == "127.0.0.1"
        assert "headwater user add NAME --mqtt" in (node.listener.problem or "")
        stranger = await enters(node, connect())
        add_user(str(tmp_path / "node" / "users"), *ALICE, MQTT)
        assert (await stranger.packet())[2] == R.NOT_AUTHORIZED
        await stranger.closed()
        await eventually(lambda: node.listener.address[0] == "0.0.0.0")
        assert node.listener.problem is None
        await is_refused(node, connect(), R.NOT_AUTHORIZED)
        await (await enters(node, connect(ALICE))).close()
        await node.close()

    run(test)
    assert "headwater user add NAME --mqtt" in caplog.text


def test_with_users_the_network_is_served_from_the_start(data: Path) -> None:
    async def test() -> None:
        node = Node(data, (), MqttSettings(listen="0.0.0.0:0"))
        await node.open()
        assert node.listener.address[0] == "0.0.0.0"
        await node.close()

    run(test)


@pytest.mark.parametrize("harm", ["gone", "bad", "open"])
def test_a_users_file_that_goes_bad_lets_nobody_new_in_until_it_is_mended(data: Path, harm: str) -> None:
    path = data / "node" / "users"
    good = path.read_bytes()

    def do_harm() -> None:
        if harm == "gone":
            path.unlink()
        elif harm == "bad":
            path.write_bytes(b"alice\n")
        else:
            path.chmod(0o644)

    async def test() -> None:
        async with node_at(data) as node:
            alice = await enters(node, connect(ALICE))
            do_harm()
            await eventually(lambda: node.listener.problem is not None)
            await is_refused(node, connect(ALICE, client="c2"), R.SERVER_UNAVAILABLE)
            await is_refused(node, connect(), R.SERVER_UNAVAILABLE)
            await alice.say(b"\xc0\0", b"\xd0\0")  # who is in stays
            path.write_bytes(good)
            os.chmod(path, 0o600)
            await eventually(lambda: node.listener.problem is None)
            await (await enters(node, connect(ALICE, client="c2"))).close()
            await alice.close()

    run(test)


def test_a_file_without_any_user_left_does_not_open_the_node_again(data: Path) -> None:
    async def test() -> None:
        async with node_at(data) as node:
            alice = await enters(node, connect(ALICE))
            users = data / "node" / "users"
            lines = users.read_bytes().splitlines(keepends=True)  # by hand: all lines but the users'
            users.write_bytes(b"".join(line for line in lines if line.startswith((b"#", b"$decoy"))))
            assert (await alice.packet())[2] == R.ADMINISTRATIVE_ACTION
            await alice.closed()
            await is_refused(node, connect(), R.NOT_AUTHORIZED)
            await is_refused(node, connect(ALICE), R.BAD_USER_NAME_OR_PASSWORD)

    run(test)


@pytest.mark.parametrize("harm", ["bad", "open"])
def test_a_bad_users_file_lets_nobody_in_and_stops_nothing_else(data: Path, harm: str) -> None:
    path = data / "node" / "users"
    good = path.read_bytes()
    if harm == "bad":
        path.write_bytes(good.replace(b"alice", b"alicf"))
    else:
        path.chmod(0o644)

    async def test() -> None:
        async with node_at(data) as node:
            assert node.listener.problem is not None
            assert str(path) in node.listener.problem
            for hello in (connect(ALICE), connect()):
                await is_refused(node, hello, R.SERVER_UNAVAILABLE)
            path.write_bytes(good)
            path.chmod(0o600)
            await eventually(lambda: node.listener.problem is None)
            await (await enters(node, connect(ALICE))).close()
            await is_refused(node, connect(), R.NOT_AUTHORIZED)

    run(test)


def test_a_users_file_that_is_named_and_not_there_stops_the_start(data: Path) -> None:
    async def test() -> None:
        node = Node(data, (), MqttSettings(listen="127.0.0.1:0", users_file=str(data / "elsewhere")))
        with pytest.raises(UserError) as caught:
            await node.open()
        assert caught.value.hint
        node.ingest.close()
        node.store.close()

    run(test)


def test_a_client_whose_time_is_over_while_its_password_is_hashed_leaves_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    matches = users.matches

    def slow(user: users.User | None, password: bytes) -> bool:
        assert over.wait(5)
        return matches(user, password)

    monkeypatch.setattr(credentials, "matches", slow)

    async def test() -> None:
        async with node_at(data, connect_timeout_ms=50) as node:
            client = await Client.open(node)
            client.writer.write(connect(ALICE))
            assert (await client.packet())[3] == R.UNSPECIFIED_ERROR
            await client.closed()
            over.set()
            await (await enters(node, connect(ALICE, client="c2"))).close()
            assert [each["id"] for each in node.ingest.status()["sources"]] == ["mqtt:c2"]

    run(test)
