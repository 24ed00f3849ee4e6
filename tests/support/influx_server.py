"""A server that speaks InfluxDB 2's write API in a thread, keeps points as a database does, and fails as it is told."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from processors.sinks.points import type_of

_PAIR = re.compile(r'((?:\\.|[^,= "])+)=("(?:\\.|[^"])*"|[^,]*)(?:,|$)')
_LINE = re.compile(r'((?:\\.|[^ ])+) ((?:"(?:\\.|[^"])*"|[^ "])+) (-?\d+)')


class Failure(NamedTuple):
    """An answer without the effect of the request; status 0 hangs up. `written`: with the effect nonetheless."""

    status: int
    message: str = ""
    retry_after: str = ""
    written: bool = False


class InfluxServer:
    """`points`: (measurement and tags, time) to fields, as they stand in the lines."""

    def __init__(self, *, port: int = 0) -> None:
        self.failures: deque[Failure] = deque()
        self.points: dict[tuple[str, int], dict[str, str]] = {}
        self.types: dict[tuple[str, str], str] = {}
        self.requests: list[tuple[str, dict[str, str], list[str]]] = []
        self.poison: Callable[[str], str] = lambda line: ""  # why a line does not parse, "" when it does
        self.refuses_all = ""
        self.hold = threading.Event()
        self.hold.set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                owner.hold.wait(10)
                owner._answer(self, dict(self.headers), body.decode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 32

            def handle_error(self, *_: object) -> None:
                pass  # the client gave up waiting: that is the test

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, headers: dict[str, str], body: str) -> None:
        where = urlsplit(request.path)
        asked = {name: values[0] for name, values in parse_qs(where.query).items()}
        lines = body.split("\n")
        self.requests.append((where.path, headers | asked, lines))
        failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            if failure.written:
                self._take(lines)
            if not failure.status:
                request.close_connection = True
                return
            _reply(request, failure.status, failure.message, failure.retry_after)
            return
        _reply(request, *self._take(lines))

    def _take(self, lines: list[str]) -> tuple[int, str]:
        if self.refuses_all:
            return 400, self.refuses_all
        unreadable = [f"unable to parse '{line}': {why}" for line in lines if (why := self.poison(line))]
        if unreadable:
            return 400, "\n".join(unreadable)
        dropped, reason = 0, ""
        for line in lines:
            conflict = self._store(line)
            dropped += bool(conflict)
            reason = reason or conflict
        if dropped:
            return 422, f"failure writing points to database: partial write: {reason} dropped={dropped}"
        return 204, ""

    def _store(self, line: str) -> str:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        series, fields, time = match[1], dict(_PAIR.findall(match[2])), int(match[3])
        measurement = re.split(r"(?<!\\),", series)[0]
        for name, value in fields.items():
            there, sent = self.types.get((measurement, name), type_of(value)), type_of(value)
            if there != sent:
                return (
                    f'field type conflict: input field "{name}" on measurement "{measurement}"'
                    f" is type {sent}, already exists as type {there}"
                )
        self.types |= {(measurement, name): type_of(value) for name, value in fields.items()}
        self.points.setdefault((series, time), {}).update(fields)
        return ""


def _reply(request: BaseHTTPRequestHandler, status: int, message: str, retry_after: str = "") -> None:
    body = json.dumps({"code": "invalid", "message": message}).encode() if message else b""
    request.send_response(status)
    if retry_after:
        request.send_header("Retry-After", retry_after)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
