"""`headwater replication status|resend|accept`: declarations only, as in `main`."""

from __future__ import annotations

import typer

from headwater.cli.options import AsJson, Config

replication_app = typer.Typer(
    help="The link to the central: its state, and the choice when it has stopped.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@replication_app.command("status")
def replication_status(config: Config = None, as_json: AsJson = False) -> None:
    """Show the link to the central. Exit 0 up, 1 down, 2 stopped until somebody chooses."""
    from headwater.cli.replication import show

    raise typer.Exit(show(config, as_json=as_json))


@replication_app.command("resend")
def replication_resend(config: Config = None) -> None:
    """Go on after a stop by sending everything that this node still holds.

    For a central that was recreated or lost its data. What it has already is there twice, with the same identity.
    """
    from headwater.cli.replication import choose

    choose(config, "resend")


@replication_app.command("accept")
def replication_accept(config: Config = None) -> None:
    """Go on after a stop where the central's own record says, sending nothing again.

    For a central that was truncated on purpose, or replaced by a copy.
    """
    from headwater.cli.replication import choose

    choose(config, "accept")
