"""Foreign programs that tests talk to: where they are, and what to say when they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import neighbouring_ports

ROOT = Path(__file__).resolve().parents[2]
KAFKA_KIT = ROOT / "tests" / "kit" / "kafka" / "kafka"
# What `make peers` builds.
BUILT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater-peers"
# Debian keeps daemons where an ordinary user's PATH does not look.
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"

# What a test may name in @pytest.mark.peer(...), and the programs that it then may run; the first found of each row.
PEERS: dict[str, list[tuple[str, ...]]] = {
    "mosquitto": [("mosquitto",), ("mosquitto_pub",), ("mosquitto_sub",)],
    "rabbitmq": [("/usr/lib/rabbitmq/bin/rabbitmq-server",), ("epmd",)],  # the one on the PATH wants its own user
    "kcat": [("kcat", "kafkacat")],
    "socat": [("socat",)],
    "strace": [("strace",)],
    "chromium": [("chromium", "chromium-browser")],
    "promtool": [("promtool",)],
    "kafka": [("java",)],
    "javac": [("javac",)],
    "franz-go": [(str(BUILT / "franz-go"),)],
    "telegraf": [(str(BUILT / "telegraf"),)],
    "victoria-metrics": [(str(BUILT / "victoria-metrics"),)],
    "influxdb": [(str(BUILT / "influxd"),)],
    "quix": [(str(BUILT / "quix" / "bin" / "python"),)],
    "bytewax": [(str(BUILT / "bytewax" / "bin" / "python"),)],
    "kafka-streams": [("java",), (str(BUILT / "kafka-streams" / "run"),)],
}
# How a peer is made that `make peers` alone does not bring.
MADE_WITH = {"influxdb": "INFLUXDB=1 make peers"}


def program(*names: str) -> str | None:
    """The first of `names` that is installed, as an absolute path."""
    return next((path for name in names if (path := shutil.which(name, path=SEARCH_PATH))), None)


def missing(peer: str) -> str | None:
    """Why the tests with this peer cannot run, or None when they can. An unknown name is a mistake in the test."""
    for names in PEERS[peer]:
        if program(*names) is None:
            return f"{Path(names[0]).name} is not installed: run `{MADE_WITH.get(peer, 'make peers')}`"
    if peer == "kafka" and not _kafka_is_installed():
        return "Kafka's jars are not installed: run `make peers`"
    return None


def _kafka_is_installed() -> bool:
    # Maven is named so that asking never downloads.
    environment = os.environ | {"MVN": "false"}
    command = [sys.executable, str(KAFKA_KIT), "install"]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Kafka:
    """A running Apache Kafka node."""

    directory: Path
    port: int

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @classmethod
    def start(cls, directory: Path, port: int | None = None) -> Kafka:
        """Start a node, or start it again on the directory's data."""
        node = cls(directory, neighbouring_ports(2) if port is None else port)  # the next one is its controller's
        kafka_kit("start", str(directory), str(node.port))
        return node

    def stop(self) -> None:
        kafka_kit("stop", str(self.directory))

    def kill(self) -> None:
        kafka_kit("kill", str(self.directory))


def kafka_kit(*arguments: str) -> str:
    """Run the kit; its output. A failure shows what it said."""
    command = [sys.executable, str(KAFKA_KIT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kafka {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def kafka_tool(name: str, *arguments: str) -> str:
    """Run one of Kafka's own tools (`dump-log`, `topics`, …); its standard output. See `kafka tool --help`."""
    return kafka_kit("tool", name, *arguments)
