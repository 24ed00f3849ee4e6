"""`/metrics` over HTTP for a process that has no page: one thread, one request at a time."""

from __future__ import annotations

import threading
from socketserver import BaseServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from headwater.errors import UserError

REQUEST_S_MAX = 5.0
"""A client that sends its request no faster is let go: others wait behind it."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_S_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that its base gives it
        """Nothing: a scrape every few seconds is no news."""


class _Server(WSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that went away is no news either."""


class MetricsServer:
    """Serves a registry from its construction until `close`. Raises `UserError` where it cannot listen."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            server = make_server(host, port, _only_metrics(registry), _Server, _Handler)
        except OSError as error:
            raise UserError(
                f"metrics cannot be served on {host}:{port}: {error.strerror}",
                hint="Another program may have this port: choose another one in metrics_listen or --metrics-port.",
            ) from None
        self._server: BaseServer = server
        self.port: int = server.server_port
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; a request under way is answered first."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_S_MAX)


def _only_metrics(registry: CollectorRegistry) -> Any:
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO") == "/metrics":
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"see /metrics\n"]

    return answer
