"""Read the file of `headwater process`, a mistake named with its line as in a node's file."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from headwater import resources
from headwater.errors import UserError
from headwater.net import parse_address
from headwater.settings.load import read_secrets, refuse_rules, resolve_paths
from headwater.toml.check import convert, shape_of
from headwater.toml.places import Path
from headwater.toml.source import Source, read_source
from processors.group.settings import GroupSettings


def load_group(file: str, *, environ: Mapping[str, str] = os.environ) -> GroupSettings:
    """Raises `UserError` naming every mistake."""
    file = os.path.abspath(file)
    source = read_source(file)
    refuse_rules(source)
    source.expand(environ)
    secrets: set[Path] = set()
    read_secrets(source, source.table, shape_of(GroupSettings), (), secrets)
    settings = convert(source, GroupSettings)
    if settings is not None:
        settings = msgspec.convert(resolve_paths(msgspec.to_builtins(settings), os.path.dirname(file)), GroupSettings)
        _check(source, settings)
    if settings is None or source.problems:
        raise UserError("\n".join(source.problems), hint="Mend the above; docs/processors.md describes every key.")
    return settings


def _check(source: Source, settings: GroupSettings) -> None:
    for address in settings.bootstrap_servers.split(","):
        try:
            parse_address(address.strip(), default_port=9092)
        except UserError as error:
            source.problem(("bootstrap_servers",), f"bootstrap_servers: {error.what}; write host:port")
    if settings.transaction_timeout_ms <= settings.commit_every_ms:
        fault = f"the cluster would give up what is committed every {settings.commit_every_ms} ms (commit_every_ms)"
        source.problem(("transaction_timeout_ms",), f"transaction_timeout_ms: {fault}; make it longer than that")
    if settings.metrics_listen is not None:
        try:
            parse_address(settings.metrics_listen)
        except UserError as error:
            source.problem(("metrics_listen",), f"metrics_listen: {error.what}; write host:port")
    if not settings.rules:
        source.problem(("rules",), "rules: there is nothing to do")
    shipped = resources.config_names("rules")
    for index, name in enumerate(settings.rules):
        if name.endswith(".toml") and not os.path.isfile(name):
            source.problem(("rules", index), f"rules: there is no file {name}")
        elif not name.endswith(".toml") and name not in shipped:
            known = ", ".join(shipped)
            source.problem(("rules", index), f"rules: “{name}” is not shipped (there is {known}; a path ends in .toml)")
    try:
        settings.check_security("the file")
    except UserError as error:
        source.problem(("security_protocol",), f"{error.what}; {error.hint}")
