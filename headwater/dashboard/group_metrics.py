"""A member of a group of processors in Prometheus' words: the names that a node has for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater.dashboard.metrics import processor_metrics

_COUNTERS = {
    "rebalances": "Times that partitions were taken over or given up.",
    "restarts": "Times that it went back to what is committed.",
    "transactions": "Transactions committed.",
}


class GroupCollector(Collector):
    """Turns `status` (`processors`, None where only users' processors run, and `user_processors`) into metrics."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        processors = status["processors"] or {}
        info = GaugeMetricFamily("headwater_info", "The member and its version.", labels=["node", "version"])
        info.add_metric([status["instance"], status["version"]], 1)
        yield info
        yield from processor_metrics(processors, status["user_processors"])
        if processors:
            for key, text in _COUNTERS.items():
                yield CounterMetricFamily(f"headwater_group_{key}", text, value=processors.get(key, 0))


def group_registry(status: Callable[[], dict[str, Any]]) -> CollectorRegistry:
    """A registry of this member alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GroupCollector(status))
    return registry
