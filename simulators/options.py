"""The command lines of the simulators: help with defaults and examples, and an end for one that nobody answers."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from headwater.errors import UserError

if TYPE_CHECKING:
    from simulators.publisher import Publisher

ABSENT_MS_MAX = 30_000.0
"""A gateway that has never answered for this long is not there; one that goes away later is waited for."""

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


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


def parse_duration(text: str) -> float:
    """Seconds: `90`, `90s`, `5m`, `12h`. Raises `UserError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UserError(f"“{text}” is no duration", hint="Write a number and s, m or h, such as 60s or 12h.")
    return float(match[1]) * _UNITS_S[match[2]]


def parse_speed(text: str) -> float | None:
    """Simulated seconds a second; None for `max`. Raises `UserError`."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise UserError(f"--speed {text} is no speed", hint="Write a number, such as 60 (a minute a second), or max.")
    return speed
