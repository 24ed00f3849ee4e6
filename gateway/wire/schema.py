"""Reads the tables of `gateway.wire.tables` into messages and fields; no byte is touched here.

A message body is a plain `dict` with snake-case keys: integers, booleans, `str`, `bytes` (uuid: 16 of them),
lists, dicts for structures, and a `memoryview` for `records`. See `gateway.wire.compiler` for the codec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.wire import tables

ALL_VERSIONS = (0, 32767)
NO_VERSIONS = (1, 0)
ZERO_UUID = b"\x00" * 16

Versions = tuple[int, int]


class ApiKey(IntEnum):
    """The requests of the Kafka protocol that Headwater serves or sends."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    INCREMENTAL_ALTER_CONFIGS = 44
    DESCRIBE_CLUSTER = 60


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its type (`struct` has `fields`), and the versions in which it is there, nullable or tagged."""

    name: str
    type: str
    array: bool
    versions: Versions
    nullable: Versions
    tag: int | None
    default: object  # REQUIRED when the encoder must be given a value
    fields: tuple[Field, ...] = ()


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the protocol: its versions and the fields of its request and response."""

    name: str
    key: int | None
    versions: Versions
    flexible: int
    request: tuple[Field, ...]
    response: tuple[Field, ...]

    def is_flexible(self, version: int) -> bool:
        return version >= self.flexible


@dataclass(slots=True)
class _Open:
    """A structure whose closing brace has not come yet."""

    fields: list[Field] = field(default_factory=list)
    head: re.Match[str] | None = None


_FIELD = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(?::(?P<type>[a-z0-9]+))?(?P<array>\[\])?"
    r"(?:@(?P<versions>\d+(?:-\d+|\+)?))?(?P<null>\?(?:\d+(?:-\d+|\+)?)?)?(?:#(?P<tag>\d+))?(?:=(?P<default>\S*))?$"
)
_ZEROS: dict[str, object] = {"string": "", "bool": False, "uuid": ZERO_UUID, "bytes": b"", "struct": None}


def within(version: int, versions: Versions) -> bool:
    """Whether `version` lies in an inclusive range."""
    return versions[0] <= version <= versions[1]


def _versions(text: str) -> Versions:
    low, _, high = text.partition("-")
    if text.endswith("+"):
        return int(text[:-1]), ALL_VERSIONS[1]
    return int(low), int(high or low)


def _default(text: str | None, kind: str, *, array: bool) -> object:
    if text is None:
        return REQUIRED
    if text == "null":
        return None
    if array:
        return []
    if text in {"", "zero"}:
        return _ZEROS[kind]
    return text == "true" if kind == "bool" else int(text)


def _field(head: re.Match[str], fields: list[Field] | None) -> Field:
    kind = head["type"] or "struct"
    if (kind == "struct") != (fields is not None):
        raise ValueError(f"{head[0]}: exactly the fields with braces have no type")
    array, null, tag = bool(head["array"]), head["null"], head["tag"]
    nullable = NO_VERSIONS if null is None else _versions(null[1:]) if len(null) > 1 else ALL_VERSIONS
    default = _default(head["default"], kind, array=array)
    if tag is not None and kind == "struct" and not array:
        default = None  # a tagged structure that nobody set is not sent
    versions = _versions(head["versions"]) if head["versions"] else ALL_VERSIONS
    tag_number = None if tag is None else int(tag)
    return Field(head["name"], kind, array, versions, nullable, tag_number, default, tuple(fields or ()))


def _structure(tokens: Iterator[str]) -> tuple[tuple[Field, ...], str | None]:
    """Fields up to the end or to the word `response`; braces nest."""
    stack = [_Open()]
    stop = None
    for token in tokens:
        if token == "}":  # noqa: S105 - a word of the table
            done = stack.pop()
            if done.head is None:
                raise ValueError("a brace too many")
            stack[-1].fields.append(_field(done.head, done.fields))
        elif token in {"response", "request"}:
            stop = token
            break
        else:
            head = _FIELD.match(token.removesuffix("\0{"))
            if head is None:
                raise ValueError(f"not a field: {token}")
            if token.endswith("\0{"):
                stack.append(_Open(head=head))
            else:
                stack[-1].fields.append(_field(head, None))
    if len(stack) != 1:
        raise ValueError("a brace is not closed")
    return tuple(stack[0].fields), stop


def _message(text: str) -> Message:
    title, _, body = text.partition("\n")
    name, key, versions, word, flexible = title.split()
    if word != "flexible":
        raise ValueError(f"not a title: {title}")
    # A brace belongs to the field before it: tie the two together, then every token is one field or one `}`.
    tokens = iter(re.sub(r"\s+\{", "\0{", body).split())
    if next(tokens) != "request":
        raise ValueError(f"{name}: no request")
    request, stop = _structure(tokens)
    response = _structure(tokens)[0] if stop == "response" else ()
    first_flexible = ALL_VERSIONS[1] if flexible == "never" else int(flexible)
    return Message(name, None if key == "-" else int(key), _versions(versions), first_flexible, request, response)


def _load() -> dict[str, Message]:
    messages = {}
    for table in tables.ALL:
        for block in re.split(r"\n\n+", table.strip()):
            message = _message(block)
            messages[message.name] = message
    return messages


MESSAGES = _load()
BY_KEY: dict[int, Message] = {message.key: message for message in MESSAGES.values() if message.key is not None}
SERVED: dict[ApiKey, Versions] = {key: BY_KEY[key].versions for key in ApiKey}


def zero_of(kind: str, *, array: bool) -> object:
    """Kafka's implicit default of a type: 0, "", false, sixteen zero bytes, an empty array."""
    return [] if array else _ZEROS.get(kind, 0)
