"""What a node knows of its data directory beyond the batches: whose it is, which format, the topics and their settings.

`<data>/node/identity.json` and `<data>/node/topics.json`, each twice and with a checksum (`headwater.sealed`); they
are replaced whole: a power cut leaves the old or the new one.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from gateway.log import checkpoints
from gateway.log.errors import InvalidTopic
from headwater.disk import Disk, read_or_none
from headwater.errors import UserError
from headwater.sealed import mend_sealed, read_sealed, write_sealed

FORMAT = 1
_KAFKA_NODE_ID = "1"
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_PARTITIONS_MAX = 1_000
# What may lie in a new data directory: a mount's own entry and a configuration that its user put there.
_HARMLESS = re.compile(r"\..*|lost\+found|conf\.d|.*\.toml")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose data directory it is."""

    format: int
    node: str
    cluster_id: str
    directory_id: str


class TopicEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One topic; `id` in Kafka's text form. `deleting` while its directories are being removed.

    `deleted` is by partition number the offset that its log starts at because clients have deleted what is below.
    """

    id: str
    partitions: int
    config: dict[str, str]
    deleting: bool = False
    deleted: dict[str, int] = {}


class _Topics(msgspec.Struct, kw_only=True):
    format: int
    topics: dict[str, TopicEntry]


def new_id() -> str:
    """A random UUID (version 4) in Kafka's text form; never with a leading dash, which its tools take for an option."""
    while True:
        raw = bytearray(secrets.token_bytes(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        text = checkpoints.encode_id(bytes(raw))
        if not text.startswith("-"):
            return text


def _check_format(node_dir: str, fields: dict[str, Any]) -> None:
    """Raises `UserError` for a format that is not known yet, whatever else it holds; `ValueError` for none at all."""
    form = msgspec.convert(fields.get("format"), int)
    if form > FORMAT:
        whose = f"{node_dir.removesuffix('/node')} was written by a newer Headwater"
        raise UserError(
            f"{whose} (format {form}; this one knows {FORMAT})",
            hint="Install that version again, or choose another data_dir.",
        )
    if form < 1:
        raise ValueError(f"there is no format {form}")


def _builtins(identity: Identity) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(identity)
    return fields


def _read_identity(disk: Disk, node_dir: str) -> Identity | None:
    """Raises `UserError` for a newer format."""

    def convert(fields: dict[str, Any]) -> Identity:
        _check_format(node_dir, fields)
        return msgspec.convert(fields, Identity)

    return read_sealed(disk, f"{node_dir}/identity.json", convert)


def _read_topics(disk: Disk, node_dir: str) -> dict[str, TopicEntry] | None:
    """Raises `UserError` for a newer format."""

    def convert(fields: dict[str, Any]) -> dict[str, TopicEntry]:
        _check_format(node_dir, fields)
        topics = msgspec.convert(fields, _Topics).topics
        for entry in topics.values():
            checkpoints.decode_id(entry.id)
        return topics

    return read_sealed(disk, f"{node_dir}/topics.json", convert)


def _list_of(topics: Mapping[str, TopicEntry]) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(_Topics(format=FORMAT, topics=dict(topics)))
    return fields


def read_entries(disk: Disk, node_dir: str) -> Mapping[str, TopicEntry]:
    """The list of topics as it stands, for tools that only look; empty when it is missing or damaged.

    Raises `UserError` for a newer format.
    """
    return _read_topics(disk, node_dir) or {}


def read_node(disk: Disk, node_dir: str) -> str | None:
    """The name of the node that a data directory belongs to; None when it does not say.

    Raises `UserError` for a newer format.
    """
    try:
        found = _read_identity(disk, node_dir)
    except NotADirectoryError:
        return None
    return None if found is None else found.node


def write_properties(disk: Disk, log_dir: str, identity: Identity, wall_ms: int) -> None:
    """Kafka's own word on whose directory it is, `meta.properties`, where it does not say so yet."""
    path = f"{log_dir}/{checkpoints.META_PROPERTIES}"
    wanted = {
        "cluster.id": identity.cluster_id,
        "directory.id": identity.directory_id,
        "node.id": _KAFKA_NODE_ID,
        "version": "1",
    }
    try:
        if checkpoints.decode_properties(read_or_none(disk, path) or b"") == wanted:
            return
    except ValueError:
        pass
    when = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(wall_ms / 1_000))
    disk.replace_file(path, checkpoints.encode_properties(wanted, when))


def check_topic_name(name: str) -> None:
    """Raises `InvalidTopic` for what Kafka would not take either."""
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidTopic(
            f"“{name}” cannot be a topic's name",
            hint="Use up to 249 letters, digits, dots, underscores and dashes.",
        )


def check_collision(name: str, others: Iterable[str]) -> None:
    """Raises `InvalidTopic` where Kafka's metrics could not tell the two apart."""
    for other in others:
        if other.replace(".", "_") == name.replace(".", "_"):
            raise InvalidTopic(f"Topic {name} would collide with {other}, which differs only in “.” and “_”")


def check_partitions(name: str, partitions: int) -> None:
    """Raises `InvalidTopic`."""
    if not 1 <= partitions <= _PARTITIONS_MAX:
        raise InvalidTopic(
            f"Topic {name} cannot have {partitions} partitions", hint=f"Choose between 1 and {_PARTITIONS_MAX}."
        )


class Catalog:
    """The two files, read at open and replaced at each change; a new topic may be put there by another thread."""

    def __init__(self, disk: Disk, data_dir: str) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._node_dir = f"{data_dir}/node"
        self._lock = threading.Lock()
        self.topics: dict[str, TopicEntry] = {}
        self.rebuilt = False

    def check(self, node: str) -> Identity | None:
        """The directory's identity, None where it has none; nothing is written.

        Raises `UserError` when it is another node's, of a newer format, or not Headwater's.
        """
        identity = _read_identity(self._disk, self._node_dir)
        _read_topics(self._disk, self._node_dir)
        if identity is None:
            self.refuse_foreign()
        elif identity.node != node:
            raise UserError(
                f"{self._data_dir} belongs to node “{identity.node}”, and this node is “{node}”",
                hint="Give each node a data_dir of its own, or set node to the directory's name.",
            )
        return identity

    def identify(self, node: str) -> Identity:
        """The same, made durable; a new directory gets an identity."""
        identity = self.check(node)
        if identity is None:
            new = Identity(format=FORMAT, node=node, cluster_id=new_id(), directory_id=new_id())
            identity = self._adopt_properties(new)
        mend_sealed(self._disk, f"{self._node_dir}/identity.json", _builtins(identity))
        return identity

    def refuse_foreign(self) -> None:
        known = {"log", "node", "work"}
        others = [name for name in self._disk.names(self._data_dir) if name not in known and not _HARMLESS.match(name)]
        if others:
            raise UserError(
                f"{self._data_dir} is no Headwater data directory: it holds {', '.join(others[:3])}"
                + (" and more" if len(others) > 3 else ""),
                hint="Choose an empty or new directory as data_dir.",
            )

    def _adopt_properties(self, identity: Identity) -> Identity:
        try:
            path = f"{self._data_dir}/log/{checkpoints.META_PROPERTIES}"
            found = checkpoints.decode_properties(read_or_none(self._disk, path) or b"")
            cluster_id, directory_id = found["cluster.id"], found["directory.id"]
        except (ValueError, KeyError):
            return identity
        self.rebuilt = True
        return msgspec.structs.replace(identity, cluster_id=cluster_id, directory_id=directory_id)

    def read_topics(self) -> bool:
        """Fill `topics`; False when the file is missing or damaged and the directories must tell.

        Raises `UserError` for a newer format.
        """
        found = _read_topics(self._disk, self._node_dir)
        if found is None:
            return False
        self.topics = found
        return True

    def save(self) -> None:
        """Write whichever copy of the list is not as it should be. Raises `OSError`."""
        mend_sealed(self._disk, f"{self._node_dir}/topics.json", _list_of(self.topics))

    def put_topic(self, name: str, entry: TopicEntry) -> None:
        """Make a topic's entry durable. Raises `OSError`, with nothing changed."""
        with self._lock:
            self._replace({**self.topics, name: entry})

    def change_topic(self, name: str, changed: Callable[[TopicEntry], TopicEntry]) -> None:
        """The same for one that is there, made of what it is just now: other threads change entries too."""
        self.change_topics(lambda each, entry: changed(entry) if each == name else entry)

    def change_topics(self, changed: Callable[[str, TopicEntry], TopicEntry]) -> None:
        """The same for any of them, in one write; none when nothing is different."""
        with self._lock:
            topics = {name: changed(name, entry) for name, entry in self.topics.items()}
            if topics != self.topics:
                self._replace(topics)

    def drop_topic(self, name: str) -> None:
        with self._lock:
            self._replace({other: entry for other, entry in self.topics.items() if other != name})

    def _replace(self, topics: Mapping[str, TopicEntry]) -> None:
        write_sealed(self._disk, f"{self._node_dir}/topics.json", _list_of(topics))
        self.topics = dict(topics)
