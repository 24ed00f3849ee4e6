"""`headwater process`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

process_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@process_app.callback()
def process(
    context: typer.Context,
    config: Annotated[
        str, typer.Option("--config", "-c", metavar="FILE", help="The group's file; ./process.toml when left out.")
    ] = "process.toml",
    instance: Annotated[
        str, typer.Option("--instance", metavar="NAME", help="This member's name; the host's when left out.")
    ] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Forget the group's state first; no member may run.")
    ] = False,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", metavar="PORT", min=0, max=65535, help="Serve /metrics on 127.0.0.1:PORT.")
    ] = 0,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option("--log-format", help="text or json (one object a line).")] = "text",
) -> None:
    """Windows and alerts as a consumer group, on as many machines as it takes: run one member until Ctrl-C.

    The same command with the same file on more machines spreads the partitions over them.

    \b
    Examples:
      headwater process --config process.toml
      headwater process --config process.toml --instance b     # a second one on this machine
    """
    if context.invoked_subcommand is not None:
        return
    from headwater.cli.process import run_group

    raise typer.Exit(
        run_group(
            config,
            instance=instance,
            rebuild=rebuild,
            metrics_port=metrics_port,
            level=log_level,
            form=log_format,
        )
    )


@process_app.command("test")
def try_processor(
    file: Annotated[str, typer.Argument(help="Your processor's file, or its rule file (with its settings).")],
    readings: Annotated[
        str | None, typer.Argument(metavar="[READINGS]", help="JSON lines or CSV; made up when left out.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Which one, where the file has several.")] = "",
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="How many to make up.")] = 5_000,
    seed: Annotated[int, typer.Option("--seed", help="Of those that are made up.")] = 1,
    show: Annotated[bool, typer.Option("--show", help="Print the first outputs.")] = False,
) -> None:
    """Run a processor twice, whole and cut into pieces with restarts: any difference fails and is named.

    \b
    Examples:
      headwater process test pump.py
      headwater export readings --from 2026-03-28 --csv day.csv && headwater process test pump.toml day.csv
    """
    from headwater.cli.process_test import run_test

    raise typer.Exit(run_test(file, readings, name=name, count=count, seed=seed, show=show))
