"""`headwater aggregates list|why|recompute`: declarations only, as in `main`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from headwater.cli.options import AsJson, Config

aggregates_app = typer.Typer(
    help="Windows: their results, and what holds one open.", no_args_is_help=True, rich_markup_mode=None
)

_Rule = Annotated[str, typer.Option("--rule", metavar="NAME", help="Only this window rule.")]


@aggregates_app.command("list")
def aggregates_list(
    config: Config = None,
    rule: _Rule = "",
    group: Annotated[str, typer.Option("--group", metavar="PATTERN", help="Only these devices: edge-1/t*.")] = "",
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="At most the last N windows.")] = 20,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Only those that lack something.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the newest windows, of each its latest revision.

    \b
    Examples:
      headwater aggregates list
      headwater aggregates list --rule farm_10s --group 'edge-1/t*' --incomplete
    """
    from headwater.cli.aggregates import list_results

    _run(list_results(config, rule=rule, group=group, number=number, incomplete=incomplete, as_json=as_json))


@aggregates_app.command("why")
def aggregates_why(
    key: Annotated[str, typer.Argument(help="<node>/<device>, a group (site/north), or the whole key of a result.")],
    config: Config = None,
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="The window around a time (ISO 8601, UTC); else the newest.")
    ] = "",
    rule: _Rule = "",
    as_json: AsJson = False,
) -> None:
    """Say what holds a window open (a silent node, a slow source, backfill), and why readings of it were late.

    \b
    Examples:
      headwater aggregates why edge-1/t01
      headwater aggregates why edge-1/t01 --at 2026-03-28T14:00:05
      headwater aggregates why site/north --rule site_power
      headwater aggregates why edge-1/t01/farm_10s/1774706400000 --json
    """
    from headwater.cli.aggregates_why import why

    _run(why(config, key, at=at, rule=rule, as_json=as_json))


@aggregates_app.command("recompute")
def aggregates_recompute(
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Windows that begin then or later (ISO 8601, UTC).")
    ],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="And before this time.")],
    config: Config = None,
    rule: _Rule = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, say what differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute windows anew from the log; those that differ get a revision with cause "recompute".

    Windows that may still be revised by the running processors are left to them. What is written stands when this is
    interrupted; running it again writes the rest.

    \b
    Examples:
      headwater aggregates recompute --from 2026-03-28T14:00 --to 2026-03-28T16:00 --dry-run
      headwater aggregates recompute --from 2026-03-28 --to 2026-03-29 --rule farm_10s
    """
    from headwater.cli.recompute import recompute

    _run(recompute(config, since=since, until=until, rule=rule, dry_run=dry_run, as_json=as_json))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import asyncio  # help is quick without it

    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
