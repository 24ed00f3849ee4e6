"""`headwater doctor` goes where clients are sent, and sees whether that is this node."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.wire.settings import KafkaListenerSettings, KafkaSettings
from headwater.cli.doctor_net import look_outside
from headwater.cli.findings import Finding
from headwater.net import free_port
from headwater.settings.model import Settings
from tests.support.certificates import Authority
from tests.support.secure_doors import OPEN, door, run
from tests.support.secure_node import SecureNode, secure_node


def settings(node: SecureNode, told: str | None = None, door: str | None = None, host: str = "127.0.0.1") -> Settings:
    """Of a node that sends its clients to `told`, and those of its SASL listener to `door`."""
    listeners: tuple[KafkaListenerSettings, ...] = ()
    if door is not None:
        listeners = (msgspec.structs.replace(OPEN, listen=f"{host}:{node.port()}", advertised=door),)
    kafka = KafkaSettings(listen=f"127.0.0.1:{node.listener.address[1]}", advertised=told, listeners=listeners)
    return Settings(node="test", kafka=kafka)


async def last(of: Settings) -> Finding:
    return (await look_outside(of, {"state": "good"}))[-1]


@pytest.mark.parametrize("there", ["dead", "other", "own"])
def test_where_plain_clients_are_sent(tmp_path: Path, there: str) -> None:
    async def scenario() -> None:
        dead = free_port()
        async with secure_node(tmp_path / "other") as other:
            port = {"dead": dead, "other": other.listener.address[1], "own": 0}[there]
            told = f"127.0.0.1:{port}" if port else None
            async with secure_node(tmp_path / "node", advertised=told) as node:
                found = await last(settings(node, told))
        said = {"dead": "nothing answers there", "other": "another node: cluster", "own": "this machine only"}[there]
        assert (found.level, said in found.said) == ("ok" if there == "own" else "fail", True), found

    run(scenario)


def test_where_clients_that_sign_in_are_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path / "other", OPEN) as other, secure_node(tmp_path / "node", OPEN) as node:
            own = f"localhost:{node.port()}"
            for door, host, level, said in (
                (f"127.0.0.1:{free_port()}", "127.0.0.1", "fail", "nothing answers there"),
                (f"127.0.0.1:{other.listener.address[1]}", "127.0.0.1", "fail", "it is another listener"),
                (f"127.0.0.1:{other.port()}", "127.0.0.1", "warn", "is not known"),
                (own, "127.0.0.1", "ok", "no credential is at hand"),
                (own, "0.0.0.0", "warn", "other machines cannot use it"),
            ):
                found = await last(settings(node, door=door, host=host))
                assert (found.level, said in found.said) == (level, True), found
            assert node.listener.doors.authentication_failures == 0

    run(scenario)


def test_where_clients_of_a_tls_listener_are_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for name in ("node", "other"):
        authority.sign(name)

    async def scenario() -> None:
        own, others = door(authority), door(authority, "other")
        async with secure_node(tmp_path / "there", others) as there, secure_node(tmp_path / "here", own) as here:
            for told, level, said in (
                (f"127.0.0.1:{there.port()}", "fail", "another certificate"),
                (f"127.0.0.1:{there.listener.address[1]}", "fail", ""),
                (f"127.0.0.1:{free_port()}", "fail", "nothing answers there"),
                (f"localhost:{here.port()}", "ok", "with this listener's certificate"),
            ):
                listener = msgspec.structs.replace(own, listen=f"127.0.0.1:{here.port()}", advertised=told)
                kafka = KafkaSettings(listen=f"127.0.0.1:{here.listener.address[1]}", listeners=(listener,))
                found = await last(Settings(node="test", kafka=kafka))
                assert (found.level, said in found.said) == (level, True), found

    run(scenario)


def test_a_node_that_does_not_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        kafka = KafkaSettings(listen=f"127.0.0.1:{free_port()}")
        (found,) = await look_outside(Settings(node="test", kafka=kafka, mqtt=None, page=None), None)
        assert (found.level, "could not be tested" in found.said) == ("warn", True), found

    run(scenario)
