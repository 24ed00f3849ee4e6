"""What was sent and what was acknowledged, and whether a log that was opened again keeps to it.

The ledger knows no file and no offset index: values are unique, so a value that is missing, doubled or in another place
is seen by comparing lists.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field

from gateway.log import records
from gateway.log.partition import PartitionLog

Row = tuple[int, bytes | None, bytes | None]
"""(offset, key, value)"""


@dataclass(slots=True)
class Transaction:
    """`ending` is the marker that was sent (True: commit), `ended` whether it was acknowledged."""

    producer: int
    ending: bool | None = None
    ended: bool = False


@dataclass(slots=True)
class Sent:
    """One batch of one record. `offset` is None when the log refused it: it may be there, once, or not."""

    topic: str
    key: bytes
    value: bytes
    offset: int | None
    acked: bool = False
    producer: int | None = None
    sequence: int = -1
    transaction: Transaction | None = None
    resend: bool = False
    """Its producer sends it until it is acknowledged, so in the end it is there exactly once."""


@dataclass(slots=True)
class Ledger:
    """Everything sent, in order."""

    sent: list[Sent] = field(default_factory=list)
    sequences: dict[tuple[str, int], int] = field(default_factory=dict)
    open: dict[tuple[str, int], Transaction] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)  # their deletion was asked for
    deleted: set[str] = field(default_factory=set)
    numbers: int = 0
    runs: list[str] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    producer_ids: list[int] = field(default_factory=list)
    remembered: int = 0
    positions: int = 0

    def disconnect(self) -> None:
        """Nobody knows any more what became of batches that were under way: they are sent again."""
        for each in self.sent:
            if not each.acked:
                each.offset = None

    def unacknowledged(self, topic: str, producer: int | None) -> list[Sent]:
        """What a producer goes on sending, in its order."""
        return [
            each
            for each in self.sent
            if each.resend and not each.acked and each.topic == topic and each.producer == producer
        ]

    def copy(self) -> Ledger:
        return copy.deepcopy(self)

    def topics(self) -> set[str]:
        return {each.topic for each in self.sent} - self.doomed

    def of(self, topic: str) -> list[Sent]:
        return [each for each in self.sent if each.topic == topic]


class Violation(AssertionError):  # noqa: N818 - an event, not an error
    """A promise was broken."""


def rows_of(log: PartitionLog, *, committed: bool = False) -> list[Row]:
    """Every data record as a consumer sees it, each batch's CRC checked."""
    at, found = log.log_start_offset, []
    while data := (result := log.read(at, 700, committed=committed)).data:
        pending = sorted(result.aborted, key=lambda each: each[1])
        aborting: set[int] = set()
        for view in records.split_batches(data):
            header = records.check_batch(view)
            if header.next_offset <= at:
                raise Violation(f"{log.topic}: a read at {at} that does not get on")
            while pending and pending[0][1] <= header.last_offset:
                aborting.add(pending.pop(0)[0])
            at = header.next_offset
            if header.is_control:
                if not records.control_type(view):
                    aborting.discard(header.producer_id)
            elif not (committed and header.is_transactional and header.producer_id in aborting):
                columns = records.decode_batch(view)
                found += list(zip(columns.offsets, columns.keys, columns.values, strict=True))
    return found


def check(ledger: Ledger, log: PartitionLog, *, compacted: bool, settled: bool = False, torn: bool = False) -> None:
    """Raises `Violation`. `settled`: every producer has sent again what was not acknowledged, and it was synced.

    `torn`: what a crash left may have had holes, which batches that are sent again fill from behind.
    """
    topic = log.topic
    sent = ledger.of(topic)
    rows = rows_of(log)
    _check_rows(topic, sent, rows, ordered=not torn)
    there = {value: offset for offset, _, value in rows}
    newest = {key: offset for offset, key, value in rows if value is not None}
    for each in sent:
        at = there.get(each.value)
        wanted = each.acked or (settled and each.resend)
        if wanted and at is None and (each.offset is None or each.offset >= log.log_start_offset):
            superseded = each.offset is None or newest.get(each.key, -1) > each.offset
            if not compacted or not (superseded or _was_aborted(each)):
                raise Violation(f"{topic}: {each.value!r} (offset {each.offset}) was acknowledged and is lost")
        if each.acked and at is not None and each.offset is not None and at != each.offset:
            raise Violation(f"{topic}: {each.value!r} was acknowledged at {each.offset} and is at {at}")
    _check_committed(ledger, log, sent, there)


def _check_rows(topic: str, sent: list[Sent], rows: list[Row], *, ordered: bool) -> None:
    offsets = [offset for offset, _, _ in rows]
    if offsets != sorted(set(offsets)):
        raise Violation(f"{topic}: offsets {offsets} do not ascend")
    counts = Counter(value for _, _, value in rows)
    if twice := [value for value, times in counts.items() if times > 1]:
        raise Violation(f"{topic}: {twice} twice")
    known = {each.value: each.key for each in sent}
    if strange := [(offset, value) for offset, key, value in rows if value not in known or known[value] != key]:
        raise Violation(f"{topic}: {strange} was never sent")
    places = {each.value: (number, each.producer) for number, each in enumerate(sent)}
    mine: dict[int, list[int]] = {}
    for _, _, value in rows:
        number, producer = places[value or b""]
        if producer is not None:
            mine.setdefault(producer, []).append(number)
    if ordered and any(numbers != sorted(numbers) for numbers in mine.values()):
        raise Violation(f"{topic}: a producer's records in another order")


def _was_aborted(sent: Sent) -> bool:
    return sent.transaction is not None and sent.transaction.ending is not True


def _check_committed(ledger: Ledger, log: PartitionLog, sent: list[Sent], there: dict[bytes | None, int]) -> None:
    committed = {value for _, _, value in rows_of(log, committed=True)}
    stable = log.last_stable_offset
    for each in sent:
        transaction = each.transaction
        if transaction is None:
            continue
        if each.value in committed and transaction.ending is not True:
            raise Violation(f"{log.topic}: {each.value!r} of an uncommitted transaction is shown as committed")
        at = there.get(each.value)
        if at is None or at >= stable or transaction.ending is not True:
            continue
        if each.value not in committed:
            raise Violation(f"{log.topic}: {each.value!r} was committed and is not shown")
    # What another open transaction holds back may come later.
    blocked = any(topic == log.topic for topic, _ in ledger.open)
    for each in sent:
        transaction = each.transaction
        if transaction is None or not (transaction.ended and transaction.ending) or blocked:
            continue
        if each.value in there and each.value not in committed:
            raise Violation(f"{log.topic}: the commit of {each.value!r} was acknowledged and does not count")
