"""Foreign MQTT brokers as processes, each in a folder and on a port of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from headwater.net import free_port
from tests.support import peers

START_S_MAX = 20.0


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
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

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
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop(signal.SIGKILL)
