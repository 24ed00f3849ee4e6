"""`headwater user …`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import Config

user_app = typer.Typer(
    help="Who may connect over the network: add, list, remove.", no_args_is_help=True, rich_markup_mode=None
)


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="The user's name; devices may share one.")],
    mqtt: Annotated[bool, typer.Option("--mqtt", help="May publish over MQTT (the default).")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="May sign in at [[kafka.listeners]].")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password and show it once.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give a user that is there a new password, for what is named here.")
    ] = False,
    config: Config = None,
) -> None:
    """Add a user to the node's users file; the password is asked for, or the first line of stdin.

    \b
    Examples:
      headwater user add pumps --mqtt --generate
      headwater user add token --kafka < api-key.txt
    """
    from headwater.cli.user import add

    purposes = frozenset(purpose for purpose, wanted in (("kafka", kafka), ("mqtt", mqtt)) if wanted)
    add(name, config, purposes or frozenset({"mqtt"}), generate=generate, replace=replace)


@user_app.command("list")
def user_list(config: Config = None) -> None:
    """Name the users and what each is for."""
    from headwater.cli.user import list_users

    list_users(config)


@user_app.command("remove")
def user_remove(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    config: Config = None,
) -> None:
    """Remove a user; a running node closes its connections."""
    from headwater.cli.user import remove

    remove(name, config)
