"""`headwater new decoder`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

new_app = typer.Typer(
    help="Begin code of your own: a decoder, with its profile and its test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@new_app.callback()
def _group() -> None:
    """Keeps `new` a group while it has one command."""


@new_app.command("decoder")
def new_decoder(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _: my_sensor.")],
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Where to write.")] = ".",
) -> None:
    """Write NAME.py, NAME.toml and test_NAME.py; the test passes at once.

    \b
    Example:
      headwater new decoder rain_gauge
    """
    from headwater.cli.new import write_decoder

    write_decoder(name, folder)
