"""`headwater doctor`: what keeps a node from its work, seen from outside and inside; each finding with the next step.

Changes nothing and asks nobody for anything that leaves a trace, apart from connections that are closed again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

from headwater.cli.find import need_config
from headwater.cli.findings import Finding, Level
from headwater.errors import UserError

GOOD, FAULTY = 0, 1


def doctor(config: str | None, *, as_json: bool) -> int:
    """Print the findings; returns 1 when one is `fail`, else 0. Raises `UserError` without any configuration."""
    findings = examine(need_config(config))
    if as_json:
        import msgspec

        rows = [finding._asdict() for finding in findings]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    else:
        _print(findings)
    return FAULTY if any(finding.level == "fail" for finding in findings) else GOOD


def examine(file: str) -> list[Finding]:
    """All findings about the node of a configuration."""
    from headwater.app.control import read_status
    from headwater.cli.doctor_here import look_here
    from headwater.cli.doctor_net import look_outside
    from headwater.settings.load import load_settings

    try:
        settings = load_settings(file).settings
    except UserError as error:
        then = error.hint or "`headwater config check` shows this again."
        return [Finding("fail", "configuration", error.what, then)]
    findings = [Finding("ok", "configuration", f"{file}: {settings.role} {settings.node}")]
    status = read_status(settings.data_dir)
    findings += _running(status, file)
    findings += look_here(settings)
    findings += asyncio.run(look_outside(settings, status))
    return findings


def _running(status: dict[str, Any] | None, file: str) -> Iterable[Finding]:
    if status is None:
        yield Finding("warn", "node", "does not run: what only a running node knows is left out",
                      f"Start it with `headwater run --config {file}`, and ask again.")  # fmt: skip
        return
    levels: dict[str, Level] = {"good": "ok", "degraded": "warn"}
    level = levels.get(status["state"], "fail")
    yield Finding(level, "node", f"runs as process {status['pid']}, version {status['version']}: {status['state']}")
    for problem in status.get("problems", ()):
        yield Finding(level, "node", problem, "`headwater status` shows what belongs to it.")


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.about) for finding in findings)
    for finding in findings:
        sys.stdout.write(f"{finding.level:5} {finding.about:{width}}  {finding.said}\n")
        if finding.then:
            sys.stdout.write(f"{'':5} {'':{width}}  → {finding.then}\n")
    count = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")}
    sys.stdout.write(", ".join(f"{number} {level}" for level, number in count.items()) + "\n")
