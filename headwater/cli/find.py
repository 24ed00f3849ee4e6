"""Which node a command means when nobody says.

The order: `--config`; `./headwater.toml`; `$HEADWATER_CONFIG`; `/etc/headwater/headwater.toml`; then the one node of
this user that runs on this machine.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from headwater.errors import UserError

LOCAL = "headwater.toml"
VARIABLE = "HEADWATER_CONFIG"
SYSTEM = "/etc/headwater/headwater.toml"


class NodeRef(NamedTuple):
    """A node by its data directory; it may be running or not."""

    node: str
    data_dir: str
    config: str


def config_file(option: str | None) -> str | None:
    """The configuration that a command means, or None when there is none anywhere. Raises UserError for ""."""
    if option is not None:
        return named(option)
    if os.path.isfile(LOCAL):
        return os.path.abspath(LOCAL)
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    return SYSTEM if os.path.isfile(SYSTEM) else None


def named(option: str) -> str:
    """The file that somebody named; raises UserError for "", which is no file and none left out."""
    if not option:
        raise UserError(
            "the name of the configuration file is empty",
            hint="Name a file. Perhaps a variable in your command has no value.",
        )
    return option


def need_config(option: str | None) -> str:
    """The configuration that a command means; raises UserError saying where it was sought."""
    found = config_file(option)
    if found is None:
        raise UserError(
            f"no configuration: there is no ./{LOCAL}, no ${VARIABLE} and no {SYSTEM}",
            hint="Write one here with `headwater init edge`, or name one with --config FILE.",
        )
    return found


def find_node(option: str | None) -> NodeRef:
    """The node that a command means; raises UserError when there is none, or several to choose from."""
    found = config_file(option)
    if found is not None:
        from headwater.settings.load import load_settings

        settings = load_settings(found).settings
        return NodeRef(settings.node, settings.data_dir, found)
    from headwater.app.registry import running_nodes

    nodes = running_nodes()
    if len(nodes) == 1:
        return NodeRef(nodes[0].node, nodes[0].data_dir, nodes[0].config)
    if nodes:
        listed = "\n".join(f"  {one.node}: --config {one.config}" for one in nodes)
        raise UserError(f"{len(nodes)} nodes run here; which one?\n{listed}", hint="Name one with --config FILE.")
    need_config(None)
    raise AssertionError  # need_config has raised


def need_status(option: str | None) -> dict[str, Any]:
    """The status of the node that a command means; raises UserError when it does not run."""
    from headwater.app.control import read_status

    ref = find_node(option)
    status = read_status(ref.data_dir)
    if status is None:
        hint = f"Start it with `headwater run --config {ref.config}`."
        raise UserError(f"node {ref.node} does not run (data in {ref.data_dir})", hint=hint)
    return status


def kafka_address(status: dict[str, Any]) -> tuple[str, int]:
    """Where a running node's own Kafka listener is reached from this machine."""
    from headwater.net import parse_address

    host, port = parse_address(status["addresses"]["kafka"])
    return ("127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host), port
