"""The node in Prometheus' words: one collector over the status document and the page's model.

Names follow Prometheus' conventions: base units (seconds, bytes), `_total` on counters, timestamps as
`_timestamp_seconds`. `docs/operations.md` lists them; `deploy/prometheus/headwater.rules.yml` alerts on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater.dashboard.model import PageModel

ALERT_STATES = ("inactive", "pending", "firing", "recovering", "resolved")

_INGEST_COUNTERS = {
    "received": "Messages taken from devices.",
    "stored": "Readings appended to the log.",
    "repeats": "Messages recognised as repeats and not stored again.",
    "dead_letters": "Messages that could not be decoded, kept in topic deadletter.",
    "refused": "Messages refused by a limit or by policy.",
    "late": "Readings behind their node's mark.",
    "suppressed": "Readings that said nothing new, by their profile's deadband or rate cap, and were not stored.",
    "refused_messages": "Messages refused for their topic.",
    "undated_copies": "Retained copies without a time of their own, left out.",
}


_SINK_COUNTERS = {
    "points": "Records written as points.",
    "requests": "Write requests sent.",
    "retries": "Write requests to be sent again.",
    "dead_letters": "Records that the database did not take as they were, kept in topic deadletter.",
    "superseded": "Window results replaced by a later revision before they were sent.",
    "beyond_retention": "Points older than the database keeps, dropped by it.",
    "expired": "Records that left the log before they were written.",
    "left_out": "Members of records that no point can hold.",
}


class NodeCollector(Collector):
    """Turns the node's last status document into metrics at each scrape."""

    def __init__(self, status: Callable[[], dict[str, Any] | None], model: PageModel) -> None:
        self._status = status
        self._model = model

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        yield _gauge("headwater_up", "1 while the node's core process answers.", 0 if status is None else 1)
        yield self._alerts()
        if status is None:
            return
        yield from _nodes(self._model, status.get("now_ms", 0))
        info = GaugeMetricFamily("headwater_info", "The node and its version.", labels=["node", "version"])
        info.add_metric([str(status.get("node")), str(status.get("version"))], 1)
        yield info
        yield from _central(status.get("central"))
        yield from _ingest(status.get("ingest"), status.get("now_ms", 0))
        yield from _brokers(status.get("brokers") or ())
        yield from _modbus(status.get("modbus") or ())
        yield from _sinks(((status.get("work") or {}).get("report") or {}).get("sinks") or {})
        processors = ((status.get("work") or {}).get("report") or {}).get("processors") or {}
        users = ((status.get("work") or {}).get("report") or {}).get("user_processors") or {}
        yield from processor_metrics(processors, users)
        yield from _security(status.get("kafka") or {}, status.get("ingest") or {})
        yield from _disk(status)

    def _alerts(self) -> Metric:
        metric = GaugeMetricFamily(
            "headwater_alert_state", "1 for the state that an alert is in.", labels=["rule", "alert_instance", "state"]
        )
        for alert in self._model.alerts.values():
            for state in ALERT_STATES:
                metric.add_metric(
                    [str(alert["rule"]), str(alert["instance"]), state], 1 if alert["state"] == state else 0
                )
        return metric


def processor_metrics(processors: dict[str, Any], users: dict[str, Any]) -> Iterator[Metric]:
    """Of windows and alerts, and of users' processors: what a node and a member of a group have in common."""
    yield from _processors(processors)
    yield from _processor_memory(processors.get("memory"))
    yield from _user_processors(users)


def _nodes(model: PageModel, now_ms: int) -> Iterator[Metric]:
    """What this node's log says of every node that writes into it: at a central, the edges."""
    age = GaugeMetricFamily("headwater_node_mark_age_seconds", "Seconds since a node's last mark.", labels=["node"])
    text = "Up to where a node's readings are complete, in event time."
    until = GaugeMetricFamily("headwater_node_complete_timestamp_seconds", text, labels=["node"])
    text = "Records that a node had not sent yet when it last committed."
    backlog = GaugeMetricFamily("headwater_node_backlog_records", text, labels=["node"])
    for name, node in model.nodes.items():
        if "mark_seen_ms" in node:
            age.add_metric([name], max(0.0, (now_ms - node["mark_seen_ms"]) / 1000))
        if node.get("live_ms"):
            until.add_metric([name], node["live_ms"] / 1000)
        if "backlog_records" in node:
            backlog.add_metric([name], node["backlog_records"])
    yield from (age, until, backlog)


_USER_COUNTERS = {
    "readings": "Readings that a user's processor has taken.",
    "outputs": "Records that a user's processor has emitted.",
    "failed": "Readings over which a user's processor failed, kept in topic deadletter.",
    "killed": "Times that a user's processor's process was killed or crashed.",
}


def _user_processors(processors: dict[str, Any]) -> Iterator[Metric]:
    if not processors:
        return
    text = "1 while a user's processor is paused or cannot run."
    paused = GaugeMetricFamily("headwater_user_processor_paused", text, labels=["processor"])
    text = "Records that a user's processor has not read yet."
    lag = GaugeMetricFamily("headwater_user_processor_lag_records", text, labels=["processor"])
    text = "What a user's processor remembers of its devices, in all partitions."
    held = GaugeMetricFamily("headwater_user_processor_state_bytes", text, labels=["processor"])
    for name, one in processors.items():
        paused.add_metric([name], 1 if one.get("problem") else 0)
        lag.add_metric([name], one.get("lag_records") or 0)
        held.add_metric([name], one.get("state_bytes") or 0)
    yield from (paused, lag, held)
    yield from _counters("user_processor", "processor", _USER_COUNTERS, processors)


def _counters(part: str, label: str, texts: dict[str, str], rows: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    """A counter for each of `texts`, with a row of each name."""
    for key, text in texts.items():
        counter = CounterMetricFamily(f"headwater_{part}_{key}", text, labels=[label])
        for name, row in rows.items():
            counter.add_metric([name], row.get(key) or 0)
        yield counter


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _central(central: dict[str, Any] | None) -> Iterator[Metric]:
    if central is None:
        return
    yield _gauge("headwater_central_up", "1 while the link to the central is up.", central.get("state") == "up")
    yield _gauge("headwater_backlog_records", "Records not yet at the central.", central.get("backlog_records", 0))
    yield _gauge("headwater_backlog_bytes", "Bytes not yet at the central.", central.get("backlog_bytes", 0))
    if (last_ms := central.get("last_success_ms")) is not None:
        text = "When the central last committed a transaction of this node."
        yield _gauge("headwater_last_success_timestamp_seconds", text, last_ms / 1000)
    for key, text in (
        ("transactions", "Transactions committed at the central."),
        ("aborted", "Transactions given up and sent again."),
        ("fenced", "Times that the central had fenced this node's producer."),
    ):
        yield CounterMetricFamily(f"headwater_central_{key}", text, value=central.get(key, 0))


def _ingest(ingest: dict[str, Any] | None, now_ms: int) -> Iterator[Metric]:
    if ingest is None:
        return
    for key, text in _INGEST_COUNTERS.items():
        if key in ingest:
            yield CounterMetricFamily(f"headwater_ingest_{key}", text, value=ingest[key])
    if devices := ingest.get("devices"):
        text = "Readings of devices that no [[device]] names, refused."
        yield CounterMetricFamily("headwater_ingest_unknown_devices_refused", text, value=devices["refused"])
    connected = GaugeMetricFamily("headwater_source_connected", "1 while a source is connected.", labels=["source"])
    age = GaugeMetricFamily("headwater_source_age_seconds", "Seconds since a source's last reading.", labels=["source"])
    for source in ingest.get("sources", ()):
        connected.add_metric([source["id"]], 1 if source.get("connected") else 0)
        if source.get("last_ms"):
            age.add_metric([source["id"]], max(0.0, (now_ms - source["last_ms"]) / 1000))
    yield connected
    yield age


_BROKER_COUNTERS = {
    "connects": "Connections that the broker accepted.",
    "sessions_lost": "Sessions that the broker had lost when the node came back.",
    "retained": "Retained copies passed over.",
    "oversize": "Messages too large to be stored.",
    "unreadable": "Messages whose topic cannot be a reading's.",
}


def _brokers(brokers: Iterable[dict[str, Any]]) -> Iterator[Metric]:
    if not brokers:
        return
    up = GaugeMetricFamily("headwater_broker_up", "1 while the broker is connected.", labels=["broker"])
    refused = GaugeMetricFamily("headwater_broker_refused_filters", "Filters it does not give.", labels=["broker"])
    inflight = GaugeMetricFamily("headwater_broker_inflight", "Messages taken, not on disk yet.", labels=["broker"])
    counters = {
        key: CounterMetricFamily(f"headwater_broker_{key}", text, labels=["broker"])
        for key, text in _BROKER_COUNTERS.items()
    }
    for broker in brokers:
        labels = [broker["name"]]
        up.add_metric(labels, 1 if broker["connected"] else 0)
        refused.add_metric(labels, len(broker["refused"]))
        inflight.add_metric(labels, broker["inflight"])
        for key, counter in counters.items():
            counter.add_metric(labels, broker[key])
    yield from (up, refused, inflight, *counters.values())


_UNIT_COUNTERS = {
    "polls": "Times that a Modbus unit was asked.",
    "answered": "Polls that read something to their end.",
    "timeouts": "Requests that a unit did not answer in time.",
    "garbled": "Requests whose answer was garbled.",
    "exceptions": "Requests that a unit answered with an exception.",
    "skipped": "Polls that the bus had no time for.",
}


def _modbus(buses: Iterable[dict[str, Any]]) -> Iterator[Metric]:
    if not buses:
        return
    up = GaugeMetricFamily("headwater_modbus_bus_up", "1 while a bus's line or host is there.", labels=["bus"])
    text = "How long a unit that does not answer is left alone, 0 for one that does."
    backoff = GaugeMetricFamily("headwater_modbus_backoff_seconds", text, labels=["bus", "device"])
    counters = {
        key: CounterMetricFamily(f"headwater_modbus_{key}", text, labels=["bus", "device"])
        for key, text in _UNIT_COUNTERS.items()
    }
    for bus in buses:
        up.add_metric([bus["name"]], 0 if bus["problem"] else 1)
        for unit in bus["units"]:
            labels = [bus["name"], unit["device"]]
            backoff.add_metric(labels, unit["backoff_ms"] / 1000)
            for key, counter in counters.items():
                counter.add_metric(labels, sum(unit[key].values()) if key == "exceptions" else unit[key])
    yield from (up, backoff, *counters.values())


def _processor_memory(memory: dict[str, Any] | None) -> Iterator[Metric]:
    if not memory:
        return
    held = GaugeMetricFamily("headwater_processor_state_bytes", "What a window rule holds in memory.", labels=["rule"])
    for name, size in memory["rules"].items():
        held.add_metric([name], size)
    yield held
    text = "What all rules and devices may take in memory."
    yield _gauge("headwater_processor_state_bytes_max", text, memory["bytes_max"])
    yield _gauge("headwater_processor_devices", "Devices that the rules know.", memory["devices"])
    text = "Input partitions that take in no new windows and devices, for want of memory."
    yield _gauge("headwater_processor_full_partitions", text, memory["full"])


def _security(kafka: dict[str, Any], ingest: dict[str, Any]) -> Iterator[Metric]:
    text = "Days until the certificate of a listener ends."
    days = GaugeMetricFamily("headwater_certificate_days_left", text, labels=["listener"])
    doors = [(f"kafka {each['listen']}", each["certificate_days_left"]) for each in kafka.get("listeners", ())]
    for name, left in [*doors, ("mqtt", ingest.get("certificate_days_left"))]:
        if left is not None:
            days.add_metric([name], left)
    failed = CounterMetricFamily("headwater_sign_in_failures", "Clients that were not let in.", labels=["listener"])
    failed.add_metric(["kafka"], kafka.get("authentication_failures", 0))
    shaken = CounterMetricFamily("headwater_tls_handshakes_failed", "TLS handshakes that failed.", labels=["listener"])
    for name, status in (("kafka", kafka), ("mqtt", ingest)):
        shaken.add_metric([name], status.get("tls_handshakes_failed", 0))
    yield from (days, failed, shaken)


def _sinks(sinks: dict[str, Any]) -> Iterator[Metric]:
    if not sinks:
        return
    up = GaugeMetricFamily("headwater_sink_up", "1 while the database takes points.", labels=["sink"])
    lag = GaugeMetricFamily("headwater_sink_lag_records", "Records not yet written.", labels=["sink"])
    last = GaugeMetricFamily(
        "headwater_sink_last_success_timestamp_seconds", "When the database last took points.", labels=["sink"]
    )
    for name, sink in sinks.items():
        up.add_metric([name], sink["state"] == "up")
        lag.add_metric([name], sink["lag_records"])
        if sink["last_success_ms"] is not None:
            last.add_metric([name], sink["last_success_ms"] / 1000)
    yield from (up, lag, last)
    yield from _counters("sink", "sink", _SINK_COUNTERS, sinks)


_PROCESSOR_COUNTERS = {
    "readings": "Readings that the rules were shown.",
    "refused": "Records that no rule could take.",
    "windows_emitted": "Results of windows, revisions too.",
    "revisions": "Results that replaced an earlier one of their window.",
    "late": "Readings behind their node's mark, as the rules met them.",
    "overflow": "Readings and values for which there was no room.",
}


def _processors(processors: dict[str, Any]) -> Iterator[Metric]:
    if not processors:
        return
    yield _gauge("headwater_processors_up", "1 while windows are computed.", processors.get("state") == "up")
    yield _gauge("headwater_processors_lag_records", "Records not yet processed.", processors.get("lag_records", 0))
    if by_partition := processors.get("lag_by_partition"):
        text = "Records of an input partition not yet processed."
        lag = GaugeMetricFamily("headwater_processors_partition_lag_records", text, labels=["topic", "partition"])
        for name, records in by_partition.items():
            topic, _, partition = name.rpartition("/")
            lag.add_metric([topic, partition], records)
        yield lag
    for key, text in _PROCESSOR_COUNTERS.items():
        yield CounterMetricFamily(f"headwater_processors_{key}", text, value=processors.get(key, 0))
    text = "Readings that no window took any more: topic late."
    late = CounterMetricFamily("headwater_processors_too_late", text, labels=["rule"])
    by_rule = processors.get("too_late_by_rule", {})
    for rule in dict.fromkeys([*processors.get("windows", ()), *by_rule]):
        late.add_metric([rule], by_rule.get(rule, {}).get("readings", 0))
    yield late
    text = "The same of the ten devices of each rule with the most of them."
    devices = GaugeMetricFamily("headwater_processors_too_late_devices", text, labels=["rule", "device"])
    for rule, one in by_rule.items():
        for device, readings in one["devices"].items():
            devices.add_metric([rule, device], readings)
    yield devices


def _disk(status: dict[str, Any]) -> Iterator[Metric]:
    for key, value in (status.get("disk") or {}).items():
        yield _gauge(f"headwater_disk_{key}", f"Disk: {key.replace('_', ' ')}.", value)
    topics = (status.get("log") or {}).get("topics", {})
    end = CounterMetricFamily(
        "headwater_log_records", "Offsets given out, by topic and partition.", labels=["topic", "partition"]
    )
    for topic, one in sorted(topics.items()):
        for partition, ends in enumerate(one.get("partitions", ())):
            end.add_metric([topic, str(partition)], ends.get("end", 0))
    yield end


def registry(status: Callable[[], dict[str, Any] | None], model: PageModel) -> CollectorRegistry:
    """A registry of this node alone: nothing of the process's default one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(status, model))
    return registry
