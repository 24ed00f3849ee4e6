"""`headwater run`: a node in the foreground."""

from __future__ import annotations

import asyncio
import logging
import resource

from headwater.app.core import run_node as run_core
from headwater.app.logs import LEVELS, set_up_logging
from headwater.app.parts import check_parts, warnings
from headwater.cli.find import need_config
from headwater.errors import UserError
from headwater.net import NodeLoop
from headwater.settings.load import load_settings

log = logging.getLogger(__name__)


def run_node(config: str | None = None, log_level: str = "info", log_format: str = "text") -> int:
    """Run until told to stop; returns 0 after a clean end, 1 when the core failed. Raises UserError at the start."""
    if log_level not in LEVELS:
        raise UserError(f"--log-level {log_level} is not known", hint=f"It is one of {', '.join(LEVELS)}.")
    if log_format not in ("text", "json"):
        raise UserError(f"--log-format {log_format} is not known", hint="It is text or json.")
    loaded = load_settings(need_config(config))
    check_parts(loaded.settings)
    set_up_logging(loaded.settings.node, level=log_level, form="json" if log_format == "json" else "text")
    for line in warnings(loaded.settings):
        log.warning("%s", line)
    allow_open_files()
    with asyncio.Runner(loop_factory=NodeLoop) as runner:
        return runner.run(run_core(loaded.settings, config=loaded.file, level=log_level, form=log_format))


def allow_open_files() -> None:
    """Lift the limit of open files as far as this user may: the usual 1,024 are used up by a thousand partitions."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
