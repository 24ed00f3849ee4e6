"""The `headwater` command's entry point; a node's own start takes the short way past the command line's library.

typer and what it needs to check arguments (pydantic) cost 8 MiB for as long as a node runs, and 0.15 s of each start on
a fast machine. So the line that services are started with is read here; all else, help and mistakes too, goes to
typer, whose declaration of `run` (headwater/cli/main.py) is the one that people see.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from headwater.errors import HeadwaterError

_OF_RUN = {"--config": "config", "-c": "config", "--log-level": "log_level", "--log-format": "log_format"}


def main() -> None:
    """Run the command: a mistake is one message and the next step, exit status 2, never a traceback."""
    try:
        options = run_options(sys.argv[1:])
        if options is None:
            from headwater.cli.main import app

            app()
        else:
            from headwater.cli.run import run_node

            sys.exit(run_node(**options))
    except (HeadwaterError, ConnectionError, TimeoutError) as error:  # typer has seen to a closed pipe (`| head`)
        _fail(error)
    except KeyboardInterrupt:  # before the node minds signals; typer sees to its own commands
        sys.exit(130)


def run_options(arguments: Sequence[str]) -> dict[str, str] | None:
    """The options of a plain `run`, each with its value; None for any line that is not that and nothing else."""
    if not arguments or arguments[0] != "run":
        return None
    found = {}
    rest = iter(arguments[1:])
    for argument in rest:
        option, equals, value = argument.partition("=")
        if not equals:
            value = next(rest, "")
        if option not in _OF_RUN or not value or (equals and option == "-c") or value.startswith("-"):
            return None
        found[_OF_RUN[option]] = value
    return found


def _fail(error: Exception) -> None:
    what, hint = (error.what, error.hint) if isinstance(error, HeadwaterError) else (str(error), "")
    lines = [f"error: {what}", *([f"  {hint}"] if hint else [])]
    print("\n".join(lines), file=sys.stderr)
    sys.exit(2)
