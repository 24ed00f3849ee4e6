"""The installed version."""

from __future__ import annotations


def version() -> str:
    """The version of the installed package, as pyproject.toml has it."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("headwater")
    except PackageNotFoundError:
        return "0+unknown"
