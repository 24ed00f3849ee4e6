"""`headwater config check|show|schema`: declarations only, as in `main`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headwater.cli.options import AsJson, Config

config_app = typer.Typer(
    help="Look at a configuration: check, show, schema.", no_args_is_help=True, rich_markup_mode=None
)


@config_app.command("check")
def config_check(
    file: Annotated[
        str | None,
        typer.Argument(help="A node's file, a rule file, or that of a group; ./headwater.toml when left out."),
    ] = None,
) -> None:
    """Say whether a configuration is good, naming every mistake with file and line, and what changed rules keep.

    \b
    Examples:
      headwater config check
      headwater config check /etc/headwater/headwater.toml
      headwater config check my-rules.toml
      headwater config check process.toml
    """
    from headwater.cli.config import check

    check(file)


@config_app.command("show")
def config_show(config: Config = None, as_json: AsJson = False) -> None:
    """Print the configuration as the node sees it: merged, defaults filled in, secrets masked."""
    from headwater.cli.config import show

    show(config, as_json=as_json)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a node's file, for editors that complete and check TOML."""
    from headwater.cli.config import schema_text

    sys.stdout.write(schema_text())
