"""Option types that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="The node's file; ./headwater.toml when left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
