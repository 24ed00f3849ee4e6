"""What the replicator tells its driver to do, and what the driver tells it happened."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.replicate.requests import Address, Body
from gateway.wire.schema import ApiKey


class Request(NamedTuple):
    """One request to one broker."""

    address: Address
    api: ApiKey
    body: Body


class Send(NamedTuple):
    """Send these, in this order where they go to one broker; answer `Ack` with all their answers, or `Failed`."""

    requests: tuple[Request, ...]


class Wait(NamedTuple):
    """Nothing to send: `Tick` at this monotonic time (ms), or earlier when the log has grown."""

    until_ms: float


class Bury(NamedTuple):
    """Append this record of the local log to topic `deadletter` with the reason; `Ack` once it is fsynced."""

    source: str
    offset: int
    identity: str
    reason: str


class Stop(NamedTuple):
    """Replication stands still until the operator has chosen."""

    reason: str


Action = Send | Wait | Bury | Stop


class Ack(NamedTuple):
    """The answers, in the order of the requests."""

    bodies: tuple[dict[str, Any], ...] = ()


class Failed(NamedTuple):
    """A request got no answer: its outcome is unknown."""

    cause: str
    timed_out: bool = False


class Tick(NamedTuple):
    """Time has passed, or the log has grown."""


Event = Ack | Failed | Tick
