"""How a group gets from one generation to the next: joining, leaving, falling silent, and the deadlines of all that.

Source: Kafka's GroupCoordinator, but that no member waits for others at the very first join
(`group.initial.rebalance.delay.ms` is 0), and that a member whose connection ends while it waits is given its session
time-out, not five minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.groups.group import NO_GENERATION, Answer, Group, Member, State
from gateway.wire.peer import Peer
from gateway.wire.timers import Timers
from headwater.clock import Clock

logger = logging.getLogger(__name__)


def refuse_join(code: ErrorCode, member_id: str) -> Body:
    """JoinGroup's answer for a refusal."""
    return {
        "error_code": code,
        "generation_id": NO_GENERATION,
        "protocol_name": None,
        "leader": "",
        "member_id": member_id,
        "members": [],
    }


def refuse_sync(code: ErrorCode) -> Body:
    """SyncGroup's answer for a refusal."""
    return {"error_code": code, "assignment": b""}


class Recorder(Protocol):
    """What makes a group's generation and members durable; `done` hears when they are, or why not."""

    def record(
        self, group: Group, done: Callable[[ErrorCode], None], assignments: Mapping[str, bytes] | None = None
    ) -> None: ...


class Rebalances:
    """The steps; each leaves the group in a state of the table."""

    def __init__(self, recorder: Recorder, timers: Timers, clock: Clock) -> None:
        self._recorder = recorder
        self._timers = timers
        self._clock = clock
        self._completed = 0
        self._expired = 0

    def status(self) -> dict[str, int]:
        return {"rebalances": self._completed, "members_expired": self._expired}

    # members

    def add(self, group: Group, member: Member, protocol_type: str, answer: Answer, peer: Peer) -> None:
        """A new member joins."""
        if (timer := group.pending.pop(member.member_id, None)) is not None:
            timer.cancel()
        group.add(member, protocol_type)
        self.wait(group, member, answer, peer)
        self.prepare(group, f"member {member.member_id} joined")
        self.try_complete(group)

    def rejoin(self, group: Group, member: Member, answer: Answer, peer: Peer) -> None:
        """A known member joins again."""
        self.wait(group, member, answer, peer)
        self.prepare(group, f"member {member.member_id} joined again")
        self.try_complete(group)

    def wait(self, group: Group, member: Member, answer: Answer, peer: Peer) -> None:
        """The member's JoinGroup waits for the others; without its connection only as long as its session."""
        self.dismiss(member, ErrorCode.UNKNOWN_MEMBER_ID)

        def gone() -> None:
            if member.joining is waiting:
                member.joining = None
                self.alive(group, member)

        def waiting(body: Body) -> None:
            peer.forget(waiting)
            answer(body)

        peer.on_close(waiting, gone)
        member.joining = waiting
        self.alive(group, member)

    def wait_for_part(self, group: Group, member: Member, answer: Answer, peer: Peer) -> None:
        """The member's SyncGroup waits for the leader's assignment, or the leader's own for the disk."""
        earlier, member.syncing = member.syncing, None
        if earlier is not None:
            earlier(refuse_sync(ErrorCode.REBALANCE_IN_PROGRESS))

        def gone() -> None:
            if member.syncing is waiting:
                member.syncing = None
                self.alive(group, member)

        def waiting(body: Body) -> None:
            peer.forget(waiting)
            answer(body)

        peer.on_close(waiting, gone)
        member.syncing = waiting
        self.alive(group, member)

    def dismiss(self, member: Member, code: ErrorCode) -> None:
        """Answer whatever request of the member waits."""
        joining, member.joining = member.joining, None
        syncing, member.syncing = member.syncing, None
        if joining is not None:
            joining(refuse_join(code, member.member_id))
        if syncing is not None:
            syncing(refuse_sync(code))

    def remove(self, group: Group, member: Member, why: str) -> None:
        """The member is out, and the group goes on without it."""
        self.dismiss(member, ErrorCode.UNKNOWN_MEMBER_ID)
        self._forget(group, member)
        self.prepare(group, f"member {member.member_id} {why}")
        self.try_complete(group)

    def _forget(self, group: Group, member: Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        group.discard(member)

    def hand_out(self, group: Group, member_id: str, session_timeout_ms: int) -> None:
        """Remember a member id until its client joins with it (KIP-394)."""

        def expired() -> None:
            if group.pending.pop(member_id, None) is not None:
                self.try_complete(group)

        when_ms = self._clock.monotonic_ms() + session_timeout_ms
        group.pending[member_id] = self._timers.at(when_ms, expired)

    def alive(self, group: Group, member: Member) -> None:
        """Heard of: its session begins again. One timer per member looks; a heartbeat only moves the deadline."""
        member.deadline_ms = self._clock.monotonic_ms() + member.session_timeout_ms
        if member.timer is not None and member.timer.when_ms > member.deadline_ms:
            member.timer.cancel()  # a shorter time-out than before
            member.timer = None
        if member.timer is None:
            member.timer = self._timers.at(member.deadline_ms, lambda: self._look(group, member))

    def _look(self, group: Group, member: Member) -> None:
        member.timer = None
        if member.joining is not None or member.syncing is not None:
            self.alive(group, member)  # it waits for us
        elif member.deadline_ms > self._clock.monotonic_ms():
            member.timer = self._timers.at(member.deadline_ms, lambda: self._look(group, member))
        else:
            self._expired += 1
            self.remove(group, member, f"was silent for {member.session_timeout_ms} ms")

    # generations

    def prepare(self, group: Group, why: str) -> None:
        """Begin a rebalance, unless one is in its join phase or the group is gone."""
        if group.state in {State.PREPARING_REBALANCE, State.DEAD}:
            return
        if group.state is State.COMPLETING_REBALANCE:
            self._reset(group, ErrorCode.REBALANCE_IN_PROGRESS)
        group.to(State.PREPARING_REBALANCE)
        logger.info("group %s rebalances from generation %d: %s", group.group_id, group.generation, why)
        self._arm(group, group.rebalance_timeout_ms, self._complete)

    def _arm(self, group: Group, wait_ms: float, action: Callable[[Group], None]) -> None:
        if group.timer is not None:
            group.timer.cancel()

        def due() -> None:
            group.timer = None
            action(group)

        group.timer = self._timers.at(self._clock.monotonic_ms() + wait_ms, due)

    def try_complete(self, group: Group) -> None:
        """End the join phase if every member has joined."""
        if group.state is State.PREPARING_REBALANCE and group.all_joined():
            self._complete(group)

    def _complete(self, group: Group) -> None:
        """The join phase ends, by everyone or by its deadline: static members alone may have stayed away."""
        if group.state is not State.PREPARING_REBALANCE:
            return
        for member in [each for each in group.members.values() if each.joining is None and each.instance_id is None]:
            logger.info("group %s: member %s did not join again in time", group.group_id, member.member_id)
            self._forget(group, member)
        if group.members and not group.elect():
            self._arm(group, group.rebalance_timeout_ms, self._complete)
            return
        group.next_generation()
        self._completed += 1
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if not group.members:
            self._recorder.record(group, lambda code: None)
            return
        self._arm(group, group.rebalance_timeout_ms, self._unsynced)
        for member in list(group.members.values()):
            joining, member.joining = member.joining, None
            if joining is not None:
                self.alive(group, member)
                joining(group.joined(member))

    def _unsynced(self, group: Group) -> None:
        """Who was told of a generation and never asked for its part of it is out (KAFKA-10134's deadline)."""
        if group.state is not State.COMPLETING_REBALANCE:
            return
        silent = [each for each in group.members.values() if each.syncing is None]
        for member in silent:
            logger.info("group %s: member %s did not sync in time", group.group_id, member.member_id)
            self._forget(group, member)
        self.prepare(group, f"{len(silent)} members did not sync")
        self.try_complete(group)

    def assign(self, group: Group, given: Mapping[str, bytes]) -> None:
        """The leader has spoken: once that is on disk every member gets its part."""
        if group.storing == group.generation:
            return  # it asked again, over another connection
        assignments = {member_id: given.get(member_id, b"") for member_id in group.members}
        generation = group.storing = group.generation

        def stored(code: ErrorCode) -> None:
            if group.storing == generation:
                group.storing = NO_GENERATION
            if group.state is not State.COMPLETING_REBALANCE or group.generation != generation:
                return
            if code is not ErrorCode.NONE:
                self.refuse(group, code)
                return
            if group.timer is not None:
                group.timer.cancel()
                group.timer = None
            group.to(State.STABLE)
            for member in group.members.values():
                member.assignment = assignments.get(member.member_id, b"")
            for member in list(group.members.values()):
                self._hand_over(group, member)

        self._recorder.record(group, stored, assignments)

    def refuse(self, group: Group, code: ErrorCode) -> None:
        """An assignment could not be kept: everybody is told, and joins again (as Kafka's storeGroup)."""
        self._reset(group, code)
        self.prepare(group, f"its assignment could not be kept: {code.name}")

    def _hand_over(self, group: Group, member: Member) -> None:
        syncing, member.syncing = member.syncing, None
        if syncing is not None:
            self.alive(group, member)
            syncing(group.synced(member))

    def _reset(self, group: Group, code: ErrorCode) -> None:
        """A generation that never became stable: whoever waits for its part is told."""
        for member in list(group.members.values()):
            member.assignment = b""
            syncing, member.syncing = member.syncing, None
            if syncing is not None:
                self.alive(group, member)
                syncing(refuse_sync(code))
