"""The numbers that the demo shows, gathered from the farm's counters and the nodes' status documents. Sans-IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

HAPPENINGS_MAX = 8


class Figures(msgspec.Struct, kw_only=True):
    """Everything on the screen; counters never fall, whichever process has restarted."""

    seconds: float = 0.0
    sent: int = 0
    acknowledged: int = 0
    resent: int = 0
    garbage_sent: int = 0
    stored: int = 0
    replicated: int = 0
    windows: int = 0
    backlog_records: int = 0
    backlog_bytes: int = 0
    link: str = "-"
    edge: str = "starting"
    central: str = "starting"
    edge_problem: str = ""
    central_problem: str = ""
    ending: bool = False
    alerts: dict[str, str] = {}
    happenings: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=HAPPENINGS_MAX))

    def take_farm(self, event: Mapping[str, Any]) -> None:
        """The farm's counters."""
        for name in ("sent", "acknowledged", "resent", "garbage_sent"):
            setattr(self, name, max(getattr(self, name), int(event.get(name, 0))))

    def take_edge(self, status: Mapping[str, Any] | None) -> None:
        """The edge's status document; None: it does not answer."""
        self.edge_problem = first_problem(status)
        if status is None:
            self.edge = "down"
            return
        self.edge = str(status.get("state", "?"))
        self.stored = max(self.stored, end_of(status, "readings"))
        uplink = status.get("central") or {}
        self.link = str(uplink.get("state", "-"))
        self.backlog_records = int(uplink.get("backlog_records") or 0)
        self.backlog_bytes = int(uplink.get("backlog_bytes") or 0)
        # The central's own end counts transaction markers too.
        self.replicated = max(self.replicated, self.stored - self.backlog_records)

    def take_central(self, status: Mapping[str, Any] | None) -> None:
        """The central's status document."""
        self.central_problem = first_problem(status)
        if status is None:
            self.central = "down"
            return
        self.central = str(status.get("state", "?"))
        self.windows = max(self.windows, end_of(status, "aggregates"))

    @property
    def problems(self) -> list[str]:
        """Why a node is not good: the first reason of each."""
        named = {"edge": self.edge_problem, "central": self.central_problem}
        return [f"{name}: {problem}" for name, problem in named.items() if problem]

    def happened(self, text: str) -> None:
        """Note something for the screen."""
        self.happenings.append(f"{self.seconds:6.1f} s  {text}")


def first_problem(status: Mapping[str, Any] | None) -> str:
    """The worst thing that a status document names; "" when all is well, or nobody answers."""
    problems = (status or {}).get("problems") or [""]
    return str(problems[0])


def end_of(status: Mapping[str, Any], topic: str) -> int:
    """The sum of a topic's end offsets over its partitions, as a status document tells it; 0 without the topic."""
    topics = (status.get("log") or {}).get("topics") or {}
    partitions = (topics.get(topic) or {}).get("partitions") or []
    return sum(int(partition.get("end", 0)) for partition in partitions)
