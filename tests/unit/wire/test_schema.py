"""Our tables against the JSON that kafka-python ships: field by field, version by version."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gateway.wire.schema import ALL_VERSIONS, MESSAGES, REQUIRED, SERVED, ApiKey, Field, Message, within, zero_of

SHIPPED = [message for message in MESSAGES.values() if message.key is not None]
# Where a table says something else than the JSON, and why.
RENAMED = {f"v3_and_below_{name}": name for name in ("transactional_id", "producer_id", "producer_epoch", "topics")} | {
    "results_by_topic_v3_and_below": "results_by_topic"
}
OTHER_DEFAULTS = {("ListOffsets", "replica_id"): -1}  # a client is no replica; the JSON leaves 0


def shipped(name: str) -> dict[str, Any]:
    # Not through an import: kafka-python's own import warns about itself.
    spec = find_spec("kafka")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / f"protocol/schemas/resources/{name}.json").read_text()
    found: dict[str, Any] = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    return found


def snake(name: str) -> str:
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return RENAMED.get(plain, plain)


def span(text: str | None) -> tuple[int, int]:
    if text is None or text == "none":
        return (1, 0)
    low, _, high = text.partition("-")
    if text.endswith("+"):
        return int(text[:-1]), ALL_VERSIONS[1]
    return int(low), int(high or low)


def theirs(fields: list[dict[str, Any]], common: dict[str, list[dict[str, Any]]], version: int) -> list[Any]:
    """The layout of one version in a form that both sides can be brought to."""
    layout = []
    for field in fields:
        if not within(version, span(field["versions"])):
            continue
        kind = field["type"].removeprefix("[]")
        inner = field.get("fields") or common.get(kind)
        tagged = within(version, span(field.get("taggedVersions")))
        entry = (
            snake(field["name"]),
            "struct" if inner else kind,
            field["type"].startswith("[]"),
            within(version, span(field.get("nullableVersions"))),
            field["tag"] if tagged else None,
            theirs(inner, common, version) if inner else [],
        )
        layout.append(entry)
    return layout


def ours(fields: tuple[Field, ...], version: int) -> list[Any]:
    return [
        (f.name, f.type, f.array, within(version, f.nullable), f.tag, ours(f.fields, version))
        for f in fields
        if within(version, f.versions)
    ]


def their_defaults(fields: list[dict[str, Any]], common: dict[str, Any], path: str = "") -> dict[str, Any]:
    found = {}
    for field in fields:
        kind = field["type"].removeprefix("[]")
        inner = field.get("fields") or common.get(kind)
        name = f"{path}{snake(field['name'])}"
        found[name] = (field.get("default"), "struct" if inner else kind, field["type"].startswith("[]"))
        if inner:
            found |= their_defaults(inner, common, name + ".")
    return found


def our_defaults(fields: tuple[Field, ...], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for field in fields:
        found[path + field.name] = field.default
        found |= our_defaults(field.fields, f"{path}{field.name}.")
    return found


def as_value(default: Any, kind: str, *, array: bool) -> object:
    if default is None:
        return zero_of(kind, array=array)
    if default == "null":
        return None
    if kind == "bool":
        return str(default).lower() == "true"
    return str(default) if kind == "string" else int(str(default), 0)


def both_sides(message: Message) -> list[tuple[tuple[Field, ...], dict[str, Any]]]:
    return [
        (message.request, shipped(message.name + "Request")),
        (message.response, shipped(message.name + "Response")),
    ]


@pytest.mark.parametrize("message", SHIPPED, ids=lambda message: message.name)
def test_the_table_is_the_protocol_field_by_field(message: Message) -> None:
    for fields, spec in both_sides(message):
        common = {entry["name"]: entry["fields"] for entry in spec.get("commonStructs", [])}
        assert spec["apiKey"] == message.key
        low, high = span(spec["validVersions"])
        assert low <= message.versions[0]
        assert message.versions[1] <= high
        for version in range(message.versions[0], message.versions[1] + 1):
            assert message.is_flexible(version) == within(version, span(spec["flexibleVersions"])), version
            assert ours(fields, version) == theirs(spec["fields"], common, version), version


@pytest.mark.parametrize("message", SHIPPED, ids=lambda message: message.name)
def test_defaults_are_kafkas(message: Message) -> None:
    for fields, spec in both_sides(message):
        common = {entry["name"]: entry["fields"] for entry in spec.get("commonStructs", [])}
        expected = their_defaults(spec["fields"], common)
        for name, default in our_defaults(fields).items():
            if default is REQUIRED or (default is None and expected[name][1] == "struct"):
                continue
            if (message.name, name) in OTHER_DEFAULTS:
                assert default == OTHER_DEFAULTS[message.name, name]
                continue
            assert default == as_value(expected[name][0], expected[name][1], array=expected[name][2]), name


def test_what_is_served_is_what_the_contract_with_the_clients_says() -> None:
    # librdkafka, kcat, kafka-python, aiokafka, the Java client and franz-go were seen to negotiate within these.
    assert SERVED == {
        ApiKey.PRODUCE: (3, 12),
        ApiKey.FETCH: (4, 12),
        ApiKey.LIST_OFFSETS: (1, 9),
        ApiKey.METADATA: (0, 12),
        ApiKey.OFFSET_COMMIT: (2, 9),
        ApiKey.OFFSET_FETCH: (1, 9),
        ApiKey.FIND_COORDINATOR: (0, 5),
        ApiKey.JOIN_GROUP: (0, 9),
        ApiKey.HEARTBEAT: (0, 4),
        ApiKey.LEAVE_GROUP: (0, 5),
        ApiKey.SYNC_GROUP: (0, 5),
        ApiKey.DESCRIBE_GROUPS: (0, 5),
        ApiKey.LIST_GROUPS: (0, 4),
        ApiKey.SASL_HANDSHAKE: (0, 1),
        ApiKey.API_VERSIONS: (0, 4),
        ApiKey.CREATE_TOPICS: (2, 7),
        ApiKey.DELETE_TOPICS: (1, 6),
        ApiKey.DELETE_RECORDS: (0, 2),
        ApiKey.INIT_PRODUCER_ID: (0, 4),
        ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
        ApiKey.ADD_PARTITIONS_TO_TXN: (0, 3),
        ApiKey.ADD_OFFSETS_TO_TXN: (0, 3),
        ApiKey.END_TXN: (0, 3),
        ApiKey.TXN_OFFSET_COMMIT: (0, 3),
        ApiKey.DESCRIBE_CONFIGS: (1, 4),
        ApiKey.SASL_AUTHENTICATE: (0, 2),
        ApiKey.CREATE_PARTITIONS: (0, 3),
        ApiKey.DELETE_GROUPS: (0, 2),
        ApiKey.INCREMENTAL_ALTER_CONFIGS: (0, 1),
        ApiKey.DESCRIBE_CLUSTER: (0, 1),
    }
