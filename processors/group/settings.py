"""The file of `headwater process`: which cluster, which rules, as which member of which group."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.tls_settings import ClientSecuritySettings
from processors.user.settings import UserLimits

_PROTOCOLS = {"tls_ca_file": "ssl.ca.location", "tls_certificate_file": "ssl.certificate.location"}
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class GroupSettings(ClientSecuritySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One consumer group of processors; each process that runs with the same file takes a share of the partitions."""

    name: Name
    """The group's name: its members share the work, and its state lies in the topic `<name>-changelog`."""
    bootstrap_servers: str
    """Brokers to ask first, `host:port` separated by commas: a central node, or a Kafka cluster."""
    topic_prefix: str = ""
    """Stands before topics, the group and transactional ids on a cluster shared with others."""
    rules: tuple[str, ...]
    """Window and alert rules: names of shipped ones, or paths that end in `.toml`."""
    instance: str = ""
    """This member's name in the group (`group.instance.id`): one that comes back within `session_timeout_ms` has its
    partitions again without a rebalance. The host's name when left out; two members on one host need one each."""
    place: Literal["edge", "central"] = "central"
    """Which alert rules run here (their `runs`)."""
    output_partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Partitions of `aggregates` and `alerts` when this group has to make them."""
    output_retention_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """How long `aggregates` and `alerts` keep what they hold, when this group makes them."""
    replication_factor: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    """Copies of the topics that this group makes; the cluster's default when left out."""
    state_bytes_max: Annotated[int, msgspec.Meta(ge=1 << 20)] = 1 << 30
    """What the states of all rules may take in the memory of a member that has all partitions; each partition has an
    equal share, whoever has it. docs/windows.md says what gives way first."""
    forget_after_s: Annotated[float, msgspec.Meta(ge=0, le=3660 * 86400)] = 30 * 86400.0
    """A device that was not heard for so long, by its node's event time, is forgotten; 0: never."""
    foreign_lateness_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 60.0
    """What Kafka clients write makes no marks: windows of such nodes close when a reading is so far behind their end;
    0: never."""
    commit_every_ms: Annotated[int, msgspec.Meta(ge=10, le=10_000)] = 100
    """Outputs and positions are committed together this often; nobody sees an output before. A member that has a lot
    to catch up with commits up to ten times less often, so that commits take a tenth of its time."""
    snapshot_every_ms: Annotated[int, msgspec.Meta(ge=100)] = 15_000
    """State goes to the changelog this often: what a new owner of a partition has to read again, at most."""
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=1_000, le=1_800_000)] = 45_000
    """A member that was not heard of for this long loses its partitions."""
    transaction_timeout_ms: Annotated[int, msgspec.Meta(ge=1_000)] = 60_000
    """After this long the cluster aborts a transaction that a dead member left open; more than `commit_every_ms`."""
    silent_after_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0.0
    """A node that made no mark for so long is marked as silent in the input topic, as docs/windows.md describes; 0:
    never. For a cluster of which no node's own processors do it; the members then write to that topic."""
    fetch_records_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    """Records taken at once; more are faster and need more memory."""
    queue_bytes_max: Annotated[int, msgspec.Meta(ge=1 << 20)] = 32 << 20
    """What is fetched ahead of the work, compressed as it came."""
    metrics_listen: str | None = None
    """Where this member serves `/metrics` for Prometheus, `host:port`; nowhere when left out. It asks for no sign-in:
    keep it on loopback or within a network of your own. Also `--metrics-port`."""
    user: UserLimits = UserLimits()
    """How much a user's own processor may take, and when it is paused."""

    @property
    def group_id(self) -> str:
        return f"{self.topic_prefix}{self.name}"

    @property
    def changelog(self) -> str:
        """The topic that keeps the group's state."""
        return f"{self.topic_prefix}{self.name}-changelog"

    @property
    def client_id(self) -> str:
        """What every connection of a member says it is: quotas of a cluster are per client id."""
        return f"headwater-process-{self.name}"

    def commit_pause_s(self, took_s: float, *, behind: bool) -> float:
        """Between two commits, of which the last took `took_s`; `behind`: there is a lot to catch up with."""
        pause_s = self.commit_every_ms / 1000.0
        most_s = min(10.0 * pause_s, self.transaction_timeout_ms / 4000.0)
        return max(pause_s, min(9.0 * took_s, most_s)) if behind else pause_s

    def client(self) -> dict[str, Any]:
        """What producer, consumer and admin have in common, as librdkafka calls it."""
        found: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "client.id": self.client_id,
            # A cluster that is gone would be a line for each attempt to reach it, twenty a second from each client.
            # What of it matters to a member comes as an error of what it asked for, and is told once.
            "log_level": 2,
        }
        if self.security_protocol.startswith("SASL"):
            found |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
            }
        found |= {theirs: getattr(self, ours) for ours, theirs in _PROTOCOLS.items() if getattr(self, ours)}
        if self.tls_certificate_file:
            found["ssl.key.location"] = self.tls_key_file or self.tls_certificate_file
        return found
