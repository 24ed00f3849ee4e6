"""Each bad input that a person or a device can give: a clear error, its cure, no traceback, and the rest goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from headwater.app.control import read_status
from headwater.net import free_port
from tests.support.processes import HEADWATER, headwater, node
from tests.support.waiting import until

NAMED = 'node = "shed-1"\ndata_dir = "data"\n'


def listening() -> str:
    return f'[kafka]\nlisten = "127.0.0.1:{free_port()}"\n'


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "headwater.toml"
    config.write_text(text)
    return config


def refused(config: Path) -> str:
    """The complaint of a node that does not start, checked for what every complaint has."""
    ended = headwater(["run", "--config", str(config)])
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    complaint = ended.stderr[ended.stderr.index("error: ") :]
    assert len(complaint.splitlines()) >= 2, "the next step is missing"
    return complaint


def publish(port: int, topic: str, payload: bytes, *, client_id: str = "good-device") -> None:
    """One QoS 1 message with another's client library; returns when it is acknowledged."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id)
    client.connect("127.0.0.1", port)
    client.loop_start()
    message = client.publish(topic, payload, qos=1)
    message.wait_for_publish(10)
    assert message.is_published()
    client.disconnect()
    client.loop_stop()


# --- mistakes in the configuration -----------------------------------------------------------------------------------


def test_an_unknown_key(tmp_path: Path) -> None:
    complaint = refused(write(tmp_path, NAMED + "[log]\nfsync_intervall_ms = 10\n"))
    assert "headwater.toml:4: unknown key “fsync_intervall_ms” in [log]; did you mean “fsync_interval_ms”?" in complaint


def test_a_node_name_that_thousands_share(tmp_path: Path) -> None:
    complaint = refused(write(tmp_path, 'node = "raspberrypi"\n'))
    assert "headwater.toml:1" in complaint
    assert 'write node = "' in complaint


def test_a_mistake_in_a_profile(tmp_path: Path) -> None:
    (tmp_path / "pump.toml").write_text('name = "pump"\nformatt = "json"\n')
    complaint = refused(write(tmp_path, NAMED + 'profiles = ["pump.toml"]\n'))
    assert "pump.toml" in complaint
    assert "formatt" in complaint


# --- ports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["kafka", "mqtt"])
def test_a_port_in_use_names_its_holder(tmp_path: Path, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = f'[{section}]\nlisten = "127.0.0.1:{holder.getsockname()[1]}"\n'
        complaint = refused(write(tmp_path, NAMED + taken + (listening() if section == "mqtt" else "")))
    assert section in complaint
    assert f"(pid {os.getpid()})" in complaint
    assert "port" in complaint.splitlines()[1]


def test_port_1883_in_use_names_the_alternative(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else on this machine holds it: just as good
            holder.bind(("127.0.0.1", 1883))
            holder.listen()
        complaint = refused(write(tmp_path, NAMED + listening() + "[mqtt]\n"))
    assert "[[mqtt_client]]" in complaint


def test_a_page_port_in_use_leaves_the_core_at_work(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        page = f'[page]\nlisten = "127.0.0.1:{holder.getsockname()[1]}"\n'
        config = write(tmp_path, NAMED + listening() + page)
        data = str(tmp_path / "data")
        with node(config, Path(data)):
            status = until(lambda: (s := read_status(data)) and s["problems"] and s, "no problem was named")
            assert status["state"] == "degraded"
            assert f"(pid {os.getpid()})" in status["problems"][0]
    assert "Traceback" not in config.with_suffix(".log").read_text()


# --- the data directory ----------------------------------------------------------------------------------------------


def test_another_node_s_data_directory(tmp_path: Path) -> None:
    first = write(tmp_path / "a", f'node = "shed-1"\ndata_dir = "{tmp_path}/data"\n' + listening())
    with node(first, tmp_path / "data"):
        pass
    complaint = refused(write(tmp_path / "b", f'node = "shed-2"\ndata_dir = "{tmp_path}/data"\n' + listening()))
    assert "shed-1" in complaint
    assert "shed-2" in complaint


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    first = write(tmp_path / "a", f'node = "shed-1"\ndata_dir = "{tmp_path}/data"\n' + listening())
    second = write(tmp_path / "b", f'node = "shed-1"\ndata_dir = "{tmp_path}/data"\n' + listening())
    with node(first, tmp_path / "data") as holder:
        complaint = refused(second)
        assert f"process {holder.pid}" in complaint
        assert read_status(str(tmp_path / "data")) is not None, "the refused one must not take the socket away"


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    if os.getuid() == 0:
        closed = Path("/sys/headwater")  # refuses even root
    else:
        closed = tmp_path / "closed" / "data"
        closed.parent.mkdir(mode=0o500)
    complaint = refused(write(tmp_path, f'node = "shed-1"\ndata_dir = "{closed}"\n' + listening()))
    assert str(closed) in complaint


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("irreplaceable")
    assert "data" in refused(write(tmp_path, NAMED + listening()))
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["thesis.txt"]


# --- devices ---------------------------------------------------------------------------------------------------------


def test_a_serial_port_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    mqtt_port = free_port()
    devices = f'[mqtt]\nlisten = "127.0.0.1:{mqtt_port}"\n[[serial]]\nport = "{tmp_path}/ttyUSB9"\n'
    config = write(tmp_path, NAMED + listening() + devices)
    with node(config, tmp_path / "data"):
        status = until(lambda: (s := read_status(str(tmp_path / "data"))) and s["problems"] and s, "it is not named")
        assert status["state"] == "degraded"
        assert "ttyUSB9 does not exist; waiting for it" in status["problems"][0]
        shown = headwater(["status", "--config", str(config)])
        assert shown.returncode == 1
        assert "ttyUSB9" in shown.stdout
        publish(mqtt_port, "a/b", b"1")
    assert "Traceback" not in config.with_suffix(".log").read_text()


def test_a_taken_mqtt_port_leaves_serial_ports_at_work(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        mqtt_port = holder.getsockname()[1]
        devices = f'[mqtt]\nlisten = "127.0.0.1:{mqtt_port}"\n[[serial]]\nport = "{tmp_path}/ttyUSB9"\n'
        config = write(tmp_path, NAMED + listening() + devices)
        with node(config, tmp_path / "data"):
            problems = until(lambda: (read_status(str(tmp_path / "data")) or {}).get("problems"), "nothing is named")
            assert f"(pid {os.getpid()})" in problems[0]
            holder.close()
            until(lambda: (read_status(str(tmp_path / "data")) or {})["addresses"]["mqtt"], "MQTT does not come back")
            publish(mqtt_port, "a/b", b"1")


def ends_with_a_line(mqtt_port: int, data: bytes, config: Path) -> str:
    """Send bytes to the listener, see the connection closed, and return the log line about it."""
    with socket.create_connection(("127.0.0.1", mqtt_port)) as bad:
        us = f"{bad.getsockname()[0]}:{bad.getsockname()[1]}"
        bad.settimeout(10)
        bad.sendall(data)
        answer = b"started"
        try:
            while answer:
                answer = bad.recv(4096)
        except ConnectionResetError:
            pass
    lines = until(
        lambda: [line for line in config.with_suffix(".log").read_text().splitlines() if us in line], "no line"
    )
    return str(lines[-1])


def test_mqtt_garbage_and_an_oversized_packet_end_one_connection_only(tmp_path: Path) -> None:
    mqtt_port = free_port()
    listener = f'[mqtt]\nlisten = "127.0.0.1:{mqtt_port}"\npacket_bytes_max = 4096\n'
    config = write(tmp_path, NAMED + listening() + listener)
    connect = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03bad"
    oversized = b"\x30\xff\xff\xff\x7f" + b"\x00\x01t"
    with node(config, tmp_path / "data"):
        assert "warning" in ends_with_a_line(mqtt_port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", config)
        assert "4,096" in ends_with_a_line(mqtt_port, connect + oversized, config).replace("4096", "4,096")
        publish(mqtt_port, "a/b", b"1")
        publish(mqtt_port, "a/b", b"\xff\xfe not a value")
        ingest = until(lambda: (read_status(str(tmp_path / "data")) or {}).get("ingest"), "no status")
        assert ingest["refused"] == 2
        assert ingest["dead_letters"] == 1
        dead = headwater(["tail", "deadletter", "-n", "1", "--config", str(config)])
        assert "shed-1/mqtt:good-device" in dead.stdout
        assert "reason: " in dead.stdout
    assert "Traceback" not in config.with_suffix(".log").read_text()


def test_kafka_garbage_ends_one_connection_only(tmp_path: Path) -> None:
    config = write(tmp_path, NAMED + listening())
    with node(config, tmp_path / "data"):
        status = read_status(str(tmp_path / "data"))
        assert status is not None
        host, _, port = status["addresses"]["kafka"].rpartition(":")
        with socket.create_connection((host, int(port))) as bad:
            bad.settimeout(10)
            bad.sendall(b"\xff" * 64)
            with contextlib.suppress(ConnectionResetError):
                assert bad.recv(100) == b""
        assert headwater(["topics", "--config", str(config)]).returncode == 0
    assert "Traceback" not in config.with_suffix(".log").read_text()


# --- the core alone --------------------------------------------------------------------------------------------------


def test_the_core_needs_nothing_of_the_work_process_or_the_demo() -> None:
    blocked = ("numpy", "starlette", "uvicorn", "plotly", "prometheus_client", "confluent_kafka", "paho", "aiokafka")
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"  # None there: an import fails as if it were not installed
        "import headwater.app.core, headwater.cli.run, headwater.cli.status, headwater.cli.tail, headwater.cli.config\n"
        "from headwater.app.parts import check_parts\n"
    )
    ended = subprocess.run([HEADWATER[0], "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
