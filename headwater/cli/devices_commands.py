"""`headwater devices list`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import AsJson, Config

devices_app = typer.Typer(help="The devices that a node knows.", no_args_is_help=True, rich_markup_mode=None)


@devices_app.callback()
def _group() -> None:
    """Keeps `devices` a group while it has one command."""


@devices_app.command("list")
def devices_list(
    config: Config = None,
    pattern: Annotated[str, typer.Argument(help="Only these, for example 'edge-1/pump-*'.")] = "*",
    stale: Annotated[bool, typer.Option("--stale", help="Only those that are silent for too long.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a running node's devices: when each was last seen, its readings, profile, and whether it is stale.

    Last seen and readings are those of the last 200,000 records of each partition of topic readings. Stale is what has
    been silent for three times the interval that its profile expects. At a central the devices of all nodes are listed.

    \b
    Examples:
      headwater devices list
      headwater devices list 'ridge-7/*' --stale
    """
    import asyncio

    from headwater.cli.devices import show

    asyncio.run(show(config, pattern, stale=stale, as_json=as_json))
