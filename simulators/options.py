"""The command lines of the simulators: help with defaults and examples, and an end for one that nobody answers."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from headwater.errors import UserError

if TYPE_CHECKING:
    from simulators.publisher import Publisher

ABSENT_MS_MAX = 30_000.0
"""A gateway that has never answered for this long is not there; one that goes away later is waited for."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """The default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if action.default in (None, "", False, argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"


def make_parser(prog: str, description: str, examples: Iterable[str]) -> argparse.ArgumentParser:
    """A parser whose help ends in examples."""
    shown = "\n".join(f"  {example}" for example in examples)
    return argparse.ArgumentParser(
        prog=prog, description=textwrap.fill(description, 100), epilog=f"Examples:\n{shown}", formatter_class=_Help
    )


def check_answered(publishers: Iterable[Publisher], address: tuple[str, int], waited_ms: float) -> None:
    """Raises `UserError` when none of them has ever been connected and `waited_ms` is long enough."""
    everybody = list(publishers)
    if waited_ms < ABSENT_MS_MAX or any(publisher.connects for publisher in everybody):
        return
    why = next((publisher.problem for publisher in everybody if publisher.problem), "it does not answer")
    raise UserError(
        f"no MQTT gateway at {address[0]}:{address[1]} within {ABSENT_MS_MAX / 1000:.0f} s: {why}",
        hint="Is the node running? Its MQTT address goes into --mqtt; `headwater status` names it.",
    )
