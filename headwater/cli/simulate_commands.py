"""`headwater simulate …`: declarations only, as in `main`."""

from __future__ import annotations

import typer

simulate_app = typer.Typer(
    help="Simulated devices to try a node with: a wind farm, a met mast, fleets, recordings; and the verdict.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _simulate(name: str, text: str) -> None:
    def command(context: typer.Context) -> None:
        from headwater.cli.lazy import call_main

        raise typer.Exit(call_main(f"simulators.{name}", f"headwater simulate {name}", context.args, "demo"))

    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    simulate_app.command(name, help=text, context_settings=settings)(command)


_simulate("farm", "A wind farm that speaks MQTT. Options: headwater simulate farm --help")
_simulate("mast", "A met mast that speaks NMEA 0183 over a serial line. Options: headwater simulate mast --help")
_simulate("fleet", "Fleets of devices from a TOML scenario. Options: headwater simulate fleet --help")
_simulate("replay", "Play a recording (CSV) with its own timestamps. Options: headwater simulate replay --help")
_simulate("verify", "Compare a ledger with a node's log. Options: headwater simulate verify --help")
