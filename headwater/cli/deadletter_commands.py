"""`headwater deadletter list|show|replay`: declarations only, as in `main`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from headwater.cli.options import AsJson, Config

deadletter_app = typer.Typer(
    help="Messages that could not be decoded: list, show, replay after a profile is mended.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_T = TypeVar("_T")
_Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Only those whose reason has this text.")]
_Source = Annotated[str, typer.Option("--source", metavar="PATTERN", help="Only these sources: mqtt:pump-*.")]
_Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Arrived from then on: ISO 8601 (UTC) or ms.")]
_Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Arrived before then.")]
_Offset = Annotated[str, typer.Option("--offset", metavar="N[-M]", help="Only this one, or these.")]


@deadletter_app.command("list")
def deadletter_list(
    config: Config = None,
    reason: _Reason = "",
    source: _Source = "",
    since: _Since = "",
    until: _Until = "",
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="The last N.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print a running node's last dead letters: offset, arrival, source, size, reason.

    \b
    Examples:
      headwater deadletter list
      headwater deadletter list --source 'mqtt:pump-*' --reason timestamp -n 100
    """
    from headwater.cli.deadletter import show_list
    from headwater.cli.deadletters import parse_filter

    wanted = parse_filter(reason, source, since, until, "")
    _run(show_list(config, wanted, number=number, as_json=as_json))


@deadletter_app.command("show")
def deadletter_show(
    offset: Annotated[int, typer.Argument(min=0, help="Its offset, as list prints it.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print one dead letter whole: reason, source, topic, times, and its bytes.

    \b
    Example:
      headwater deadletter show 17
    """
    from headwater.cli.deadletter import show_one

    _run(show_one(config, offset, as_json=as_json))


@deadletter_app.command("replay")
def deadletter_replay(
    config: Config = None,
    reason: _Reason = "",
    source: _Source = "",
    since: _Since = "",
    until: _Until = "",
    offset: _Offset = "",
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would come of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decode dead letters again, by the profiles as they are now, and store what is good, each once.

    Exit 0 all of them are readings by now, 1 some are still rejected.

    \b
    Examples:
      headwater deadletter replay --dry-run
      headwater deadletter replay --reason 'timestamp' --since 2026-03-28
      headwater deadletter replay --offset 17-20
    """
    from headwater.cli.deadletter import replay
    from headwater.cli.deadletters import parse_filter

    wanted = parse_filter(reason, source, since, until, offset)
    raise typer.Exit(_run(replay(config, wanted, dry=dry, as_json=as_json)))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    import asyncio  # help is quick without it

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
