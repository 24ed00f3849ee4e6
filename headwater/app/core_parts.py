"""The parts of a node's core process, for whoever builds them (`core`) and whoever looks at them (`report`)."""

from __future__ import annotations

from gateway.ingest.events import Events
from gateway.ingest.interval_file import IntervalFile
from gateway.ingest.modbus.bus import ModbusBus
from gateway.ingest.mqtt.listener import MqttListener
from gateway.ingest.mqtt_client.driver import BrokerClient
from gateway.ingest.pipeline import Ingest
from gateway.log.store import LogStore
from gateway.log.upkeep import Upkeep
from gateway.replicate.driver import Uplink
from gateway.serve import KafkaListener
from headwater.app.outcomes import OutcomeServer
from headwater.app.supervisor import Supervisor
from headwater.clock import Clock
from headwater.disk import Disk
from headwater.net import Net
from headwater.settings.model import Settings


class CoreParts:
    """None, or empty: not opened yet, or not wanted by the settings."""

    def __init__(self, settings: Settings, *, clock: Clock, disk: Disk, net: Net) -> None:
        self.settings = settings
        self.clock = clock
        self.disk = disk
        self.net = net
        self.store: LogStore | None = None
        self.events: Events | None = None
        self.kafka: KafkaListener | None = None
        self.ingest: Ingest | None = None
        self.mqtt: MqttListener | None = None
        self.brokers: list[BrokerClient] = []
        self.intervals: IntervalFile | None = None
        self.modbus: list[ModbusBus] = []
        self.outcomes: OutcomeServer | None = None
        self.uplink: Uplink | None = None
        self.upkeep: Upkeep | None = None
        self.work: Supervisor | None = None
        self.listener_problems: dict[str, str] = {}
