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

    raise typer.Exit(run_group(config, instance=instance, rebuild=rebuild, level=log_level, form=log_format))
