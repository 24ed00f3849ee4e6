"""Where everything of one demo run lies: ports, folders, and the nodes' configurations."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import NamedTuple

EDGE, CENTRAL = "edge-01", "central"
FAST_TURBINE = "turbine-03"
OVERHEATING_TURBINE = "turbine-07"

_CENTRAL_TOML = """\
role = "central"
node = "{node}"
data_dir = "{data}"
rules = ["wind-farm"]

[kafka]
listen = "127.0.0.1:{kafka}"
# The edge comes through the demo's proxy, so that its link can be cut.
advertised = "127.0.0.1:{proxy}"

[page]
listen = "127.0.0.1:{page}"
"""

_EDGE_TOML = """\
role = "edge"
node = "{node}"
data_dir = "{data}"
profiles = ["wind-turbine", "met-mast"]

[mqtt]
listen = "127.0.0.1:{mqtt}"

[[serial]]
port = "{serial}"
profile = "met-mast"

[kafka]
listen = "127.0.0.1:{kafka}"

[central]
bootstrap_servers = "127.0.0.1:{proxy}"

[page]
listen = "127.0.0.1:{page}"
"""


class Ports(NamedTuple):
    """TCP ports on 127.0.0.1, all different."""

    central_kafka: int
    central_page: int
    proxy: int
    edge_kafka: int
    edge_mqtt: int
    edge_page: int


def free_ports() -> Ports:
    """Ports that nobody holds just now; held together while they are chosen, so that all differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in Ports._fields]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return Ports(*(probe.getsockname()[1] for probe in sockets))


class Layout:
    """The files of one run below `directory`."""

    def __init__(self, directory: Path, ports: Ports) -> None:
        self.directory, self.ports = directory, ports
        self.ledger = directory / "ledger.db"
        self.serial = directory / "mast.tty"
        self.central_data = directory / "central"
        self.edge_data = directory / "edge"
        self.central_config = directory / "central.toml"
        self.edge_config = directory / "edge.toml"

    def write(self) -> None:
        """Write both configurations."""
        ports = self.ports
        self.central_config.write_text(
            _CENTRAL_TOML.format(
                node=CENTRAL,
                data=self.central_data,
                kafka=ports.central_kafka,
                proxy=ports.proxy,
                page=ports.central_page,
            ),
            encoding="utf-8",
        )
        self.edge_config.write_text(
            _EDGE_TOML.format(
                node=EDGE,
                data=self.edge_data,
                mqtt=ports.edge_mqtt,
                serial=self.serial,
                kafka=ports.edge_kafka,
                proxy=ports.proxy,
                page=ports.edge_page,
            ),
            encoding="utf-8",
        )

    def introduction(self) -> list[str]:
        """What to tell the person in front of it."""
        ports = self.ports
        return [
            f"central  page http://127.0.0.1:{ports.central_page}/  Kafka 127.0.0.1:{ports.central_kafka}",
            f"edge     page http://127.0.0.1:{ports.edge_page}/  Kafka 127.0.0.1:{ports.edge_kafka}"
            f"  MQTT 127.0.0.1:{ports.edge_mqtt}",
            f"Read along: kcat -b 127.0.0.1:{ports.edge_kafka} -t readings -C",
            f"Files: {self.directory}",
        ]
