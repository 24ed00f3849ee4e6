"""`headwater user add`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import Config

user_app = typer.Typer(help="Who may connect over the network: add.", no_args_is_help=True, rich_markup_mode=None)


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="The user's name; devices may share one.")],
    mqtt: Annotated[
        bool, typer.Option("--mqtt", help="May publish over MQTT (the default, and all there is yet).")
    ] = True,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and show it once.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Give a user that is there a new password.")] = False,
    config: Config = None,
) -> None:
    """Add a user to the node's users file; the password is asked for, or the first line of stdin.

    \b
    Examples:
      headwater user add pumps --mqtt --generate
      headwater user add meters --mqtt < password.txt
    """
    from headwater.cli.user import add

    add(name, config, generate=generate, replace=replace)
