"""What one node is told: the composition of every part's own settings.

Each part keeps its settings beside it; this module only puts them together, one section per part. A section that
may be left out is a part that then does not run. `role` decides nothing but defaults (`DEFAULTS`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from devices.description import DeviceSettings, DevicesSettings
from devices.user_settings import DecoderSettings
from gateway.ingest.marks import MarkSettings
from gateway.ingest.modbus.settings import ModbusSettings
from gateway.ingest.mqtt.settings import MqttSettings
from gateway.ingest.mqtt_client.settings import MqttClientSettings
from gateway.ingest.serial_settings import SerialSettings
from gateway.log.settings import WEEK_MS, LogSettings
from gateway.replicate.settings import UplinkSettings
from gateway.wire.settings import KafkaSettings
from headwater.settings.page import PageSettings
from processors.settings import ProcessorSettings
from processors.sinks.settings import InfluxSettings

Role = Literal["edge", "central"]

DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "edge": {
        "log": {"fsync_interval_ms": 50},
        "topics": {"readings_partitions": 1},
        "processors": {"place": "edge"},
    },
    "central": {
        "log": {"fsync_interval_ms": 0, "retention_ms": WEEK_MS},
        "topics": {"readings_partitions": 16},
        "processors": {"place": "central"},
    },
}
"""What a role sets where the file says nothing: an SD card is spared, a server answers at once and spreads nodes."""


class TopicsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics that a node makes at its first start."""

    readings_partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Partitions of `readings`; each one that is written to costs an fsync. A central has 16."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. Relative paths stand against the folder of the node's own file."""

    role: Role = "edge"
    """`edge` or `central`: picks defaults, nothing else."""
    node: str = ""
    """The node's name, unique among the nodes of one central; the host name when left out."""
    data_dir: str = "data"
    """Where the log and the journals are kept."""
    log: LogSettings = LogSettings()
    kafka: KafkaSettings = KafkaSettings()
    mqtt: MqttSettings | None = None
    mqtt_client: tuple[MqttClientSettings, ...] = ()
    serial: tuple[SerialSettings, ...] = ()
    modbus: tuple[ModbusSettings, ...] = ()
    marks: MarkSettings = MarkSettings()
    profiles: tuple[str, ...] = ()
    """Device profiles: names of shipped ones, or paths of files that end in `.toml`."""
    decoders: DecoderSettings = DecoderSettings()
    device: tuple[DeviceSettings, ...] = ()
    devices: DevicesSettings = DevicesSettings()
    central: UplinkSettings | None = None
    rules: tuple[str, ...] = ()
    """Window and alert rules that run on this node: names of shipped ones, or paths that end in `.toml`."""
    processors: ProcessorSettings = ProcessorSettings()
    influx: InfluxSettings | None = None
    page: PageSettings | None = None
    topics: TopicsSettings = TopicsSettings()

    @property
    def reads_elsewhere(self) -> bool:
        """Whether this node takes readings in by other ways than its own MQTT listener."""
        return bool(self.mqtt_client or self.serial or self.modbus)

    @property
    def wants_work(self) -> bool:
        """Whether this node has a work process: processors, a sink or a page."""
        return bool(self.rules) or self.influx is not None or self.page is not None
