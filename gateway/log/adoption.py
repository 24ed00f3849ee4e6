"""Finding topics whose directories are there while no list names them.

The list was lost, not the data; or the directories are those of an Apache Kafka broker, copied here.
"""

from __future__ import annotations

import re
from collections.abc import Container

from gateway.log import checkpoints
from gateway.log.catalog import TopicEntry, new_id
from headwater.disk import Disk, read_or_none

_DIRECTORY = re.compile(r"(.+)-(\d+)")
# What a broker keeps of its cluster lies beside its topics and is none.
_NO_TOPICS = frozenset({"__cluster_metadata"})
_COMPACTED = frozenset({"__consumer_offsets", "__transaction_state"})


def partition_of(directory: str) -> tuple[str, int] | None:
    """The topic and partition that a directory's name says; None for what is none, or is on its way out."""
    match = _DIRECTORY.fullmatch(directory)
    if match is None or directory.endswith("-delete") or match[1] in _NO_TOPICS:
        return None
    return match[1], int(match[2])


def find_unlisted(disk: Disk, log_dir: str, listed: Container[str], *, list_known: bool) -> dict[str, TopicEntry]:
    """Entries for topics that no list names, from their directories; their settings are lost.

    With a good list (`list_known`), a directory without batches is a topic whose creation a crash ended before anybody
    heard of it, and is left out.
    """
    found: dict[str, int] = {}
    for directory in disk.names(log_dir):
        place = partition_of(directory)
        if place is None or place[0] in listed:
            continue
        if list_known and not _holds_batches(disk, f"{log_dir}/{directory}"):
            continue
        topic, number = place
        found[topic] = max(found.get(topic, 0), number + 1)
    return {
        name: TopicEntry(
            id=_found_id(disk, f"{log_dir}/{name}-0"),
            partitions=partitions,
            config={"cleanup.policy": "compact"} if name in _COMPACTED else {},
        )
        for name, partitions in found.items()
    }


def _holds_batches(disk: Disk, directory: str) -> bool:
    for name in disk.names(directory):
        if name.endswith(".log"):
            handle = disk.open(f"{directory}/{name}")
            size = disk.size(handle)
            disk.close(handle)
            if size:
                return True
    return False


def _found_id(disk: Disk, directory: str) -> str:
    try:
        metadata = read_or_none(disk, f"{directory}/{checkpoints.PARTITION_METADATA}") or b""
        return checkpoints.encode_id(checkpoints.decode_partition_metadata(metadata))
    except ValueError:
        return new_id()
