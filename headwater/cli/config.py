"""`headwater config check|show|schema`."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from headwater.cli.find import need_config
from headwater.errors import UserError
from headwater.settings.load import holds_rules, load_settings, masked
from headwater.settings.model import Settings
from headwater.settings.schema import settings_schema
from headwater.toml.source import table_of


def check(file: str | None) -> None:
    """Print what the node would do, secrets masked, or raise a UserError that names every mistake.

    Of a rule file: what it holds. Of the file of `headwater process`: what a member of that group would do.
    """
    from headwater.app.parts import check_parts, warnings
    from headwater.cli.config_group import check_group, is_group_file

    path = need_config(file)
    if is_group_file(path):
        check_group(path)
        return
    if is_rule_file(path):
        check_rules(path)
        return
    loaded = load_settings(path)
    settings = loaded.settings
    parts = check_parts(settings)
    shown = masked(loaded)
    does = [f"serves Kafka on {shown['kafka']['listen']}"]
    does += [f"serves Kafka by {each['protocol']} on {each['listen']}" for each in shown["kafka"]["listeners"]]
    if shown["mqtt"] is not None:
        does.append(f"takes MQTT on {shown['mqtt']['listen']}")
        if shown["mqtt"]["tls"] is not None:
            does.append(f"takes MQTT over TLS on {shown['mqtt']['tls']['listen']}")
    does += [f"reads the broker at {broker['address']}" for broker in shown["mqtt_client"]]
    does += [f"reads serial port {port['port']}" for port in shown["serial"]]
    if shown["central"] is not None:
        does.append(f"replicates to the central {shown['central']['bootstrap_servers']}")
    does += parts
    if shown["page"] is not None:
        does.append(f"shows its page on {shown['page']['listen']}")
    print(f"ok: {', '.join(loaded.files)}")
    print(f"{settings.role} node {shown['node']}, data in {shown['data_dir']}")
    for line in does:
        print(f"  {line}")
    for line in [*warnings(settings), *partition_warnings(settings)]:
        print(f"warning: {line}")
    for line in rule_changes(settings):
        print(f"at the next start {line}")


def is_rule_file(path: str) -> bool:
    """Whether a file holds rules and nothing else; one that cannot be read does not."""
    return holds_rules(table_of(path))


def check_rules(path: str) -> None:
    """Print what a rule file holds, or raise a UserError that names every mistake."""
    from headwater.app.parts import rule_warnings
    from headwater.cli.config_group import held
    from processors.rules.files import load_rules

    try:
        rules = load_rules([path])
    except UserError as error:
        hint = (
            "Files that are named together are read together: what stands in another one, only the node's file knows."
        )
        raise UserError(error.what, hint=f"{error.hint} {hint}") from None
    print(f"ok: {path}")
    print(f"a rule file: {held(rules)}")
    print(f'  used where it is named, in a node\'s file or in that of `headwater process`: rules = ["{path}"]')
    for line in rule_warnings([path]):
        print(f"warning: {line}")


def partition_warnings(settings: Settings) -> list[str]:
    """That the log has another number of partitions than the file says."""
    wanted = settings.topics.readings_partitions
    try:
        names = os.listdir(os.path.join(settings.data_dir, "log"))
    except OSError:
        return []  # there is no log yet
    count = sum(bool(re.fullmatch(r"readings-\d+", name)) for name in names)
    if count in (0, wanted):
        return []
    return [
        f"topic readings keeps its {count} partitions: readings_partitions = {wanted} counts at the first start only"
    ]


def rule_changes(settings: Settings) -> list[str]:
    """What would become of the states that the node's processors have, by their checkpoint."""
    if not settings.rules:
        return []
    from processors.checkpoint import CheckpointError, decode_checkpoint
    from processors.rules.evolution import preview_all
    from processors.rules.files import load_rules

    path = os.path.join(settings.data_dir, "work", "processors.checkpoint")
    try:
        with open(path, "rb") as file:
            checkpoint = decode_checkpoint(file.read())
    except (OSError, CheckpointError):
        return []  # there is none yet, or it will be made anew
    states = {source: saved.state for source, saved in checkpoint.inputs.items()}
    return preview_all(states, load_rules(settings.rules), settings.processors.place, "processors")


def show(file: str | None, *, as_json: bool) -> None:
    """Print the settings in force, secrets masked."""
    values = masked(load_settings(need_config(file)))
    sys.stdout.write(json.dumps(values, indent=2) + "\n" if as_json else to_toml(values))


def schema_text() -> str:
    """The JSON Schema as committed."""
    return json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"


def to_toml(table: dict[str, Any]) -> str:
    """A table of plain values as TOML; None is left out, since TOML has no such value."""
    lines: list[str] = []
    _write_table(table, "", lines)
    return "\n".join(lines) + "\n"


def _write_table(table: dict[str, Any], name: str, lines: list[str]) -> None:
    nested = {key: value for key, value in table.items() if _is_section(value)}
    for key, value in table.items():
        if key not in nested and value is not None:
            lines.append(f"{key} = {_toml_value(value)}")
    for key, value in nested.items():
        path = f"{name}.{key}" if name else key
        for one in [value] if isinstance(value, dict) else value:
            lines += ["", f"[{path}]" if isinstance(value, dict) else f"[[{path}]]"]
            _write_table(one, path, lines)


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
    )


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(one) for one in value) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_toml_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inside} }}"
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and booleans are TOML's too
