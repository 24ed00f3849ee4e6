"""The page's HTTP side: the page itself, its API and event stream, metrics and health.

`GET /` page · `/api/v1/status` · `/api/v1/snapshot?since=N` · `/api/v1/stream` (server-sent events) ·
`/api/v1/history` and `/api/v1/history/series` (window results of months) · `/metrics` ·
`/healthz` (the process answers) · `/readyz` (the node takes readings) · `/login`. All is served from this machine:
no script, font or picture comes from elsewhere, and the content security policy says so.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from typing import Any, Protocol

import msgspec
from plotly.offline import get_plotlyjs
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from headwater.dashboard.auth import COOKIE, Gate, cookie_value
from headwater.dashboard.metrics import registry
from headwater.dashboard.model import PageModel

Status = Callable[[], dict[str, Any] | None]

STREAM_EVERY_S = 1.0
STREAMS_MAX = 64
LOGIN_BODY_BYTES_MAX = 4096

_SECURITY_HEADERS = {
    # Plotly sets styles on the elements that it draws, hence 'unsafe-inline' for styles alone.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class History(Protocol):
    """What the page reads of `processors.history`."""

    def series(self) -> list[dict[str, Any]]: ...
    def read(self, device: str, rule: str, field: str, aggregate: str, begin_ms: int, end_ms: int) -> list[Any]: ...


def create_app(*, status: Status, model: PageModel, token: str | None, history: History | None = None) -> Starlette:
    """The application; `token` None serves loopback host names only.

    `status` gives the core's last status document, or None while the core does not answer; `history` is None on a
    node that keeps none.
    """
    page = _Page(status, model, token)
    past = PastApi(history)
    routes = [
        Route("/", page.index),
        Route("/login", page.login, methods=["GET", "POST"]),
        Route("/static/{name}", page.static),
        Route("/api/v1/status", page.status),
        Route("/api/v1/snapshot", page.snapshot),
        Route("/api/v1/stream", page.stream),
        Route("/api/v1/history", past.points),
        Route("/api/v1/history/series", past.series),
        Route("/metrics", page.metrics),
        Route("/healthz", page.healthz),
        Route("/readyz", page.readyz),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Gate, token=token)])


class PastApi:
    """Window results of months, for the page and for programs (docs/operations.md)."""

    def __init__(self, history: History | None) -> None:
        self._history = history

    async def series(self, _request: Request) -> Response:
        """What there is; `[]` on a node that keeps no history."""
        found = await asyncio.to_thread(self._history.series) if self._history is not None else []
        return _json(msgspec.json.encode({"series": found}))

    async def points(self, request: Request) -> Response:
        """Points of one aggregate: `[start, end, value, min, max, readings, complete]`, times in ms, oldest first."""
        asked = request.query_params
        missing = [name for name in _ASKED if not asked.get(name)]
        if missing:
            return _json(msgspec.json.encode({"error": f"missing: {', '.join(missing)}"}), 400)
        times = [asked["from"], asked["to"]]
        if not all(time.isdigit() and len(time) <= 15 for time in times) or int(times[0]) >= int(times[1]):
            return _json(b'{"error":"from and to are times in ms since the Unix epoch, from before to"}', 400)
        device, rule, field, aggregate = (asked[name] for name in _ASKED[:4])
        begin_ms, end_ms = map(int, times)
        found: list[Any] = []
        if self._history is not None:
            found = await asyncio.to_thread(self._history.read, device, rule, field, aggregate, begin_ms, end_ms)
        told = {"device": device, "rule": rule, "field": field, "aggregate": aggregate, "points": found}
        return _json(msgspec.json.encode(told))


_ASKED = ("device", "rule", "field", "aggregate", "from", "to")


class _Page:
    def __init__(self, status: Status, model: PageModel, token: str | None) -> None:
        self._status = status
        self._model = model
        self._token = token
        self._registry = registry(status, model)
        self._assets: dict[str, _Asset] = {}
        self._streams = 0

    # --- the page -----------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        return self._asset("page.html").response(request)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSET_TYPES:
            return Response("No such file.\n", 404)
        return self._asset(name).response(request)

    def _asset(self, name: str) -> _Asset:
        if name not in self._assets:
            self._assets[name] = _Asset(name)
        return self._assets[name]

    async def login(self, request: Request) -> Response:
        page = self._asset("login.html").text
        if request.method == "GET" or self._token is None:
            return HTMLResponse(page.replace("{{message}}", ""), headers=_SECURITY_HEADERS)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LOGIN_BODY_BYTES_MAX:
                return Response("Too large.\n", 413, headers={"Connection": "close"})
        offered = body.partition(b"token=")[2].partition(b"&")[0]  # the token is URL-safe: no decoding needed
        if not hmac.compare_digest(offered, self._token.encode()):
            await asyncio.sleep(1)  # one guess a second and connection
            message = "That is not this node's token."
            return HTMLResponse(page.replace("{{message}}", message), 401, headers=_SECURITY_HEADERS)
        response = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, cookie_value(self._token), httponly=True, samesite="strict", secure=secure)
        return response

    # --- the API ------------------------------------------------------------------------------------

    def _document(self, since: int) -> bytes:
        document = self._model.since(since)
        document["status"] = self._status()
        return msgspec.json.encode(document)

    async def status(self, _request: Request) -> Response:
        status = self._status()
        return _json(msgspec.json.encode(status or {"state": "down"}), 200 if status else 503)

    async def snapshot(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        if not since.isdigit():
            return _json(b'{"error":"since is the change number of an earlier answer"}', 400)
        return _json(self._document(int(since)))

    async def stream(self, _request: Request) -> Response:
        if self._streams >= STREAMS_MAX:
            return _json(b'{"error":"too many pages are open on this node"}', 503)
        return StreamingResponse(self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _events(self) -> AsyncIterator[bytes]:
        """A whole snapshot first, then each second what changed; the id lets a browser resume."""
        self._streams += 1
        seen = 0
        try:
            while True:
                document = self._document(seen)
                seen = self._model.change
                yield b"id: %d\ndata: %b\n\n" % (seen, document)
                await asyncio.sleep(STREAM_EVERY_S)
        finally:
            self._streams -= 1

    # --- seen from outside --------------------------------------------------------------------------

    async def metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_1_0_0)

    async def healthz(self, _request: Request) -> Response:
        """200 while the core process answers: what a supervisor restarts on."""
        status = self._status()
        if status is None:
            return _json(b'{"healthy":false,"why":"the core does not answer"}', 503)
        return _json(b'{"healthy":true}')

    async def readyz(self, _request: Request) -> Response:
        """200 while the node takes readings; a broken uplink does not make a gateway unready."""
        status = self._status()
        ready = status is not None and status.get("state") != "down"
        answer: dict[str, Any] = {"ready": ready}
        if self._token is None:  # off loopback this path is open to everybody, and problems name devices
            answer["problems"] = status.get("problems", []) if status else ["the core does not answer"]
        return _json(msgspec.json.encode(answer), 200 if ready else 503)


_ASSET_TYPES: Mapping[str, str] = {
    "page.html": "text/html; charset=utf-8",
    "login.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "past.js": "text/javascript; charset=utf-8",
    "plotly.min.js": "text/javascript; charset=utf-8",
}


class _Asset:
    """A static file, compressed once; a browser that has it is told so."""

    def __init__(self, name: str) -> None:
        # plotly's Python package carries its JavaScript: nothing is copied into this project
        folder = resources.files("headwater.dashboard") / "static"
        self.text = get_plotlyjs() if name == "plotly.min.js" else (folder / name).read_text(encoding="utf-8")
        self._packed = gzip.compress(self.text.encode(), 6)
        self._etag = f'"{hashlib.sha256(self._packed).hexdigest()[:16]}"'
        self._type = _ASSET_TYPES[name]

    def response(self, request: Request) -> Response:
        headers = {"ETag": self._etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **_SECURITY_HEADERS}
        if request.headers.get("if-none-match") == self._etag:
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.text, media_type=self._type, headers=headers)
        return Response(self._packed, media_type=self._type, headers=headers | {"Content-Encoding": "gzip"})


def _json(body: bytes, code: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", **_SECURITY_HEADERS}
    return Response(body, code, media_type="application/json", headers=headers)
