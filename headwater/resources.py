"""Files that ship with Headwater: annotated configurations, device profiles, example rules, the JSON Schema.

In a wheel they lie under `headwater/config/`; in a checkout under `config/` at its root.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def config_root() -> Traversable:
    """The folder that holds `edge.toml`, `profiles/`, `rules/`."""
    packaged = resources.files("headwater") / "config"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent / "config"


def read_config(*parts: str) -> str:
    """The text of a shipped file, for example `read_config("profiles", "turbine.toml")`; raises FileNotFoundError."""
    return config_root().joinpath(*parts).read_text(encoding="utf-8")


def config_names(folder: str) -> list[str]:
    """The names, without `.toml`, of the shipped files in one folder, sorted."""
    directory = config_root() / folder
    if not directory.is_dir():
        return []
    return sorted(entry.name.removesuffix(".toml") for entry in directory.iterdir() if entry.name.endswith(".toml"))
