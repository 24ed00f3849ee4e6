"""Commands that live in optional parts: imported when called, and missed politely when not installed."""

from __future__ import annotations

import importlib

from headwater.errors import UserError


def call_main(module: str, command: str, arguments: list[str], extra: str) -> int:
    """Call `module.main(arguments)`; returns its exit status. Raises UserError when a package it needs is missing."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in module.split("."):
            raise
        raise UserError(
            f"`{command}` needs the package {error.name}, which is not installed",
            hint=f"Install it with: pip install 'headwater[{extra}]'",
        ) from None
    try:
        return int(found.main(arguments) or 0)
    except KeyboardInterrupt:
        return 130
