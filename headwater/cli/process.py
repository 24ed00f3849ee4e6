"""`headwater process`: one member of a group of processors in the foreground."""

from __future__ import annotations

import gc
import logging
import signal
import socket

from headwater.app.logs import LEVELS, set_up_logging
from headwater.cli.find import named
from headwater.errors import UserError
from headwater.settings.group import load_group
from processors.rules.files import load_rules

log = logging.getLogger("headwater.process")


def run_group(file: str, *, instance: str, rebuild: bool, metrics_port: int, level: str, form: str) -> int:
    """Run until told to stop; returns 0 after a clean end. Raises `UserError` for what only a person can mend."""
    if level not in LEVELS:
        raise UserError(f"--log-level {level} is not known", hint=f"It is one of {', '.join(LEVELS)}.")
    if form not in ("text", "json"):
        raise UserError(f"--log-format {form} is not known", hint="It is text or json.")
    settings = load_group(named(file))
    rules = load_rules(settings.rules)
    try:
        from headwater.cli.process_member import Member, served_metrics
    except ModuleNotFoundError as error:
        raise UserError(
            f"`headwater process` needs the package {error.name}", hint="pip install 'headwater[process]'"
        ) from None
    name = instance or settings.instance or socket.gethostname().split(".")[0]
    set_up_logging(name, level=level, form="json" if form == "json" else "text")
    gc.set_threshold(50_000, 20, 50)  # blocks of records are freed by reference counting
    member = Member(settings, rules, instance=name, rebuild=rebuild)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: member.stop())
    log.info("member %s of group %s at %s", name, settings.group_id, settings.bootstrap_servers)
    listen = f"127.0.0.1:{metrics_port}" if metrics_port else settings.metrics_listen
    with served_metrics(listen, member):
        member.run()
    log.info("stopped; everything that was said is committed")
    return 0
