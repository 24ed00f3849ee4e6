"""docs/security.md: its commands and configurations, run as they stand, on real nodes in processes of their own."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.ingest.mqtt.settings import MqttTlsSettings
from gateway.replicate.settings import UplinkSettings
from gateway.tls_settings import ClientSecuritySettings
from gateway.wire.acl import Operation
from gateway.wire.settings import KafkaAclRule, KafkaListenerSettings
from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.processes import headwater, node
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def block(language: str, word: str) -> str:
    (found,) = [text for text in blocks(language) if word in text]
    return found


def test_every_configuration_on_the_page_is_one() -> None:
    for text in blocks("toml"):
        for section, value in tomllib.loads(text).items():
            if section == "central":
                msgspec.convert(value | {"sasl_password": value.pop("sasl_password_file", "")}, UplinkSettings)
            elif section == "mqtt" and "tls" in value:
                msgspec.convert(value["tls"], MqttTlsSettings)
            elif section == "kafka":
                msgspec.convert(value.get("acl", []), list[KafkaAclRule])
                msgspec.convert(value.get("listeners", []), list[KafkaListenerSettings])


def test_every_word_of_a_rule_and_every_setting_is_on_the_page() -> None:
    fields = (
        *KafkaAclRule.__struct_fields__,
        *MqttTlsSettings.__struct_fields__,
        *ClientSecuritySettings.__struct_fields__,
    )
    words = {operation.value for operation in Operation} | set(fields) - {"handshakes_max"}
    assert {word for word in words if f"{word}" not in PAGE} == set()


@pytest.mark.long("kafka-security")
@pytest.mark.timeout(180)
@pytest.mark.peer("mosquitto")
def test_the_example_works_as_it_stands(tmp_path: Path) -> None:
    from confluent_kafka import Consumer

    ports = {f":{port}": f"{free_port()}" for port in (9093, 9094)}

    def here(text: str) -> str:
        """The same on this machine: free ports on loopback, and a name that leads there."""
        text = text.replace("central.example", "localhost")
        for port, free in ports.items():
            text = text.replace(f'"{port}"', f'"127.0.0.1:{free}"').replace(port, f":{free}")
        return text

    commands = here(block("sh", "openssl")).replace("DNS:localhost", "DNS:localhost")
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    mqtt = free_port()
    central, edge = tmp_path / "central.toml", tmp_path / "edge.toml"
    central.write_text(
        'role = "central"\nnode = "office"\ndata_dir = "office"\n[kafka]\nlisten = "127.0.0.1:0"\n'
        + here(block("toml", "[[kafka.listeners]]"))
    )
    edge.write_text(
        f'node = "edge-7"\ndata_dir = "shed"\n[kafka]\nlisten = "127.0.0.1:0"\n[mqtt]\nlisten = "127.0.0.1:{mqtt}"\n'
        + here(block("toml", "tls_certificate_file"))
    )
    for file in (central, edge):
        checked = headwater(["config", "check", str(file)])
        assert checked.returncode == 0, checked.stdout + checked.stderr
    with node(central, tmp_path / "office"), node(edge, tmp_path / "shed"):
        status = until(lambda: read_status(str(tmp_path / "office")), "the central")
        assert "no user for Kafka yet" in " ".join(status["listeners"].values())
        assert set(status["addresses"]) == {"kafka", "kafka SSL", "mqtt", "page"}
        made = headwater(["user", "add", "token", "--kafka", "--generate", "--config", str(central)])
        password = re.findall(r"shown this once: (\S+)", made.stdout)[0]
        until(lambda: not (read_status(str(tmp_path / "office")) or {"listeners": 1})["listeners"], "an open listener")
        told = (read_status(str(tmp_path / "office")) or {})["addresses"]
        assert told["kafka SASL_SSL"] == f"127.0.0.1:{ports[':9093']}"
        listed = headwater(["user", "list", "--config", str(central)])
        assert listed.stdout.split() == ["token", "Kafka"]
        subprocess.run(
            ["mosquitto_pub", "-p", str(mqtt), "-q", "1", "-t", "shed/pump", "-m", "21.5"], check=True, timeout=20
        )
        client = dict(line.split("=", 1) for line in here(blocks("properties")[0]).splitlines())
        client |= {"sasl.password": password, "ssl.ca.location": str(tmp_path / "ca.pem")}
        consumer = Consumer(client | {"group.id": "any", "auto.offset.reset": "earliest"})
        consumer.subscribe(["readings"])
        message = until(lambda: _reading(consumer), "the reading at the central")
        assert message == {"value": 21.5}
        consumer.close()
        for folder, file in (("office", central), ("shed", edge)):
            shown = headwater(["config", "show", "--config", str(file)]).stdout
            assert password not in shown + str(read_status(str(tmp_path / folder)))


def _reading(consumer: Any) -> Any:
    message = consumer.poll(0.5)
    if message is None or message.error() is not None or not (message.key() or b"").startswith(b"edge-7/shed"):
        return None
    return msgspec.json.decode(message.value())
