"""Runs a node's page: the model, its feed and the web server, for as long as the work process lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Generator

import uvicorn

from headwater.clock import Clock
from headwater.dashboard.auth import load_token
from headwater.dashboard.feed import Feed
from headwater.dashboard.model import PageModel
from headwater.dashboard.web import History, Status, create_app
from headwater.errors import UserError
from headwater.net import Net, is_loopback, parse_address, port_holder
from headwater.settings.page import PageSettings

log = logging.getLogger(__name__)


async def run_page(
    settings: PageSettings,
    *,
    data_dir: str,
    kafka: tuple[str, int],
    status: Status,
    net: Net,
    clock: Clock,
    history: History | None = None,
) -> None:
    """Serve until cancelled; raises `UserError` when the address cannot be had.

    `kafka` is the node's own Kafka listener, `status` gives the core's last status document or None.
    """
    host, port = parse_address(settings.listen, default_port=8080)
    token = _token(settings, host, data_dir)
    model = PageModel(history_s=settings.history_s, devices_max=settings.devices_max, series_max=settings.series_max)
    feed = Feed(model, net=net, clock=clock, host=kafka[0], port=kafka[1])
    app = create_app(status=status, model=model, token=token, history=history)
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=1, limit_concurrency=256, h11_max_incomplete_event_size=16_384, ws="none",
    )  # fmt: skip
    listening = _listen(host, port)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run(), name="page feed")
        group.create_task(_serve(_Server(config), listening), name="page server")


def _token(settings: PageSettings, host: str, data_dir: str) -> str | None:
    if is_loopback(host):
        return None
    path = settings.token_file or os.path.join(data_dir, "node", "page-token")
    token, made = load_token(path)
    if made:
        log.warning("the page's token, shown this once and kept in %s: %s", path, token)
    return token


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the work process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        holder = port_holder(port)
        held = f", held by {holder}" if holder else ""
        raise UserError(
            f"the page cannot listen on {host}:{port}: {error.strerror}{held}",
            hint="Choose another address with listen under [page], or stop that process.",
        ) from None
    listening.settimeout(0)
    return listening


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    everywhere = host in ("0.0.0.0", "::")
    log.info(
        "page on http://%s:%s/%s", socket.gethostname() if everywhere else host, port, " (all addresses)" * everywhere
    )
    serving: asyncio.Task[None] = asyncio.ensure_future(server.serve([listening]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True  # let the open streams end within timeout_graceful_shutdown
        await serving
        raise
