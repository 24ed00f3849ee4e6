"""Where to go on: design section 8's rules as one pure function of what the node, its journal and the central say.

The central's record decides; local files only say who this node is. Whatever cannot be decided without risk of
losing or repeating data stops replication (ingest goes on) and names the choice that the operator has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from gateway.log.errors import CorruptBatch
from gateway.replicate.gather import Source
from gateway.replicate.journal import Remembered, RunEntry
from gateway.replicate.progress import Part, Progress
from gateway.replicate.requests import Topic

Choice = Literal["resend", "accept"]

PROGRESS_LOST = "progress lost"
CENTRAL_CHANGED = "central recreated or truncated"
NO_COMMON_RUN = "no common run"
LOG_DIFFERS = "log differs from what was replicated"
LOG_SHORTER = "log shorter than what was replicated"
TWIN = "twin"

_CHOOSE = (
    "Choose: `headwater replication resend` sends everything that the local log still holds, "
    "`headwater replication accept` goes on where the record says."
)


class GoOn(NamedTuple):
    """Resume at these offsets per source; from `raise_from` on under at least `epoch` (a restored or copied card)."""

    positions: dict[str, int]
    raise_from: dict[str, int]
    epoch: int
    note: str


class Halt(NamedTuple):
    """Stop replicating until the operator has chosen."""

    reason: str
    detail: str
    hint: str


class Found(NamedTuple):
    """What the central has: my record (None: none), cluster, topics by source topic, and what is wrong at `at` ("")."""

    record: Progress | None
    cluster: str
    topics: Mapping[str, Topic]
    at_problem: str


class Local(NamedTuple):
    """What this node has. `was_up`: this process has replicated or was fenced: a foreign newest run is a twin."""

    node: str
    runs: Sequence[RunEntry]  # oldest first
    remembered: Remembered | None
    sources: Mapping[str, Source]
    was_up: bool
    txn_known: int  # the highest transaction known to be committed


def decide(found: Found, local: Local, choice: Choice | None = None) -> GoOn | Halt:
    """Where replication goes on, or why it must not."""
    record = found.record
    if record is None:
        return _without_record(local, choice)
    newest = record.runs[0][0] if record.runs else ""
    foreign = all(entry.run != newest for entry in local.runs)
    if foreign and local.was_up:
        return Halt(
            TWIN,
            f"another node writes under the name {local.node} (its run {newest} is not in this node's journal)",
            "Stop the copy, or give this one another name and a data directory of its own.",
        )
    problem = _central_problem(found, record, local)
    if problem and choice is None:
        return Halt(CENTRAL_CHANGED, problem, _CHOOSE)
    if choice == "resend":
        starts = {key: source.log_start_offset for key, source in local.sources.items()}
        note = "resending everything, as the operator chose"
        # What another history sent has the same numbers: these must not share its identities.
        return GoOn(starts, starts if foreign else {}, _epoch_above(record, local) if foreign else record.epoch, note)
    return _by_runs(record, local, foreign=foreign)


def _without_record(local: Local, choice: Choice | None) -> GoOn | Halt:
    starts = {key: source.log_start_offset for key, source in local.sources.items()}
    known = local.remembered
    if choice == "resend":
        return GoOn(starts, {}, 0, "no record yet: from the log's start")
    if known is None and local.txn_known == 0:
        # From 0: what has expired by now is then named as gone.
        return GoOn(dict.fromkeys(starts, 0), {}, 0, "no record yet: from the log's start")
    if choice == "accept":
        done = known.done if known is not None else {}
        return GoOn({key: max(start, done.get(key, 0)) for key, start in starts.items()}, {}, 0, "as last remembered")
    transaction = max(local.txn_known, known.txn if known is not None else 0)
    return Halt(
        PROGRESS_LOST,
        f"the central has no progress record of {local.node}, yet transaction {transaction} was committed there",
        _CHOOSE,
    )


def _central_problem(found: Found, record: Progress, local: Local) -> str:
    if record.to.cluster != found.cluster:
        return f"the cluster is {found.cluster}, and the record was written for {record.to.cluster}"
    for name, (topic_id, partition) in record.to.topics.items():
        topic = found.topics.get(name)
        if topic is None or partition not in topic.leaders:
            if name in found.topics or any(source.topic == name for source in local.sources.values()):
                return f"topic {name} has no partition {partition} any more"
        elif topic.topic_id and topic_id and topic.topic_id != topic_id:
            return f"topic {name} was deleted and created again"
    known = local.remembered
    txn_known = max(local.txn_known, known.txn if known is not None and known.cluster == found.cluster else 0)
    if record.txn < txn_known:
        return f"the record is of transaction {record.txn}, yet {txn_known} was committed"
    return found.at_problem


def _epoch_above(record: Progress, local: Local) -> int:
    return max([record.epoch, *(source.leader_epoch for source in local.sources.values())]) + 1


def _by_runs(record: Progress, local: Local, *, foreign: bool) -> GoOn | Halt:
    mine = {entry.run: number for number, entry in enumerate(local.runs)}
    common = next((number for number, (run, _) in enumerate(record.runs) if run in mine), None)
    if common is None:
        return Halt(
            NO_COMMON_RUN,
            f"the central's record of {local.node} was written by a node with another history",
            "Two nodes of one name, or a new card: another name, or `headwater replication resend`.",
        )
    after = local.runs[mine[record.runs[common][0]] + 1 :]
    theirs = record.runs[common - 1][1] if common else None
    positions, raise_from = {}, {}
    for key, source in local.sources.items():
        part = record.parts.get(key)
        # Offsets at which the two histories part: nothing above is common, whatever its number.
        parted = min(
            after[0].first.get(key, 0) if after else 1 << 62,
            theirs.get(key, 0) if theirs is not None else 1 << 62,
        )
        done = part.done if part is not None else 0
        resume = min(done, parted)
        if part is not None and (halt := _verify(key, part, source, resume)) is not None:
            return halt
        positions[key] = resume
        if foreign or done > parted:
            raise_from[key] = min(parted, source.log_end_offset)
    if raise_from:
        note = "restored or copied card: the newest records there were written by another run"
        return GoOn(positions, raise_from, _epoch_above(record, local), note)
    return GoOn(positions, {}, record.epoch, "where the central's record says")


def _verify(key: str, part: Part, source: Source, resume: int) -> Halt | None:
    if resume > source.synced_offset:
        return Halt(
            LOG_SHORTER,
            f"{key} was replicated up to {resume} and ends at {source.synced_offset}",
            "Records at the central are gone from the local log; `headwater replication resend` goes on anyway.",
        )
    for offset, value in part.chain:
        if source.log_start_offset < offset <= resume:
            ours = None
            with suppress(OSError, CorruptBatch):  # an unreadable stretch says nothing of whose history this is
                ours = source.chain_at(offset)
            if ours is not None and f"{ours:016x}" != value:
                return Halt(
                    LOG_DIFFERS,
                    f"{key} up to offset {offset} is not what was replicated (chain {ours:016x}, not {value})",
                    "This data directory is of another history: give the node another name and a directory of its own.",
                )
    return None
