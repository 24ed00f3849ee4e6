"""Who may see the page.

On loopback: whoever is on the machine, but only under a loopback host name, so that a web site which points its own
name at 127.0.0.1 (DNS rebinding) reads nothing. Off loopback: whoever has the token, made at the first start, shown
once and kept in a file of mode 0600. A browser trades it for a cookie at `/login`; a program sends it as
`Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from http.cookies import SimpleCookie
from urllib.parse import quote

from crc32c import crc32c
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.dashboard.token_file import read_token
from headwater.disk import Disk, RealDisk, read_or_none
from headwater.errors import UserError

_RANDOM_BYTES = 24  # 32 characters
COOKIE = "headwater_page"
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/static/page.css"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def load_token(path: str, disk: Disk | None = None) -> tuple[str, bool]:
    """The token in the file at `path`, made (0600) when there is none; and whether it was made just now.

    The last 8 characters of one that is made are the CRC-32C of the others; one of another length is somebody's own.
    A file without a token (empty or zeros after a power cut, or on a bad sector) gets a new one: nobody could come in
    with it. Raises `UserError` for one that is damaged or none, and when it cannot be written.
    """
    disk = disk or RealDisk()
    try:
        token = read_token(read_or_none(disk, path) or b"")
    except (OSError, ValueError) as error:
        raise UserError(
            f"the page's token in {path} cannot be used: {error}",
            hint="Remove the file to have a new one made at the next start.",
        ) from None
    if token:
        return token, False
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    token += f"{crc32c(token.encode()):08x}"
    try:
        disk.replace_file(path, f"{token}\n".encode("ascii"), mode=0o600)
    except OSError as error:
        raise UserError(
            f"the page's token cannot be written to {path}: {error.strerror}",
            hint="Make room there, or give another token_file under [page].",
        ) from None
    return token, True


def cookie_value(token: str) -> str:
    """What the cookie holds: proof of the token, not the token."""
    return hmac.new(token.encode(), b"headwater page", hashlib.sha256).hexdigest()


def host_name(header: str) -> str:
    """The name in a Host header, without the port."""
    return header if header.endswith("]") else header.rpartition(":")[0] or header


class Gate:
    """ASGI middleware in front of every route; `token` None means loopback only."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._token is None:
            if host_name(headers.get("host", "")) in _LOOPBACK_NAMES:
                await self._app(scope, receive, send)
            else:
                await PlainTextResponse("This page answers to localhost only.\n", 421)(scope, receive, send)
        elif scope["path"] in OPEN_PATHS or self._admits(self._token, headers):
            await self._app(scope, receive, send)
        elif "text/html" in headers.get("accept", ""):
            await RedirectResponse(f"/login?next={quote(scope['path'])}", 303)(scope, receive, send)
        else:
            refusal = {"error": "the page's token is needed: Authorization: Bearer TOKEN"}
            await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    @staticmethod
    def _admits(token: str, headers: Headers) -> bool:
        scheme, _, offered = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(offered.strip().encode(), token.encode()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        cookies.load(headers.get("cookie", ""))
        held = cookies[COOKIE].value if COOKIE in cookies else ""
        return hmac.compare_digest(held.encode(), cookie_value(token).encode())
