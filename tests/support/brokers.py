"""Foreign MQTT brokers as processes, each in a folder and on ports of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from headwater.net import free_port
from tests.support import peers

START_S_MAX = 20.0


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """A Mosquitto that persists its sessions; stopped, killed and started again on the same port and files."""

    def __init__(self, folder: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port() if port is None else port
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    *(() if any(line.startswith("allow_anonymous") for line in extra) else ("allow_anonymous true",)),
                    "persistence true",
                    f"persistence_location {folder}/",
                    "max_queued_messages 0",
                    "log_type error",
                    "log_type warning",
                    "user root",
                    *extra,
                    "",
                ]
            )
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        program = peers.program("mosquitto")
        assert program is not None
        with open(self.folder / "mosquitto.log", "ab") as log:
            self._process = subprocess.Popen([program, "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S_MAX
        while not listens(self.port):
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def command(self, name: str) -> list[str]:
        """`mosquitto_pub` or `mosquitto_sub`, pointed at this broker."""
        program = peers.program(name)
        assert program is not None
        return [program, "-h", "127.0.0.1", "-p", str(self.port)]

    def publish(self, topic: str, lines: Sequence[str], *more: str, qos: int = 1) -> None:
        """Each line is a message."""
        command = [*self.command("mosquitto_pub"), "-t", topic, "-q", str(qos), "-l", *more]
        subprocess.run(command, input="".join(f"{line}\n" for line in lines).encode(), timeout=30, check=True)

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def __enter__(self) -> Mosquitto:
        try:
            return self.start()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop(signal.SIGKILL)


class RabbitMQ:
    """RabbitMQ with its MQTT plugin, anonymous clients allowed; needs a quarter of a minute to start."""

    def __init__(self, folder: Path, *, prefetch: int = 50) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port, amqp, distribution, epmd = (free_port() for _ in range(4))
        self._processes: list[subprocess.Popen[bytes]] = []
        (folder / "plugins").write_text("[rabbitmq_mqtt].")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"mqtt.allow_anonymous = true\nmqtt.prefetch = {prefetch}\nlog.console = true\nlog.file = false\n"
        )
        self._environment = os.environ | {
            "HOME": str(folder),  # of its cookie
            "RABBITMQ_NODENAME": f"hw{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(amqp),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._commands = ([_found("epmd")], [_found("/usr/lib/rabbitmq/bin/rabbitmq-server")])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> RabbitMQ:
        with open(self.folder / "rabbitmq.log", "ab") as log:
            for command in self._commands:
                self._processes.append(
                    subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)
                )
                # the server looks for its name service at once
                port = int(self._environment["ERL_EPMD_PORT"]) if command is self._commands[0] else self.port
                deadline = time.monotonic() + 90.0
                while not listens(port):
                    assert self._processes[-1].poll() is None, self.log()
                    assert time.monotonic() < deadline, self.log()
                    time.sleep(0.1)
        return self

    def publish(self, topic: str, lines: Sequence[str], *, qos: int = 1) -> None:
        """Each line is a message; with Mosquitto's client."""
        command = [_found("mosquitto_pub"), "-p", str(self.port), "-t", topic, "-q", str(qos), "-l"]
        subprocess.run(command, input="".join(f"{line}\n" for line in lines).encode(), timeout=60, check=True)

    def kill(self) -> None:
        """SIGKILL to everything that was started."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self._processes.clear()

    def log(self) -> str:
        return (self.folder / "rabbitmq.log").read_text(errors="replace")


def _found(name: str) -> str:
    program = peers.program(name)
    assert program is not None, name
    return program
