"""The `headwater` command: declarations only; what a command does is imported when it runs, so that help is quick."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from headwater.cli.aggregates_commands import aggregates_app
from headwater.cli.config_commands import config_app
from headwater.cli.deadletter_commands import deadletter_app
from headwater.cli.devices_commands import devices_app
from headwater.cli.doctor_commands import doctor
from headwater.cli.log_commands import log_app
from headwater.cli.new_commands import new_app
from headwater.cli.options import AsJson, Config
from headwater.cli.process_commands import process_app
from headwater.cli.profiles_commands import profiles_app
from headwater.cli.replication_commands import replication_app
from headwater.cli.simulate_commands import simulate_app
from headwater.cli.user_commands import user_app

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
app.add_typer(aggregates_app, name="aggregates")
app.add_typer(config_app, name="config")
app.add_typer(deadletter_app, name="deadletter")
app.add_typer(devices_app, name="devices")
app.add_typer(log_app, name="log")
app.add_typer(new_app, name="new")
app.add_typer(process_app, name="process")
app.add_typer(profiles_app, name="profiles")
app.add_typer(replication_app, name="replication")
app.add_typer(simulate_app, name="simulate")
app.add_typer(user_app, name="user")
app.command()(doctor)


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

    raise typer.Exit(run_node(config=config, log_level=log_level, log_format=log_format))


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
        int | None,
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
    everything: Annotated[bool, typer.Option("--all", help="The nodes' own health readings too.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a running node's records as CSV, one line each, with their times and keys.

    \b
    Examples:
      headwater export readings --from 2026-03-28 --to 2026-03-29 --csv saturday.csv
      headwater export aggregates --csv - --columns group,start,revision,fields.power.mean
    """
    from headwater.cli.export import export as write

    chosen = {"file": file, "start": start, "end": end, "columns": columns}
    _asynchronously(lambda: write(config, topic, **chosen, everything=everything, replace=replace))


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


def _asynchronously(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
