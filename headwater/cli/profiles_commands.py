"""`headwater profiles list|show|test`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli.options import AsJson, Config
from headwater.errors import UserError

profiles_app = typer.Typer(
    help="Device profiles, which say how bytes become readings: list, show, test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@profiles_app.command("list")
def profiles_list(as_json: AsJson = False) -> None:
    """List the profiles that ship.

    \b
    Example:
      headwater profiles list
    """
    from headwater.cli.profiles import list_profiles

    list_profiles(as_json=as_json)


@profiles_app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(help="A shipped profile, or the path of a .toml file.")],
) -> None:
    """Print a profile with its comments, to start one's own from.

    \b
    Example:
      headwater profiles show wind-turbine > pump.toml
    """
    from headwater.cli.profiles import show_profile

    show_profile(name)


@profiles_app.command("test")
def profiles_test(
    profile: Annotated[str, typer.Argument(help="A shipped profile, or the path of a .toml file.")],
    file: Annotated[str, typer.Argument(help="Messages, one a line; - reads standard input.")] = "",
    live: Annotated[
        bool, typer.Option("--live", help="Take a running node's last dead letters that the profile would read.")
    ] = False,
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="With --live: the last N.")] = 20,
    config: Config = None,
    topic: Annotated[
        str, typer.Option("--topic", metavar="T", help="Their topic; made up from the profile's pattern if left out.")
    ] = "",
    with_topics: Annotated[
        bool, typer.Option("--with-topics", help="Each line is TOPIC MESSAGE, as mosquitto_sub -v prints.")
    ] = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="Messages are hexadecimal.")] = False,
    as_base64: Annotated[bool, typer.Option("--base64", help="Messages are base64.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="The file is one message of several lines.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a profile makes of messages: readings, rejects and why. Exit 0 all read, 1 some rejected.

    \b
    Examples:
      headwater profiles test wind-turbine messages.jsonl
      headwater profiles test ./pump.toml log.csv --whole --topic shed/pump1
      mosquitto_sub -v -t 'farm/#' -C 10 | headwater profiles test wind-turbine - --with-topics
      headwater profiles test ./pump.toml --live
      mosquitto_sub -F '%t %x' -t 'spBv1.0/#' -C 9 | headwater profiles test ./sp.toml - --with-topics --hex
    """
    from headwater.cli.profiles import try_profile

    if live == bool(file):
        raise UserError("give a file of messages, or --live", hint="--live takes a running node's last dead letters.")
    if live:
        import asyncio

        from headwater.cli.profiles import try_live

        raise typer.Exit(asyncio.run(try_live(profile, config, number=number, as_json=as_json)))
    if as_hex and as_base64:
        raise UserError("--hex and --base64 exclude each other")
    encoding = "hex" if as_hex else "base64" if as_base64 else "text"
    raise typer.Exit(
        try_profile(
            profile, file, topic=topic, with_topics=with_topics, encoding=encoding, whole=whole, as_json=as_json
        )
    )
