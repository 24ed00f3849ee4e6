"""Option types that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# typer reads these annotations at run time; Optional is what it understands on every Python from 3.11 on
Config = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="The node's file; ./headwater.toml when left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
