"""Folders of a user's that shadow Headwater's packages: Python would import them in our packages' place."""

from __future__ import annotations

import importlib.util
import os
import sys

from headwater.errors import UserError

PACKAGES = ("gateway", "processors", "devices", "simulators")


def check_shadows() -> None:
    """Raises `UserError` naming the file or folder that Python takes for a package of ours."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in PACKAGES:
        found = _where(name)
        if found is not None and os.path.dirname(found) != home:
            raise UserError(
                f"{found} shadows Headwater's own package “{name}”",
                hint=f"Rename it, or run Python where it is not found first (python -P, or another folder): Headwater's"
                f" packages are called headwater, {', '.join(PACKAGES)}.",
            )


def _where(name: str) -> str | None:
    """The file `name.py` or the folder `name` that `import name` finds; None when there is none."""
    module = sys.modules.get(name)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    if places:
        return os.path.abspath(places[0])
    return os.path.abspath(spec.origin) if spec.origin else None
