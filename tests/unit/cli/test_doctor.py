"""`headwater doctor`: each thing that keeps a node from its work is found and comes with the next step."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import serve_kafka
from gateway.users import add_user
from gateway.wire.broker import Broker
from gateway.wire.settings import KafkaSettings
from headwater.cli import doctor_here
from headwater.cli.doctor import FAULTY, GOOD, doctor, examine
from headwater.cli.doctor_net import look_outside
from headwater.cli.findings import Finding
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet, free_port
from headwater.sealed import seal, unseal
from headwater.settings.load import load_settings

Look = Callable[[str], list[Finding]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The findings about a node with this configuration."""

    def examined(text: str) -> list[Finding]:
        (tmp_path / "headwater.toml").write_text(f'node = "n1"\nkafka.listen = "127.0.0.1:{free_port()}"\n{text}')
        return examine(str(tmp_path / "headwater.toml"))

    return examined


def about(findings: list[Finding], part: str, *levels: str) -> list[Finding]:
    return [finding for finding in findings if finding.about == part and finding.level in (levels or ("warn", "fail"))]


class Node:
    """A running Kafka listener in a thread of its own."""

    def __init__(self, directory: Path, settings: KafkaSettings) -> None:
        self.directory, self.settings = directory, settings
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.thread.start()
        assert self.ready.wait(10)

    async def _serve(self) -> None:
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        store = LogStore.open(
            str(self.directory), node="n2", settings=LogSettings(fsync_interval_ms=0), disk=RealDisk(),
            clock=SystemClock(), call_in_loop=self.loop.call_soon_threadsafe,
        )  # fmt: skip
        host, port = "127.0.0.1", int(self.settings.listen.rpartition(":")[2])
        listener = await serve_kafka(Broker(store, SystemClock(), settings=self.settings), RealNet(), host, port)
        self.port = listener.address[1]
        self.ready.set()
        await self.end.wait()
        listener.close()
        store.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[KafkaSettings], Node]]:
    nodes: list[Node] = []

    def started(settings: KafkaSettings) -> Node:
        nodes.append(Node(tmp_path / f"served-{len(nodes)}", settings))
        return nodes[-1]

    yield started
    for node in nodes:
        node.stop()


def test_a_mistake_in_the_configuration_is_the_only_finding(look: Look) -> None:
    (finding,) = look('rol = "edge"\n')
    assert (finding.level, finding.about) == ("fail", "configuration")
    assert "headwater.toml:3" in finding.said


def test_exit_status_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(
        f'node = "n1"\nkafka.listen = "127.0.0.1:{free_port()}"\n[mqtt]\nlisten = "127.0.0.1:{free_port()}"\n'
    )
    assert doctor(str(file), as_json=True) == GOOD
    rows = json.loads(capsys.readouterr().out)
    assert {"level", "about", "said", "then"} == set(rows[0])
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        file.write_text(f'node = "n1"\nkafka.listen = "127.0.0.1:{taken}"\n')
        assert doctor(str(file), as_json=False) == FAULTY
    shown = capsys.readouterr().out
    assert f"fail  kafka          cannot listen on 127.0.0.1:{taken}" in shown
    assert f"(pid {os.getpid()})" in shown


def test_a_data_directory_of_another_node(look: Look, tmp_path: Path) -> None:
    LogStore.open(
        str(tmp_path / "data"), node="other", settings=LogSettings(), disk=RealDisk(), clock=SystemClock(),
        call_in_loop=lambda action: action(), flusher="manual",
    ).close()  # fmt: skip
    (finding,) = about(look(""), "data", "fail")
    assert "belongs to node “other”, and this node is “n1”" in finding.said
    identity = tmp_path / "data" / "node" / "identity.json"
    identity.write_bytes(seal({**unseal(identity.read_bytes()), "format": 2}))
    (finding,) = about(look(""), "data", "fail")
    assert "was written by a newer Headwater (format 2; this one knows 1)" in finding.said


def test_a_data_directory_that_may_not_be_written(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    (finding,) = about(look(""), "data", "fail")
    assert "may not write there" in finding.said
    assert "sudo -u" in finding.then


def test_file_systems_and_free_space(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_here.filesystem("/proc/self") == "proc"
    monkeypatch.setattr(doctor_here, "filesystem", lambda path: "vfat")

    class Usage:
        total, free = 32 << 30, 100 << 20

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    unfit, full = sorted(about(look(""), "data"), key=lambda finding: finding.level == "fail")
    assert "lies on vfat, which keeps no permissions" in unfit.said
    assert "below the floor of 536.9 MB the oldest readings go" in full.said


@pytest.mark.parametrize(("trusted", "level"), [(True, "ok"), (False, "warn"), (None, "warn")])
def test_the_clock(look: Look, monkeypatch: pytest.MonkeyPatch, trusted: bool | None, level: str) -> None:
    monkeypatch.setattr(doctor_here, "clock_trusted", lambda: trusted)
    (finding,) = about(look(""), "clock", "ok", "warn", "fail")
    assert finding.level == level
    monkeypatch.setattr(time, "time", lambda: 3_600.0)
    assert about(look(""), "clock")[0].said == "the clock says 1970-01-01, which is past"


def test_mqtt_that_waits_for_its_first_user(look: Look, tmp_path: Path) -> None:
    open_to_all = f'[mqtt]\nlisten = "0.0.0.0:{free_port()}"\n'
    (finding,) = about(look(open_to_all), "mqtt")
    assert "stays on loopback until there is a user" in finding.said
    assert finding.then.startswith("headwater user add")
    (tmp_path / "data" / "node").mkdir(parents=True)
    add_user(str(tmp_path / "data" / "node" / "users"), "pump", b"a long password", frozenset({"mqtt"}))
    assert about(look(open_to_all), "mqtt") == []
    (tmp_path / "data" / "node" / "users").write_text("nonsense\n")
    assert about(look(open_to_all), "mqtt", "fail")


def test_serial_ports(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    (tmp_path / "file").touch()
    port = os.ttyname(theirs)
    text = "".join(f'[[serial]]\nport = "{path}"\nname = "{number}"\n'
                   for number, path in enumerate((port, tmp_path / "file", tmp_path / "gone")))  # fmt: skip
    try:
        said = [finding.said for finding in about(look(text), "serial")]
        assert said == [f"{tmp_path}/file is no device", f"{tmp_path}/gone: No such file or directory"]
        monkeypatch.setattr(os, "access", lambda path, mode: path != port)
        monkeypatch.setattr(doctor_here, "_group", lambda gid: "dialout")
        denied = about(look(text), "serial")[0]
        assert "may not open it" in denied.said
        assert denied.then.startswith("sudo usermod -aG dialout ")
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_certificate_that_cannot_be_read(look: Look) -> None:
    text = '[[kafka.listeners]]\nlisten = "127.0.0.1:0"\nprotocol = "SASL_SSL"\n'
    (finding,) = about(look(text + 'certificate_file = "missing.pem"\n'), "certificate")
    assert "missing.pem cannot be read" in finding.said


def test_a_central_that_answers_and_one_that_does_not(look: Look, serve: Callable[[KafkaSettings], Node]) -> None:
    good, nobody = serve(KafkaSettings(listen="127.0.0.1:0")), free_port()
    found = look(f'[central]\nbootstrap_servers = "127.0.0.1:{good.port},127.0.0.1:{nobody}"\n')
    (failed,) = about(found, "central")
    assert failed.said.startswith(f"127.0.0.1:{nobody} does not answer")
    fine = [finding.said for finding in about(found, "central", "ok")]
    assert any(f"127.0.0.1:{good.port} answers" in said for said in fine)
    assert "topic readings is made with the first record" in fine


def test_a_central_that_sends_us_elsewhere(look: Look, serve: Callable[[KafkaSettings], Node]) -> None:
    nobody = free_port()
    central = serve(KafkaSettings(listen="127.0.0.1:0", advertised=f"127.0.0.1:{nobody}"))
    (failed,) = about(look(f'[central]\nbootstrap_servers = "127.0.0.1:{central.port}"\n'), "central")
    assert f"it sends us to 127.0.0.1:{nobody}, where nothing answers" in failed.said


@pytest.mark.parametrize(
    ("advertised", "level", "said"),
    [
        ("no-such-host.invalid:9092", "fail", "cannot resolve"),
        ("192.0.2.1:9", "fail", "nothing answers there"),
        ("localhost:{port}", "ok", "programs on this machine only"),
    ],
)
def test_where_clients_of_a_running_node_are_sent(
    tmp_path: Path, serve: Callable[[KafkaSettings], Node], monkeypatch: pytest.MonkeyPatch,
    advertised: str, level: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("headwater.cli.doctor_net.TIMEOUT_MS", 500)
    port = free_port()
    there = advertised.format(port=port)
    serve(KafkaSettings(listen=f"127.0.0.1:{port}", advertised=there))
    file = tmp_path / "headwater.toml"
    file.write_text(f'node = "n2"\n[kafka]\nlisten = "127.0.0.1:{port}"\nadvertised = "{there}"\n')
    findings = asyncio.run(look_outside(load_settings(str(file)).settings, {"state": "good"}))
    assert (findings[0].level, findings[0].said) == ("ok", f"127.0.0.1:{port} answers")
    assert (findings[1].level, said in findings[1].said) == (level, True), findings
