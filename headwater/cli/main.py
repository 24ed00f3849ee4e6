"""The `headwater` command: declarations only; what a command does is imported when it runs, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Optional

import typer

from headwater.cli.aggregates_commands import aggregates_app
from headwater.cli.log_commands import log_app
from headwater.errors import HeadwaterError, UserError

_HELP = """Headwater: from sensors to a central log, exactly once, through broken links and power cuts.

A first node:

\b
  headwater init edge     write headwater.toml here
  headwater run           start the node
  headwater tail          see readings as they come
  headwater status        is all well?

`headwater demo` runs a central, an edge and a simulated wind farm side by side.
"""

# No rich help: importing rich costs more than a third of a second on a small machine.
app = typer.Typer(
    help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)
config_app = typer.Typer(
    help="Look at a configuration: check, show, schema.", no_args_is_help=True, rich_markup_mode=None
)
simulate_app = typer.Typer(
    help="Simulated devices to try a node with: a wind farm, a met mast, a recording.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
replication_app = typer.Typer(
    help="The link to the central: its state, and the choice when it has stopped.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
profiles_app = typer.Typer(
    help="Device profiles, which say how bytes become readings: list, show, test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
user_app = typer.Typer(help="Who may connect over the network: add.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(aggregates_app, name="aggregates")
app.add_typer(config_app, name="config")
app.add_typer(log_app, name="log")
app.add_typer(profiles_app, name="profiles")
app.add_typer(replication_app, name="replication")
app.add_typer(simulate_app, name="simulate")
app.add_typer(user_app, name="user")

# typer reads these annotations at run time; Optional is what it understands on every Python from 3.11 on
Config = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--config", "-c", metavar="FILE", help="The node's file; ./headwater.toml when left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from headwater.version import version as read_version

        print(f"headwater {read_version()}")
        raise typer.Exit


@app.command()
def init(
    role: Annotated[str, typer.Argument(help="edge (beside the devices) or central (where edges report to).")],
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Where to write.")] = ".",
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="The node's name; the host name if left out.")
    ] = "",
) -> None:
    """Write a node's configuration and say what comes next.

    \b
    Examples:
      headwater init edge
      headwater init central --dir /etc/headwater --node office
    """
    from headwater.cli.init import init_node

    init_node(role, folder, node)


@app.command()
def run(
    config: Config = None,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option("--log-format", help="text or json (one object a line).")] = "text",
) -> None:
    """Run a node until Ctrl-C or SIGTERM; its log goes to stderr.

    \b
    Examples:
      headwater run
      headwater run --config /etc/headwater/headwater.toml --log-format json
    """
    from headwater.cli.run import run_node

    raise typer.Exit(run_node(config, log_level, log_format))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def demo(context: typer.Context) -> None:
    """Run the whole river in one terminal: a central, an edge and a simulated wind farm.

    \b
    Examples:
      headwater demo
      headwater demo --for 60s --report verdict.json
    """
    from headwater.cli.lazy import call_main

    raise typer.Exit(call_main("headwater.demo.main", "headwater demo", context.args, "demo"))


def _simulate(name: str, text: str) -> None:
    def command(context: typer.Context) -> None:
        from headwater.cli.lazy import call_main

        raise typer.Exit(call_main(f"simulators.{name}", f"headwater simulate {name}", context.args, "demo"))

    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    simulate_app.command(name, help=text, context_settings=settings)(command)


_simulate("farm", "A wind farm that speaks MQTT. Options: headwater simulate farm --help")
_simulate("mast", "A met mast that speaks NMEA 0183 over a serial line. Options: headwater simulate mast --help")
_simulate("replay", "Play a recording (CSV) with its own timestamps. Options: headwater simulate replay --help")


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


@config_app.command("check")
def config_check(
    file: Annotated[Optional[str], typer.Argument(help="The node's file; ./headwater.toml when left out.")] = None,  # noqa: UP045
) -> None:
    """Say whether a configuration is good, naming every mistake with file and line.

    \b
    Examples:
      headwater config check
      headwater config check /etc/headwater/headwater.toml
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
    file: Annotated[str, typer.Argument(help="Messages, one a line; - reads standard input.")],
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
      mosquitto_sub -F '%t %x' -t 'spBv1.0/#' -C 9 | headwater profiles test ./sp.toml - --with-topics --hex
    """
    from headwater.cli.profiles import try_profile

    if as_hex and as_base64:
        raise UserError("--hex and --base64 exclude each other")
    encoding = "hex" if as_hex else "base64" if as_base64 else "text"
    raise typer.Exit(
        try_profile(
            profile, file, topic=topic, with_topics=with_topics, encoding=encoding, whole=whole, as_json=as_json
        )
    )


@app.command()
def topics(config: Config = None, as_json: AsJson = False) -> None:
    """List a running node's topics with their offsets.

    \b
    Example:
      headwater topics
    """
    from headwater.cli.tail import topics as print_topics

    print_topics(config, as_json=as_json)


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="The topic.")] = "readings",
    config: Config = None,
    start: Annotated[
        str, typer.Option("--from", metavar="WHERE", help="start, end or an offset; -5: the last 5.")
    ] = "",
    number: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("-n", metavar="N", min=1, help="End after N: the last N, or the first N of --from."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The node's own health readings too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a running node's last 10 records and those that come: time, key, value. Ctrl-C ends it.

    \b
    Examples:
      headwater tail
      headwater tail -n 1
      headwater tail deadletter --from start
      headwater tail readings --from end -n 100 --json
    """
    from headwater.cli.tail import tail as follow

    _asynchronously(lambda: follow(config, topic, start=start, number=number, as_json=as_json, everything=everything))


@app.command()
def export(
    topic: Annotated[str, typer.Argument(help="The topic: readings, aggregates, alerts, …")],
    file: Annotated[str, typer.Option("--csv", metavar="FILE", help="Where to write; - is standard output.")],
    config: Config = None,
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Records from this time on: ISO 8601 (UTC) or ms.")
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Records before this time.")] = "",
    columns: Annotated[
        str, typer.Option("--columns", metavar="A,B", help="Only these members; all that there are if left out.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a running node's records as CSV, one line each, with their times and keys.

    \b
    Examples:
      headwater export readings --from 2026-03-28 --to 2026-03-29 --csv saturday.csv
      headwater export aggregates --csv - --columns group,start,revision,fields.power.mean
    """
    from headwater.cli.export import export as write

    _asynchronously(lambda: write(config, topic, file=file, start=start, end=end, columns=columns, replace=replace))


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Show how a node is: link, backlog, last success, sources, clock, disk. Exit 0 good, 1 degraded, 2 down.

    \b
    Examples:
      headwater status
      headwater status --json --config /etc/headwater/headwater.toml
    """
    from headwater.cli.status import show_status

    raise typer.Exit(show_status(config, as_json=as_json))


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


def _asynchronously(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def main() -> None:
    """The entry point: a mistake is one message and the next step, exit status 2, never a traceback."""
    try:
        app()
    except (HeadwaterError, ConnectionError, TimeoutError) as error:  # typer has seen to a closed pipe (`| head`)
        _fail(error)


def _fail(error: Exception) -> None:
    what, hint = (error.what, error.hint) if isinstance(error, HeadwaterError) else (str(error), "")
    lines = [f"error: {what}", *([f"  {hint}"] if hint else [])]
    print("\n".join(lines), file=sys.stderr)
    sys.exit(2)
