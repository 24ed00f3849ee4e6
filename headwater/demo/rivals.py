"""What `headwater demo --versus` kills: a gateway, and a broker in the ways that people run one.

Each takes messages at `address` over MQTT, is killed, is started again on the same files, and is asked what it has.
A program started here dies with this process, however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from headwater.app.control import read_status
from headwater.errors import UserError
from headwater.net import free_port

TOPIC = "versus/device"
PATIENCE_S = 30.0
QUIET_S = 1.0
"""A broker that has sent nothing for this long has sent what it has."""

_LAUNCH = str(Path(__file__).with_name("launch.py"))
_NODE = "import sys; from headwater.cli.entry import main; sys.argv[0] = 'headwater'; main()"
_DAEMON_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def need(program: str, hint: str) -> str:
    """The absolute path of a program. Raises `UserError`."""
    found = shutil.which(program, path=_DAEMON_PATH)
    if found is None:
        raise UserError(f"{program} is not installed", hint=hint)
    return found


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look again and again. Raises `UserError` naming what did not happen."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"{what} did not happen within {patience_s:.0f} s", hint="Its log is kept with --keep DIR.")
        time.sleep(0.02)


class Process:
    """A program with its log file, killed and started again."""

    def __init__(self, folder: Path, name: str, command: Sequence[str]) -> None:
        self._command, self._log = list(command), folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Its pid, which stays when it becomes the program."""
        launch = [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), *self._command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                launch, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: no signal handler, no flush, no good-bye."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return self._log.read_text(errors="replace")


class Rival(ABC):
    """One contestant, in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()  # where the device publishes
        folder.mkdir(parents=True)

    @abstractmethod
    def start(self) -> None:
        """Until it takes messages; also after `kill`. Raises `UserError`."""

    @abstractmethod
    def kill(self) -> None: ...

    @abstractmethod
    def found(self, wanted: set[int]) -> Counter[int]:
        """How often it has each number, once nothing more is to be expected of it."""

    def close(self) -> None:
        """End what is left of it."""
        self.kill()


class Gateway(Rival):
    """`headwater run` with its defaults. `broker`: it reads that port instead of listening itself."""

    def __init__(self, folder: Path, name: str, *, broker: int | None = None) -> None:
        super().__init__(folder, name)
        self._kafka, self._data = free_port(), folder / "data"
        if broker is None:
            inlet = f'[mqtt]\nlisten = "127.0.0.1:{self.port}"\n'
        else:
            self.port = broker
            inlet = f'[[mqtt_client]]\nname = "broker"\naddress = "127.0.0.1:{broker}"\ntopics = ["{TOPIC}"]\n'
        config = folder / "headwater.toml"
        kafka = f'[kafka]\nlisten = "127.0.0.1:{self._kafka}"\n'
        config.write_text(f'node = "versus"\ndata_dir = "{self._data}"\n{inlet}{kafka}', encoding="utf-8")
        self._process = Process(folder, "headwater", [sys.executable, "-c", _NODE, "run", "--config", str(config)])

    def start(self) -> None:
        pid = self._process.start()

        def ready() -> bool:
            status = read_status(str(self._data))
            return status is not None and status["pid"] == pid and all(one["connected"] for one in status["brokers"])

        wait_until(ready, f"the start of {self.name}")

    def kill(self) -> None:
        self._process.kill()

    def found(self, wanted: set[int]) -> Counter[int]:
        """As any Kafka client reads it; given time for what a broker still holds."""
        deadline = time.monotonic() + 5.0
        while wanted - (numbers := self._read()).keys() and time.monotonic() < deadline:
            time.sleep(0.2)
        return numbers

    def _read(self) -> Counter[int]:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        numbers: Counter[int] = Counter()
        # Of a rival that was just killed librdkafka would tell the screen with each attempt.
        reads_only = {"enable.partition.eof": True, "enable.auto.commit": False, "log_level": 0}
        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{self._kafka}", "group.id": "versus", **reads_only})
        consumer.assign([TopicPartition("readings", 0, OFFSET_BEGINNING)])
        try:
            while (message := consumer.poll(PATIENCE_S)) is not None and message.error() is None:
                if (message.key() or b"").endswith(TOPIC.encode()):
                    numbers[json.loads(message.value() or b"{}").get("seq", -1)] += 1
        finally:
            consumer.close()
        return numbers


class Mosquitto(Rival):
    """A broker with these lines in its configuration, and a reader of its own that is away while it is killed."""

    def __init__(self, folder: Path, name: str, lines: Sequence[str], *, has_reader: bool = True) -> None:
        super().__init__(folder, name)
        program = need("mosquitto", "On Debian: apt install mosquitto")
        config = folder / "mosquitto.conf"
        conf = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", f"persistence_location {folder}/", *lines]
        if os.geteuid() == 0:
            conf.append("user root")  # else it becomes a user who may not write here
        config.write_text("\n".join([*conf, ""]), encoding="utf-8")
        self._process = Process(folder, "mosquitto", [program, "-c", str(config)])
        self._has_reader = has_reader
        self._is_known = False  # the reader has subscribed

    def start(self) -> None:
        self._process.start()
        wait_until(lambda: _accepts(self.port), f"the start of {self.name}")
        if self._has_reader and not self._is_known:
            self._is_known = True
            SessionReader(self.port).visit(until=lambda reader: reader.subscribed)

    def kill(self) -> None:
        self._process.kill()

    def found(self, wanted: set[int]) -> Counter[int]:
        """What the reader is given when it comes back to its session."""
        reader = SessionReader(self.port)
        reader.visit(until=lambda reader: reader.is_quiet)
        return reader.numbers


class SessionReader:
    """A subscriber with a persistent session, QoS 1: it visits the broker and leaves again."""

    def __init__(self, port: int) -> None:
        self.numbers: Counter[int] = Counter()
        self.subscribed = False
        self._heard_s = time.monotonic()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id="reader", clean_session=False)
        client.on_connect = lambda client, *rest: client.subscribe(TOPIC, 1)
        client.on_subscribe = lambda *rest: setattr(self, "subscribed", True)
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)

    def _on_message(self, client: object, data: object, message: paho.MQTTMessage) -> None:
        self._heard_s = time.monotonic()
        self.numbers[json.loads(message.payload)["seq"]] += 1

    @property
    def is_quiet(self) -> bool:
        return self.subscribed and time.monotonic() - self._heard_s > QUIET_S

    def visit(self, until: Callable[[SessionReader], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not until(self) and time.monotonic() < deadline:
            self._client.loop(0.05)
        self._client.disconnect()
        self._client.loop(0.05)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
