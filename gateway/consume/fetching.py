"""Which partitions of a cluster are fetched from which broker, and from where on. Sans-IO.

`asks` gives what may be sent now, `answered` and `failed` take what became of it, `take` gives the records that came,
as columns. A broker is asked one thing at a time, while its answer before is worked on; what is asked for and what has
come and was not taken stay within `bytes_max` together (and one batch more, KIP-74). Only whole transactions are seen:
`read_committed`, as in `gateway.consume.batches`.

Who leads a partition is asked of any broker, again after each sign that it has changed, with growing pauses. Offsets
are held against leader epochs (KIP-320): a broker that is behind is not believed, and with each new epoch the leader is
asked where the epoch ended that was last read. A log that has lost records that were read raises `LostPlaceError`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.consume.batches import Block, Decode, Fetched, no_records, one_by_one
from gateway.wire.errors import ErrorCode, KafkaError, error_name, is_retriable
from gateway.wire.schema import ApiKey
from headwater.errors import PeerError

Where = tuple[str, int]
Address = tuple[str, int]
Body = dict[str, Any]

RETRY_MS_MIN, RETRY_MS_MAX = 100.0, 1_000.0
WAIT_MS = 50
"""How long a broker waits for records to come; it answers at once when there are some."""
ANSWER_BYTES_MAX, PARTITION_BYTES_MAX, ANSWER_BYTES_MIN = 8 << 20, 1 << 20, 64 << 10
READY_MAX = 2
"""Answers of a partition that wait to be taken; while there are so many it is not asked for."""
_READ_COMMITTED = 1


class LostPlaceError(KafkaError):
    """A position outside its partition's log. `end`: where the log was cut, None when that is not known."""

    def __init__(self, where: Where, position: int, end: int | None) -> None:
        cut = "" if end is None else f", where the log was cut at {end}"
        super().__init__(ErrorCode.OFFSET_OUT_OF_RANGE, f"reading {where[0]}/{where[1]} at offset {position}{cut}")
        self.where, self.position, self.end = where, position, end


class _Share:
    """One partition that is read."""

    __slots__ = (
        *("asked", "epoch", "failures", "leader", "not_before", "position", "read_epoch", "ready", "taken"),
        *("unsure", "where", "why"),
    )

    def __init__(self, where: Where, position: int) -> None:
        self.where = where
        self.position = position
        """Where to fetch on; what is `ready` lies below."""
        self.taken = 0
        """The turn in which something of it was taken last."""
        self.ready: deque[Fetched] = deque()
        self.leader: Address | None = None
        self.epoch = -1
        """The leader's, as far as told; -1: unknown."""
        self.read_epoch = -1
        """That of the last batch read."""
        self.unsure = False
        """The epoch has changed since: ask where the one that was read has ended, before anything else."""
        self.asked = False
        self.failures = 0
        self.why = ""
        """What went wrong last, until something goes well."""
        self.not_before = 0.0


class Ask(NamedTuple):
    """A request to send."""

    address: Address
    api: ApiKey
    body: Body
    shares: tuple[_Share, ...] = ()
    bytes_max: int = 0


class Fetching:
    """Positions over partitions of one cluster; see the module. All times in ms of one clock that never goes back."""

    def __init__(self, bootstrap: Sequence[Address], *, bytes_max: int, decode: Decode = one_by_one) -> None:
        """`bootstrap`: brokers to ask first."""
        self._decode = decode
        self._bootstrap = list(bootstrap)
        self._brokers: list[Address] = []
        self._turn = self._takes = 0
        self._bytes_max = bytes_max
        self._shares: dict[Where, _Share] = {}
        self._busy: set[Address] = set()
        self._asked_bytes = 0
        self.ready_bytes = 0
        self._looking = False
        self._lost_sight = False
        """Somebody has no leader, or one that did not do."""
        self._look_failures = 0
        self._look_not_before = 0.0
        self._look_why = ""
        self.ends: dict[Where, int] = {}
        """High watermarks as the last answers told them."""

    @property
    def trouble(self) -> str:
        """What keeps a partition from being read just now, "" when nothing does."""
        return next((share.why for share in self._shares.values() if share.why), self._look_why)

    def assign(self, positions: Mapping[Where, int]) -> None:
        """What to read and from where, in addition to what is read; answers under way to what was read before under
        the same name are dropped.
        """
        self.drop(positions)
        for where, position in positions.items():
            self._shares[where] = _Share(where, position)
        self._lost_sight |= bool(positions)

    def drop(self, gone: Iterable[Where]) -> None:
        """Read these no more: nothing of them is given any more, whatever is under way."""
        for where in gone:
            share = self._shares.pop(where, None)
            if share is not None:
                self.ready_bytes -= sum(fetched.size_bytes for fetched in share.ready)
            self.ends.pop(where, None)

    # what to send

    def asks(self, now: float) -> list[Ask]:
        """All requests that may be sent now; each needs its `answered` or `failed`."""
        found = []
        if self._lost_sight and not self._looking and now >= self._look_not_before:
            found.append(self._look())
        by_leader: dict[Address, list[_Share]] = {}
        for share in self._shares.values():
            if (
                share.leader is not None
                and share.leader not in self._busy
                and not share.asked
                and now >= share.not_before
                and len(share.ready) < READY_MAX
            ):
                by_leader.setdefault(share.leader, []).append(share)
        for leader, shares in by_leader.items():
            unsure = [share for share in shares if share.unsure]
            ask = _ask_epochs(leader, unsure) if unsure else self._ask_records(leader, shares)
            if ask is None:
                continue
            self._busy.add(leader)
            self._asked_bytes += ask.bytes_max
            for share in ask.shares:
                share.asked = True
            found.append(ask)
        return found

    def next_ms(self, now: float) -> float:
        """When, later than now, `asks` may have more without anything having come or been taken; else infinity."""
        pauses = (self._look_not_before, *(share.not_before for share in self._shares.values()))
        return min((until for until in pauses if until > now), default=math.inf)

    def _look(self) -> Ask:
        self._looking = True
        known = [*dict.fromkeys([*self._brokers, *self._bootstrap])]
        topics = sorted({topic for topic, _ in self._shares})
        body = {"topics": [{"name": topic} for topic in topics], "allow_auto_topic_creation": False}
        return Ask(known[self._turn % len(known)], ApiKey.METADATA, body)

    def _ask_records(self, leader: Address, shares: list[_Share]) -> Ask | None:
        left = self._bytes_max - self.ready_bytes - self._asked_bytes
        if left < ANSWER_BYTES_MIN and (self.ready_bytes or self._asked_bytes):
            return None
        leaders = len({share.leader for share in self._shares.values()})
        fair = max(self._bytes_max // (2 * leaders), ANSWER_BYTES_MIN)  # half of it is for what lies ready
        bytes_max = min(left, fair, ANSWER_BYTES_MAX, PARTITION_BYTES_MAX * len(shares))
        topics: dict[str, list[dict[str, int]]] = {}
        for share in shares:
            asked = {
                "partition": share.where[1],
                "current_leader_epoch": share.epoch,
                "fetch_offset": share.position,
                "partition_max_bytes": min(bytes_max, PARTITION_BYTES_MAX),
            }
            topics.setdefault(share.where[0], []).append(asked)
        # A broker fills its answer in the order of the request: who was first goes last next time, or a busy partition
        # would starve the others.
        first = shares[0].where
        self._shares[first] = self._shares.pop(first)
        body = {
            "max_wait_ms": WAIT_MS,
            "min_bytes": 1,
            "max_bytes": bytes_max,
            "isolation_level": _READ_COMMITTED,
            "topics": [{"topic": topic, "partitions": asked} for topic, asked in topics.items()],
        }
        return Ask(leader, ApiKey.FETCH, body, tuple(shares), bytes_max)

    # what became of it

    def failed(self, ask: Ask, why: str, now: float) -> None:
        """No answer: somebody else may lead by now."""
        if ask.api is ApiKey.METADATA:
            self._looking = False
            self._turn += 1
            self._pause_looking(why, now)
            return
        self._settle(ask)
        for share in ask.shares:
            self._fail(share, why, now)

    def answered(self, ask: Ask, answer: Body, now: float) -> None:
        """Take an answer in.

        Raises `KafkaError` for what no time mends, `LostPlaceError`, `CorruptBatch`, and `PeerError` for an answer to
        what was not asked.
        """
        if ask.api is ApiKey.METADATA:
            self._looking = False
            self._see(answer, now)
            return
        self._settle(ask)
        shares = {share.where: share for share in ask.shares}
        if ask.api is ApiKey.OFFSET_FOR_LEADER_EPOCH:
            for topic in answer["topics"]:
                for part in topic["partitions"]:
                    share = self._current(shares, (topic["topic"], part["partition"]))
                    if share is not None and self._is_good(share, part["error_code"], now):
                        _check_epoch(share, part["leader_epoch"], part["end_offset"])
            return
        _raise(answer.get("error_code", 0), "fetching")
        for topic in answer["responses"]:
            for part in topic["partitions"]:
                share = self._current(shares, (topic["topic"], part["partition_index"]))
                if share is not None and self._is_good(share, part["error_code"], now):
                    self._take_in(share, part)

    def _settle(self, ask: Ask) -> None:
        self._busy.discard(ask.address)
        self._asked_bytes -= ask.bytes_max
        for share in ask.shares:
            share.asked = False

    def _current(self, asked: Mapping[Where, _Share], where: Where) -> _Share | None:
        """None for a partition that was taken away meanwhile, even if it is back."""
        if where not in asked:
            raise PeerError(f"the broker sent {where[0]}/{where[1]}, which was not asked for")
        share = asked[where]
        return share if self._shares.get(where) is share else None

    def _is_good(self, share: _Share, code: int, now: float) -> bool:
        if code == ErrorCode.NONE:
            share.failures, share.why = 0, ""
            return True
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            raise LostPlaceError(share.where, share.position, None)
        what = f"reading {share.where[0]}/{share.where[1]} at offset {share.position}"
        if not is_retriable(code):
            raise KafkaError(code, what)
        self._fail(share, f"{what}: {error_name(code)}", now)
        return False

    def _fail(self, share: _Share, why: str, now: float) -> None:
        share.why, share.leader = why, None
        share.not_before = now + min(RETRY_MS_MIN * 2.0**share.failures, RETRY_MS_MAX)
        share.failures = min(share.failures + 1, 10)
        self._lost_sight |= self._shares.get(share.where) is share

    def _pause_looking(self, why: str, now: float) -> None:
        self._look_why = why
        self._look_not_before = now + min(RETRY_MS_MIN * 2.0**self._look_failures, RETRY_MS_MAX)
        self._look_failures = min(self._look_failures + 1, 10)

    def _see(self, answer: Body, now: float) -> None:
        """Who leads what."""
        addresses = {broker["node_id"]: (broker["host"], broker["port"]) for broker in answer["brokers"]}
        self._brokers = list(addresses.values())
        for topic in answer["topics"]:
            code, name = topic["error_code"], topic["name"]
            if code != ErrorCode.NONE and not is_retriable(code):
                raise KafkaError(code, f"topic {name}")
            for part in topic["partitions"]:
                share = self._shares.get((name, part["partition_index"]))
                if share is not None:
                    _lead(share, addresses.get(part["leader_id"]), part.get("leader_epoch", -1))
        leaderless = [f"{topic}/{part}" for (topic, part), share in self._shares.items() if share.leader is None]
        self._lost_sight = bool(leaderless)
        if leaderless:
            self._pause_looking(f"{', '.join(leaderless)}: no leader just now", now)
        else:
            self._look_failures, self._look_not_before, self._look_why = 0, now + RETRY_MS_MIN, ""

    def _take_in(self, share: _Share, part: Body) -> None:
        self.ends[share.where] = part["high_watermark"]
        data = part["records"]
        if not data:
            return
        aborted = [(a["producer_id"], a["first_offset"]) for a in part["aborted_transactions"] or ()]
        fetched = Fetched(share.position, data, aborted)
        if fetched.next_offset > share.position:
            share.position, share.read_epoch = fetched.next_offset, fetched.leader_epoch
            share.ready.append(fetched)
            self.ready_bytes += fetched.size_bytes

    # what came

    def take(self, records_max: int) -> list[Block]:
        """About `records_max` records of what has come, a block per partition; partitions take turns at being first.

        Raises `CorruptBatch` on damage, `MissingCodec`.
        """
        blocks: list[Block] = []
        left = records_max
        self._takes += 1
        for share in sorted(self._shares.values(), key=lambda share: share.taken):
            if left <= 0:
                break
            if not share.ready:
                continue
            share.taken = self._takes
            block = no_records(*share.where, share.ready[0].position)
            while share.ready and len(block.offsets) < left:
                fetched = share.ready[0]
                block = fetched.take(block, left, decode=self._decode)
                if fetched.done:
                    share.ready.popleft()
                    self.ready_bytes -= fetched.size_bytes
            blocks.append(block)
            left -= len(block.offsets)
        return blocks


def _ask_epochs(leader: Address, shares: list[_Share]) -> Ask:
    topics: dict[str, list[dict[str, int]]] = {}
    for share in shares:
        asked = {"partition": share.where[1], "current_leader_epoch": share.epoch, "leader_epoch": share.read_epoch}
        topics.setdefault(share.where[0], []).append(asked)
    body = {"replica_id": -1, "topics": [{"topic": topic, "partitions": asked} for topic, asked in topics.items()]}
    return Ask(leader, ApiKey.OFFSET_FOR_LEADER_EPOCH, body, tuple(shares))


def _check_epoch(share: _Share, epoch: int, end_offset: int) -> None:
    """Raises `LostPlaceError` when what was read lies behind the end of its epoch."""
    share.unsure = False
    if epoch >= 0 and 0 <= end_offset < share.position:  # else the leader knows that epoch no more: nothing to compare
        raise LostPlaceError(share.where, share.position, end_offset)


def _lead(share: _Share, leader: Address | None, epoch: int) -> None:
    if 0 <= epoch < share.epoch:
        leader = None  # of a broker that has not heard of the latest election
    elif epoch != share.epoch:
        share.unsure = 0 <= share.read_epoch < epoch
        share.epoch = epoch
    share.leader = leader


def _raise(code: int, what: str) -> None:
    if code != ErrorCode.NONE:
        raise KafkaError(code, what)
