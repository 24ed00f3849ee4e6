"""Kafka's small text files: offset checkpoints, leader epochs, partition.metadata, meta.properties.

Decoders raise `ValueError` for damage; each caller knows what the file can be rebuilt from.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

LEADER_EPOCHS = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"
META_PROPERTIES = "meta.properties"
RECOVERY_POINTS = "recovery-point-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
CLEANED = "cleaner-offset-checkpoint"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
CLEAN_SHUTDOWN_BYTES = b'{"version":0,"brokerEpoch":-1}'

Offsets = dict[tuple[str, int], int]
UNKNOWN = -1
"""In place of a recovery point; `UNKNOWN - P` where all below P is on disk, and nobody can tell of what is above.

A broker reads a log with such a point whole.
"""


def encode_id(raw: bytes) -> str:
    """Kafka's text form of a 16-byte UUID: 22 characters of URL-safe base64."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_id(text: str) -> bytes:
    """The inverse. Raises `ValueError`."""
    raw = base64.urlsafe_b64decode(text + "==")
    if len(raw) != 16:
        raise ValueError(f"“{text}” is no 16-byte id")
    return raw


def encode_offsets(offsets: Mapping[tuple[str, int], int]) -> bytes:
    """`0`, the count, then `topic partition offset` a line."""
    lines = [f"{topic} {partition} {offset}\n" for (topic, partition), offset in sorted(offsets.items())]
    return f"0\n{len(lines)}\n{''.join(lines)}".encode()


def decode_offsets(data: bytes) -> Offsets:
    """Raises `ValueError`."""
    rows = _rows(data, 3)
    return {(topic, int(partition)): int(offset) for topic, partition, offset in rows}


def encode_epochs(epochs: Iterable[tuple[int, int]]) -> bytes:
    """`0`, the count, then `epoch start-offset` a line."""
    lines = [f"{epoch} {start}\n" for epoch, start in epochs]
    return f"0\n{len(lines)}\n{''.join(lines)}".encode()


def decode_epochs(data: bytes) -> list[tuple[int, int]]:
    """Epochs with their start offsets, ascending. Raises `ValueError`."""
    epochs = [(int(epoch), int(start)) for epoch, start in _rows(data, 2)]
    if epochs != sorted(dict(epochs).items()):
        raise ValueError("leader epochs that do not ascend")
    return epochs


def _rows(data: bytes, width: int) -> list[list[str]]:
    *lines, rest = data.decode("ascii").split("\n")
    if rest or len(lines) < 2:
        raise ValueError("checkpoint without its last line break")  # a digit there would be another offset
    version, count, *lines = lines
    rows = [line.split(" ") for line in lines]
    if version != "0" or int(count) != len(rows) or any(len(row) != width for row in rows):
        raise ValueError("damaged checkpoint")
    return rows


def encode_partition_metadata(topic_id: bytes) -> bytes:
    """Two lines, the last without an end, as Kafka writes them."""
    return f"version: 0\ntopic_id: {encode_id(topic_id)}".encode()


def decode_partition_metadata(data: bytes) -> bytes:
    """The topic id. Raises `ValueError`."""
    fields = dict(line.split(": ", 1) for line in data.decode("ascii").splitlines())
    if fields.get("version") != "0":
        raise ValueError("partition.metadata of an unknown version")
    return decode_id(fields.get("topic_id", ""))


def encode_properties(properties: Mapping[str, str], when: str) -> bytes:
    """A Java properties file as Kafka's tools write it: an empty comment, the date, then sorted pairs."""
    return "\n".join(["#", f"#{when}", *(f"{key}={value}" for key, value in sorted(properties.items())), ""]).encode()


def decode_properties(data: bytes) -> dict[str, str]:
    """Raises `ValueError`."""
    lines = [line.strip() for line in data.decode("ascii").splitlines()]
    return dict(line.split("=", 1) for line in lines if line and line[0] not in "#!")
