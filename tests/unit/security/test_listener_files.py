"""Users, certificates and settings of a listener that change, are bad, or contradict themselves."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.doors import check_doors
from gateway.tls import ServerTls
from gateway.tls_settings import ServerTlsSettings
from gateway.users import add_user, remove_user
from gateway.wire.errors import KafkaError
from gateway.wire.schema import ApiKey
from gateway.wire.settings import KafkaListenerSettings, KafkaSettings
from headwater.errors import UserError
from tests.support.certificates import Authority
from tests.support.secure_doors import ALL, door, run, signed
from tests.support.secure_node import PASSWORD, secure_node
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("quick_doors")

KAFKA = frozenset({"kafka"})


def test_users_come_go_and_a_bad_file_shuts_the_door_alone(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "node" / "users"

    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), users=("token", "other")) as node:
            told: list[tuple[str, dict[str, Any]]] = []
            node.listener.doors.emit = lambda kind, **detail: told.append((kind, detail))
            (status,) = node.listener.status()["listeners"]
            assert status["open"]
            stays, goes = [await node.channel(signed(authority, sasl_username=name)) for name in ("token", "other")]
            remove_user(str(file), "other")
            await eventually(lambda: goes.closed)
            good = file.read_bytes()
            file.write_bytes(good[:-20])
            await eventually(lambda: node.listener.doors.problems())
            with pytest.raises(OSError, match=r"Connect call failed|refused"):
                await node.channel(signed(authority))
            await stays.call(ApiKey.METADATA, ALL)  # who is in stays in
            assert not node.listener.status()["listeners"][0]["open"]
            file.write_bytes(good)
            await eventually(lambda: not node.listener.doors.problems())
            add_user(str(file), "token", b"new", KAFKA, replace=True)
            await eventually(lambda: stays.closed)
            await eventually(lambda: node.listener.doors.book.reload() == set())
            (await node.channel(signed(authority, sasl_password="new"))).close()
            assert [kind for kind, _ in told] == ["listener-shut", "listener-open"]
            for _ in range(5):
                with pytest.raises(KafkaError):
                    await node.channel(signed(authority))
            await eventually(lambda: len(told) == 3)
            kind, detail = told[2]
            assert (kind, detail["listener"], "proof is wrong" in detail["last"]) == ("refused", "kafka", True)
            await asyncio.sleep(0.06)
            assert len(told) == 3  # one for all of them

    run(scenario)


def test_a_door_opens_with_its_first_user_and_with_its_certificate(tmp_path: Path, authority: Authority) -> None:
    made = {name: tmp_path / name for name in ("node.crt", "node.key")}

    async def scenario() -> None:
        files: dict[str, Any] = {"certificate_file": str(made["node.crt"]), "key_file": str(made["node.key"])}
        async with secure_node(tmp_path, KafkaListenerSettings(listen="127.0.0.1:0", **files), users=()) as node:
            assert "cannot be read" in next(iter(node.listener.doors.problems().values()))
            for name, file in made.items():
                file.write_bytes((authority.folder / name).read_bytes())
                file.chmod(0o644)
            await eventually(lambda: "no user" in next(iter(node.listener.doors.problems().values())))
            add_user(str(tmp_path / "node" / "users"), "token", PASSWORD.encode(), KAFKA)
            await eventually(lambda: not node.listener.doors.problems())
            (await node.channel(signed(authority))).close()
            assert "open to others" in " ".join(node.listener.status()["security_notes"])

    run(scenario)


def test_a_certificate_cut_short_anywhere_serves_nobody(tmp_path: Path, authority: Authority) -> None:
    files = {kind: tmp_path / kind for kind in ("crt", "key", "ca")}
    whole = {"crt": authority.folder / "node.crt", "key": authority.folder / "node.key", "ca": authority.file}
    for kind, file in files.items():
        file.write_bytes(whole[kind].read_bytes())
    settings = ServerTlsSettings(
        certificate_file=str(files["crt"]), key_file=str(files["key"]), client_ca_file=str(files["ca"])
    )

    tls = ServerTls(settings, "here", ask=True)

    def read() -> ssl.SSLContext | None:
        assert tls.refresh()
        assert (tls.context is None) == (tls.problem is not None)
        return tls.context

    assert read() is not None
    for kind, file in files.items():
        data = whole[kind].read_bytes()
        for length in range(0, len(data) - 1, 7):
            file.write_bytes(data[:length])
            assert read() is None, (kind, length)
        os.unlink(file)
        assert read() is None
        file.write_bytes(data)
        assert read() is not None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"protocol": "SASL_PLAINTEXT", "sasl_mechanisms": ("PLAIN",)}, "no SASL mechanism is left"),
        ({"principal_mapping": "RULE:^CN=(/$1/"}, "principal_mapping"),
        ({"principal_mapping": "cn"}, "principal_mapping"),
        ({"listen": ":x"}, "no address"),
    ],
)
def test_listeners_that_contradict_themselves_are_told_of_at_once(settings: dict[str, Any], text: str) -> None:
    listener = KafkaListenerSettings(**{"listen": "127.0.0.1:0", **settings})
    with pytest.raises(UserError, match=text):
        check_doors(KafkaSettings(listeners=(listener,)))
