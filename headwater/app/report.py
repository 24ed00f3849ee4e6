"""What a core says of itself: the status document, and the fields of the node's own health reading."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from headwater.app.core_parts import CoreParts
from headwater.app.status import clock_trusted, data_bytes, judge, notes
from headwater.version import version

MEASURE_EVERY_S = 30.0
_TEMPERATURE = "/sys/class/thermal/thermal_zone0/temp"


class Reporter:
    """Reads the parts; changes nothing."""

    def __init__(self, parts: CoreParts) -> None:
        self._parts = parts
        self._started_ms = parts.clock.wall_ms()
        self._data_bytes = 0

    def document(self) -> dict[str, Any]:
        """The status document: the parts' own, under the parts' names, and the verdict."""
        parts = self._parts
        document: dict[str, Any] = {
            "node": parts.settings.node,
            "role": parts.settings.role,
            "version": version(),
            "pid": os.getpid(),
            "started_ms": self._started_ms,
            "now_ms": parts.clock.wall_ms(),
            "log": parts.store.status() if parts.store is not None else {},
            "kafka": parts.kafka.status() if parts.kafka is not None else None,
            "ingest": parts.ingest.status() if parts.ingest is not None else None,
            "modbus": [bus.status() for bus in parts.modbus],
            "brokers": [broker.status() for broker in parts.brokers],
            "central": parts.uplink.status() if parts.uplink is not None else None,
            "upkeep": parts.upkeep.status() if parts.upkeep is not None else None,
            "disk": self._disk(),
            "clock": {"wall_ms": parts.clock.wall_ms(), "trusted": clock_trusted()},
            "addresses": self.addresses(),
            "listeners": parts.listener_problems | self._mqtt_problem() | self._kafka_problems(),
            **self._work(),
        }
        state, problems = judge(document)
        return document | {"state": state, "problems": problems, "notes": notes(document)}

    def _work(self) -> dict[str, Any]:
        """The work process, and what it alone knows: `nodes` that report here, `alerts` that are not over."""
        work = self._parts.work.status() if self._parts.work is not None else None
        report = dict(work["report"]) if work is not None else {}
        nodes, alerts = report.pop("nodes", []), report.pop("alerts", [])
        return {"work": work | {"report": report} if work is not None else None, "nodes": nodes, "alerts": alerts}

    def addresses(self) -> dict[str, str | None]:
        """Where this node is reached: `host:port` by part; the page once the work process says that it is served."""
        parts = self._parts
        page = parts.settings.page if parts.work is not None and parts.work.report.get("page") else None
        found: dict[str, str | None] = {
            "kafka": _address(parts.kafka.address) if parts.kafka is not None else None,
            "mqtt": _address(parts.mqtt.address) if parts.mqtt is not None else None,
        }
        for door in parts.kafka.doors.all if parts.kafka is not None else ():
            if door.address is not None and door.problem is None:
                name = f"kafka {door.settings.protocol}"
                found[name] = " ".join(filter(None, (found.get(name), _address(door.address))))
        if parts.mqtt is not None and (tls := parts.mqtt.tls) is not None and tls.problem is None and tls.address:
            found["mqtt TLS"] = _address(tls.address)
        return found | {"page": page.listen if page is not None else None}

    def _mqtt_problem(self) -> dict[str, str]:
        """What keeps MQTT clients out although its listener runs."""
        mqtt = self._parts.mqtt
        found = {"mqtt": mqtt.problem, "mqtt tls": mqtt.tls.problem if mqtt.tls is not None else None} if mqtt else {}
        return {name: problem for name, problem in found.items() if problem is not None}

    def _kafka_problems(self) -> dict[str, str]:
        """What keeps Kafka clients out although the node's own listener runs."""
        kafka = self._parts.kafka
        if kafka is None:
            return {}
        return kafka.doors.problems() | ({"kafka": kafka.problem} if kafka.problem is not None else {})

    def health(self) -> dict[str, Any]:
        """The fields of the node's own reading: numbers, as any device's."""
        parts = self._parts
        fields: dict[str, Any] = {
            "disk_free_bytes": parts.disk.free_bytes(parts.settings.data_dir),
            "uptime_s": (parts.clock.wall_ms() - self._started_ms) // 1000,
        }
        if parts.uplink is not None:
            status = parts.uplink.status()
            fields |= {key: status[key] for key in ("backlog_records", "backlog_bytes")}
        if (trusted := clock_trusted()) is not None:
            fields["clock_trusted"] = trusted
        if (temperature := _temperature()) is not None:
            fields["temperature"] = temperature
        return fields

    async def measure_data(self) -> None:
        """Keep the size of the data directory up to date; a walk over its files, so in a thread and seldom."""
        while True:
            self._data_bytes = await asyncio.to_thread(data_bytes, self._parts.settings.data_dir)
            await asyncio.sleep(MEASURE_EVERY_S)

    def _disk(self) -> dict[str, int]:
        disk, where = self._parts.disk, self._parts.settings.data_dir
        return {
            "free_bytes": disk.free_bytes(where),
            "total_bytes": disk.total_bytes(where),
            "data_bytes": self._data_bytes,
        }


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _temperature() -> float | None:
    """Of the processor in °C, where the kernel tells."""
    try:
        with open(_TEMPERATURE, encoding="ascii") as file:
            return int(file.read()) / 1000
    except (OSError, ValueError):
        return None
