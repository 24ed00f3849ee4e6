"""`headwater demo`: a central node, an edge gateway and a simulated wind farm, each its own process, in one command.

The nodes are real ones, started as `headwater run` starts them; devices, faults and the judge are simulators, which
use nothing of the gateway. `docs/demo.md` tells the story that is played and what the report says.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.clock import SystemClock
from headwater.demo.cast import Cast
from headwater.demo.conductor import Conductor, Options
from headwater.demo.display import Panelled, Plain, single_keys
from headwater.demo.figures import Figures
from headwater.demo.layout import Layout, free_ports
from headwater.demo.story import STORY_S
from headwater.errors import UserError
from simulators.options import make_parser, parse_duration


def parse_options(arguments: list[str]) -> tuple[Options, Path | None, bool]:
    """(options, folder to keep, plain output?) from the command line."""
    parser = make_parser(
        "headwater demo",
        "Run a central, an edge and a simulated wind farm; at 20 s the uplink becomes a black hole for 15 s, at 45 s"
        " the edge is killed. Keys: c cuts the link, k kills the edge, g sends garbage, Ctrl-C ends.",
        [
            "headwater demo",
            "headwater demo --for 60s --report verdict.json",
            "headwater demo --keep run1 --seed 7",
            "headwater demo --versus mosquitto",
        ],
    )
    add = parser.add_argument
    add("--for", dest="duration", metavar="TIME", help="end after this long, such as 60s (else: Ctrl-C)")
    add("--report", metavar="FILE", help="write the verdict as JSON; exit 1 when a rule is broken")
    add("--seed", type=int, default=1, metavar="N", help="of the simulated signals")
    add("--keep", metavar="DIR", help="keep logs, data and ledger there (a new or empty folder)")
    add("--plain", action="store_true", help="lines instead of a live panel")
    versus = "play no farm: kill the gateway and this broker in the middle of messages, and count what each lost"
    add("--versus", choices=["mosquitto"], help=versus)
    chosen = parser.parse_args(arguments)
    seconds = None if chosen.duration is None else parse_duration(chosen.duration)
    if chosen.report is not None and seconds is not None and seconds < STORY_S:
        raise UserError(
            f"--report with --for {chosen.duration} would judge half a story",
            hint=f"The story takes {STORY_S:.0f} s: write --for {STORY_S:.0f}s or more.",
        )
    report = None if chosen.report is None else Path(chosen.report).absolute()
    if report is not None and not report.parent.is_dir():
        raise UserError(f"--report {chosen.report}: there is no folder {report.parent}", hint="Make it first.")
    keep = None if chosen.keep is None else Path(chosen.keep).absolute()
    return Options(seconds=seconds, report=report, seed=chosen.seed, versus=chosen.versus), keep, chosen.plain


@contextlib.contextmanager
def run_directory(keep: Path | None) -> Iterator[Path]:
    """The folder of this run: a temporary one that vanishes, or `keep`. Raises `UserError`."""
    if keep is None:
        made = Path(tempfile.mkdtemp(prefix="headwater-demo-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        occupied = any(keep.iterdir())
    except OSError as error:
        raise UserError(f"--keep {keep}: {error.strerror}", hint="Choose a folder that you may write to.") from None
    if occupied:
        raise UserError(f"--keep {keep} is not empty", hint="Choose a new folder, or empty this one.")
    yield keep


async def run(options: Options, directory: Path, *, plain: bool) -> int:
    """Play one run in `directory`; the exit status."""
    layout = Layout(directory, free_ports())
    layout.write()
    introduction = layout.introduction()
    starting = Plain()
    starting.line("starting a central, an edge and a wind farm …")
    figures = Figures()
    conductor: Conductor | None = None

    def heard(event: dict[str, Any]) -> None:
        if conductor is not None:
            conductor.heard(event)

    cast = Cast(layout, options.seed, heard)
    try:
        await cast.start()
        with single_keys() as keys:
            display = Plain() if plain or not sys.stdout.isatty() else Panelled(introduction)
            if not isinstance(display, Panelled):
                for line in introduction:
                    display.line(line)
            conductor = Conductor(options, cast, display, SystemClock(), figures)
            if keys is not None:
                asyncio.get_running_loop().add_reader(keys, conductor.key, keys)
            try:
                await conductor.play()
                return await conductor.judge()
            except asyncio.CancelledError:  # Ctrl-C once more: do not wait for the verdict
                return 130
            finally:
                if keys is not None:
                    asyncio.get_running_loop().remove_reader(keys)
                display.close()
    finally:
        await cast.stop()


def check_packages() -> None:
    """Raises `UserError` when the demo's processes would miss a package."""
    for package in ("paho", "confluent_kafka", "numpy", "starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"`headwater demo` needs the package {package}, which is not installed",
                hint="Install what it needs with: pip install 'headwater[demo]'",
            )


def main(arguments: list[str]) -> int:
    """The command line. 0: all is well, 1: the verdict found a failure."""
    options, keep, plain = parse_options(arguments)
    check_packages()
    with run_directory(keep) as directory:
        if options.versus is not None:
            from headwater.demo import versus

            return versus.run(directory, report=options.report)
        return asyncio.run(run(options, directory, plain=plain))
