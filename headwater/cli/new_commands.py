"""`headwater new decoder|processor`: declarations only, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

new_app = typer.Typer(
    help="Begin code of your own: a decoder or a processor, with its test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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


@new_app.command("processor")
def new_processor(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _: blocked_pump.")],
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Where to write.")] = ".",
) -> None:
    """Write NAME.py, NAME.toml (its rule) and test_NAME.py; the test passes at once.

    \b
    Example:
      headwater new processor blocked_pump
    """
    from headwater.cli.new import write_processor

    write_processor(name, folder)
