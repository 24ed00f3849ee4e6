"""`headwater doctor`: declarations only, as in `main`."""

from __future__ import annotations

import typer

from headwater.cli.options import AsJson, Config


def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Find what keeps a node from its work: settings, disk, clock, addresses, ports, certificates, central.

    Changes nothing; each finding comes with the next step. Exit 0 nothing fails, 1 something does.

    \b
    Examples:
      headwater doctor
      sudo -u headwater headwater doctor --config /etc/headwater/headwater.toml
    """
    from headwater.cli.doctor import doctor as look

    raise typer.Exit(look(config, as_json=as_json))
