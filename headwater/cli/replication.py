"""`headwater replication`: how the link to the central is, and the operator's choice when it has stopped."""

from __future__ import annotations

import sys
from typing import Literal

from headwater.cli import words
from headwater.cli.find import find_node, need_status
from headwater.errors import UserError


def show(config: str | None, *, as_json: bool) -> int:
    """Print the link's state; returns 0 up, 1 down, 2 stopped until somebody chooses."""
    import msgspec

    status = need_status(config)
    central = status.get("central")
    if central is None:
        raise UserError(
            "this node replicates to nobody", hint="Name a central in its file: [central] bootstrap_servers = …"
        )
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(central), indent=2).decode() + "\n")
    else:
        for name, value in central.items():
            if value not in (None, ""):
                print(_line(name, value, status["now_ms"]))
    return {"up": 0, "stopped": 2}.get(str(central["state"]), 1)


def _line(name: str, value: object, now_ms: int) -> str:
    """One member of the link's state; moments as how long ago they were."""
    if name in ("since_ms", "last_success_ms") and isinstance(value, int):
        name, value = name.removesuffix("_ms"), words.ago(value, now_ms)
    return f"{name.replace('_', ' '):16} {value}"


def choose(config: str | None, choice: Literal["resend", "accept"]) -> None:
    """Tell a stopped uplink how to go on."""
    from headwater.app.command import send_command

    answered = send_command(find_node(config).data_dir, "replication", choice=choice)
    print(answered["said"])
