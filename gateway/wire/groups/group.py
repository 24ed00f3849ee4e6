"""A consumer group: its states as a table, its members, its offsets. No message, no clock, no disk.

Sources: KIP-62 (rebalance time-out), KIP-345 (static members), KIP-394 (member ids), KIP-447 (offsets in transactions),
and Kafka's GroupMetadata, whose rules these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from gateway.wire.compiler import Body
from gateway.wire.timers import Timer

Answer = Callable[[Body], None]
Partition = tuple[str, int]
NO_GENERATION = -1
# What Python makes of each beside the bytes that clients have sent, roughly.
_GROUP_BYTES, MEMBER_BYTES, _OFFSET_BYTES = 2_000, 2_000, 400


class State(StrEnum):
    """The states, by the names that DescribeGroups shows."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


# From which states each state may be entered (GroupState.validPreviousStates).
ENTERED_FROM: dict[State, frozenset[State]] = {
    State.EMPTY: frozenset({State.PREPARING_REBALANCE}),
    State.PREPARING_REBALANCE: frozenset({State.EMPTY, State.COMPLETING_REBALANCE, State.STABLE}),
    State.COMPLETING_REBALANCE: frozenset({State.PREPARING_REBALANCE}),
    State.STABLE: frozenset({State.COMPLETING_REBALANCE}),
    State.DEAD: frozenset(State),
}


class Committed(NamedTuple):
    """A committed offset; `position` is its record's offset in `__consumer_offsets`, which orders commits."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    position: int = -1

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly."""
        return _OFFSET_BYTES + len(self.metadata) * (1 if self.metadata.isascii() else 4)


@dataclass(slots=True, eq=False)
class Member:
    """One member. `joining` and `syncing` answer the request of its that waits."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: list[tuple[str, bytes]]
    assignment: bytes = b""
    joining: Answer | None = None
    syncing: Answer | None = None
    deadline_ms: float = 0.0
    timer: Timer | None = None

    @property
    def metadata_bytes(self) -> int:
        return sum(len(name) + len(metadata) for name, metadata in self.protocols)

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly."""
        return MEMBER_BYTES + self.metadata_bytes + len(self.assignment)

    def metadata(self, protocol: str | None) -> bytes:
        """What the member said for a protocol."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")


@dataclass(slots=True, eq=False)
class Group:
    """One group. A generation is one outcome of a rebalance; `pending` are member ids given out and not used yet."""

    group_id: str
    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str | None = None
    protocol: str | None = None
    leader_id: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    pending: dict[str, Timer] = field(default_factory=dict)
    offsets: dict[Partition, Committed] = field(default_factory=dict)
    pending_offsets: dict[int, dict[Partition, Committed]] = field(default_factory=dict)
    timer: Timer | None = None
    changed_ms: int = -1
    recorded: bool = False  # `__consumer_offsets` has a value for it
    committing: int = 0  # commits that are on their way to the disk
    storing: int = NO_GENERATION  # the generation whose assignment is on its way to the disk
    offset_bytes: int = 0  # of both kinds of offsets
    noted_bytes: int = 0  # as last counted among all groups'

    def to(self, state: State) -> None:
        """Raises `ValueError` for a transition that the table does not have."""
        if self.state not in ENTERED_FROM[state]:
            raise ValueError(f"no transition from {self.state} to {state}")
        self.state = state

    @property
    def metadata_bytes(self) -> int:
        return sum(member.metadata_bytes for member in self.members.values())

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly."""
        members = sum(member.size_bytes for member in self.members.values())
        return _GROUP_BYTES + members + len(self.pending) * MEMBER_BYTES + self.offset_bytes

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def is_idle(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.state is State.EMPTY and not (
            self.offsets or self.pending_offsets or self.pending or self.committing
        )

    def supports(self, protocol_type: str, names: Iterable[str]) -> bool:
        """Whether a member with these protocols could live with the others."""
        if not self.members:
            return True
        return self.protocol_type == protocol_type and not self._candidates().isdisjoint(names)

    def _candidates(self) -> set[str]:
        """Protocols that every member knows."""
        known = [{name for name, _ in member.protocols} for member in self.members.values()]
        return set.intersection(*known) if known else set()

    def select_protocol(self) -> str:
        """Each member votes for the first of its protocols that all know; of equal ones the earliest voted for wins."""
        candidates = self._candidates()
        votes: dict[str, int] = {}
        for member in self.members.values():
            choice = next(name for name, _ in member.protocols if name in candidates)
            votes[choice] = votes.get(choice, 0) + 1
        return max(votes, key=lambda name: votes[name])

    def add(self, member: Member, protocol_type: str) -> None:
        if not self.members:
            self.protocol_type = protocol_type
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.instances[member.instance_id] = member.member_id
        if self.leader_id is None:
            self.leader_id = member.member_id

    def discard(self, member: Member) -> None:
        self.members.pop(member.member_id, None)
        if member.instance_id is not None and self.instances.get(member.instance_id) == member.member_id:
            del self.instances[member.instance_id]
        if self.leader_id == member.member_id:
            self.leader_id = next(iter(self.members), None)

    def rename(self, member: Member, member_id: str) -> None:
        """A static member came back: it goes on under a new id, and the old one is fenced (KIP-345)."""
        del self.members[member.member_id]
        if self.leader_id == member.member_id:
            self.leader_id = member_id
        member.member_id = member_id
        self.members[member_id] = member
        if member.instance_id is not None:
            self.instances[member.instance_id] = member_id

    def elect(self) -> bool:
        """Whether a member that has joined leads; another one that has is chosen where the leader has not."""
        leader = self.members.get(self.leader_id or "")
        if leader is not None and leader.joining is not None:
            return True
        joined = next((member.member_id for member in self.members.values() if member.joining is not None), None)
        if joined is not None:
            self.leader_id = joined
        return joined is not None

    def all_joined(self) -> bool:
        return not self.pending and all(member.joining is not None for member in self.members.values())

    def next_generation(self) -> None:
        """The join phase is over."""
        self.generation = 1 if self.generation >= 0x7FFFFFFF else self.generation + 1
        if self.members:
            self.protocol = self.select_protocol()
            self.to(State.COMPLETING_REBALANCE)
        else:
            self.protocol = self.leader_id = None
            self.to(State.EMPTY)

    def joined(self, member: Member, *, skip_assignment: bool = False) -> Body:
        """JoinGroup's answer for one member: the leader alone is told of the others."""
        others: list[Body] = []
        if member.member_id == self.leader_id:
            others = [
                {
                    "member_id": each.member_id,
                    "group_instance_id": each.instance_id,
                    "metadata": each.metadata(self.protocol),
                }
                for each in self.members.values()
            ]
        return {
            "error_code": 0,
            "generation_id": self.generation,
            "protocol_type": self.protocol_type,
            "protocol_name": self.protocol,
            "leader": self.leader_id or "",
            "skip_assignment": skip_assignment,
            "member_id": member.member_id,
            "members": others,
        }

    def synced(self, member: Member) -> Body:
        """SyncGroup's answer."""
        return {
            "error_code": 0,
            "protocol_type": self.protocol_type,
            "protocol_name": self.protocol,
            "assignment": member.assignment,
        }

    # offsets

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        """Take offsets in; one whose record comes before the known one's changes nothing."""
        for where, committed in offsets.items():
            known = self.offsets.get(where)
            if known is None or known.position <= committed.position:
                self.offsets[where] = committed
                self.offset_bytes += committed.size_bytes - (0 if known is None else known.size_bytes)

    def forget(self, where: Partition) -> None:
        """The offset has been deleted."""
        known = self.offsets.pop(where, None)
        self.offset_bytes -= 0 if known is None else known.size_bytes

    def hold(self, producer_id: int, offsets: Mapping[Partition, Committed]) -> None:
        """Keep a transaction's offsets until it ends."""
        self._put_held(producer_id, self.pending_offsets.get(producer_id, {}) | dict(offsets))

    def _put_held(self, producer_id: int, offsets: dict[Partition, Committed]) -> None:
        before = self.pending_offsets.pop(producer_id, {})
        self.offset_bytes += _sum(offsets) - _sum(before)
        if offsets:
            self.pending_offsets[producer_id] = offsets

    def withdraw(self, producer_id: int, offsets: Mapping[Partition, Committed]) -> None:
        """The disk refused offsets that were held."""
        held = self.pending_offsets.get(producer_id, {})
        self._put_held(producer_id, {where: each for where, each in held.items() if offsets.get(where) != each})

    def release(self, producer_id: int, *, commit: bool) -> None:
        """The transaction has ended."""
        held = self.pending_offsets.get(producer_id, {})
        self._put_held(producer_id, {})
        if commit:
            self.commit(held)

    def is_unstable(self, where: Partition) -> bool:
        """Whether a transaction that is open may change this partition's offset (KIP-447)."""
        return any(where in held for held in self.pending_offsets.values())


def _sum(offsets: Mapping[Partition, Committed]) -> int:
    return sum(each.size_bytes for each in offsets.values())
