"""One member of a group: the rules in this process, and a process for each user's processor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from headwater.app.user_processors import UserProcessors, group_processors
from headwater.clock import SystemClock
from headwater.net import parse_address
from headwater.version import version
from processors.group.driver import GroupProcessor
from processors.group.settings import GroupSettings
from processors.rules.model import Rules

log = logging.getLogger("headwater.process")


class Member:
    """`run` until `stop`, which any thread and a signal may call."""

    def __init__(self, settings: GroupSettings, rules: Rules, *, instance: str, rebuild: bool) -> None:
        self._settings = settings
        self._instance = instance
        self._rebuild = rebuild
        self._stopping = threading.Event()
        self._failed: BaseException | None = None
        self._rules = GroupProcessor(settings, rules, instance=instance) if rules.windows else None
        self._users = group_processors(rules.processors, settings, instance, SystemClock(), rebuild=rebuild)

    def stop(self) -> None:
        self._stopping.set()
        if self._rules is not None:
            self._rules.stop()

    def status(self) -> dict[str, Any]:
        """What metrics show; from any thread."""
        return {
            "instance": self._instance,
            "version": version(),
            "processors": self._rules.status() if self._rules is not None else None,
            "user_processors": self._users.status() if self._users is not None else {},
        }

    def run(self) -> None:
        """Raises `UserError` for what only a person can mend, and what else breaks a part."""
        if self._rebuild and self._rules is not None:
            self._rules.rebuild()
            log.info("the state of group %s is forgotten; everything is computed again", self._settings.group_id)
        users = (
            threading.Thread(target=self._run_users, args=(self._users,), name="processors") if self._users else None
        )
        if users is not None:
            users.start()
        try:
            if self._rules is not None:
                self._rules.run()
            else:
                while not self._stopping.wait(1.0):
                    pass
        finally:
            if self._users is not None and users is not None:
                self._users.stop()
                users.join()
        if self._failed is not None:
            raise self._failed

    def _run_users(self, users: UserProcessors) -> None:
        try:
            asyncio.run(users.run())
        except BaseException as error:  # a defect of ours: told by the main thread, which ends
            self._failed = error
            self.stop()


@contextlib.contextmanager
def served_metrics(listen: str | None, member: Member) -> Iterator[None]:
    """`/metrics` of a member, at `host:port`, for so long. Raises `UserError` where it cannot listen."""
    if listen is None:
        yield
        return
    from headwater.app.metrics_server import MetricsServer
    from headwater.dashboard.group_metrics import group_registry

    host, port = parse_address(listen)
    server = MetricsServer(host, port, group_registry(member.status))
    log.info("metrics at http://%s:%d/metrics", host, server.port)
    try:
        yield
    finally:
        server.close()
