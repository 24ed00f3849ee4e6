"""What a member cannot go on with, and the way out, which is a person's to choose."""

from __future__ import annotations

from headwater.errors import UserError

_REBUILD = (
    "Start it once with --rebuild: it forgets its state and computes everything again from the start of the log;"
    " results keep their keys."
)


def other_partitions(topic: str, now: int, before: int) -> UserError:
    """A topic was given more partitions, or made anew with another number of them."""
    return UserError(
        f"{topic} has {now} partitions, and this group's state was made with {before}:"
        " keys have moved to other partitions, and their state with them cannot",
        hint=f"{_REBUILD} Or give the group another name.",
    )


def lost_records(topic: str, partition: int, end: int, said: int) -> UserError:
    """A log ends before what the group's results hold."""
    return UserError(
        f"{topic}/{partition} ends at offset {end}, and this group has read up to {said}:"
        " the cluster has lost records, or the topic was made anew; results and state hold what is gone",
        hint=_REBUILD,
    )
