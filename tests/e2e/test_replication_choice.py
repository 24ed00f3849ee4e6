"""A central that lost everything: the uplink stops and says so, and goes on as the operator chooses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.processes import headwater, node
from tests.support.waiting import until

READINGS = 20


def configure(folder: Path) -> tuple[Path, Path, int]:
    """Files of a central and an edge; the edge's MQTT port."""
    kafka, listener = free_port(), free_port()
    for name, text in {
        "central": f'role = "central"\nnode = "office"\n[kafka]\nlisten = "127.0.0.1:{kafka}"\n',
        "edge": f'node = "shed"\n[kafka]\nlisten = "127.0.0.1:0"\n[mqtt]\nlisten = "127.0.0.1:{listener}"\n'
        f'[central]\nbootstrap_servers = "127.0.0.1:{kafka}"\n',
    }.items():
        (folder / name).mkdir()
        (folder / name / "headwater.toml").write_text(text)
    return folder / "central" / "headwater.toml", folder / "edge" / "headwater.toml", listener


def publish(port: int) -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="pump")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in range(READINGS):
        client.publish("shed/pump", str(number), qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_a_recreated_central_stops_the_uplink_until_the_operator_chooses(tmp_path: Path) -> None:
    central, edge, port = configure(tmp_path)
    data = edge.parent / "data"

    def link() -> dict[str, Any]:
        return dict((read_status(str(data)) or {"central": {}})["central"])

    def lines(config: Path) -> list[str]:
        shown = headwater(["tail", "--config", str(config), "--from", "start", "-n", str(READINGS)])
        return shown.stdout.splitlines()

    with node(edge, data):
        with node(central, central.parent / "data"):
            publish(port)
            until(lambda: link().get("records", 0) >= READINGS and not link()["backlog_records"], "the first copy")
            assert headwater(["replication", "status", "--config", str(edge)]).returncode == 0
            refused = headwater(["replication", "resend", "--config", str(edge)])
            assert (refused.returncode, "not stopped" in refused.stderr) == (2, True)
        shutil.rmtree(central.parent / "data")
        with node(central, central.parent / "data"):
            until(lambda: link().get("state") == "stopped", "the uplink to notice")
            told = headwater(["status", "--config", str(edge)])
            assert "progress lost" in told.stdout
            assert headwater(["replication", "status", "--config", str(edge)]).returncode == 2
            chosen = headwater(["replication", "resend", "--config", str(edge)])
            assert (chosen.returncode, chosen.stderr) == (0, "")
            until(lambda: link().get("state") == "up" and not link()["backlog_records"], "the second copy")
            assert len(lines(central)) == READINGS
