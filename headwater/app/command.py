"""The command socket: the node's own user tells a running node to do something.

`<data>/node/command.sock`, mode 0600. A client sends one JSON line, `{"command": NAME, …}`, and gets one back:
`{"ok": true, …}` or `{"ok": false, "error": …, "hint": …}`. Reading the status needs less and has a socket of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headwater.app.control import listen_unix, short_path
from headwater.errors import UNREADABLE, HeadwaterError, UserError

SOCKET_NAME = "command.sock"
LINE_BYTES_MAX = 4096
PATIENCE_S = 5.0

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class CommandServer:
    """Answers the commands in `handlers`, each at once."""

    def __init__(self, server: asyncio.Server, path: str) -> None:
        self._server = server
        self._path = path

    @classmethod
    async def start(cls, data_dir: str, handlers: Mapping[str, Handler]) -> CommandServer:
        listening = listen_unix(data_dir, SOCKET_NAME, mode=0o600)
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Conversation(handlers), sock=listening)
        return cls(server, os.path.join(data_dir, "node", SOCKET_NAME))

    def close(self) -> None:
        self._server.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)


class _Conversation(asyncio.Protocol):
    """One line in, one line out, within `PATIENCE_S`."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._line = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket's transport always is
        self._transport = transport
        asyncio.get_running_loop().call_later(PATIENCE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._line += data
        if b"\n" in data or len(self._line) > LINE_BYTES_MAX:
            self._transport.write(msgspec.json.encode(answer(bytes(self._line), self._handlers)) + b"\n")
            self._transport.close()


def answer(line: bytes, handlers: Mapping[str, Handler]) -> dict[str, Any]:
    """What one line is answered with; a handler's `HeadwaterError` becomes its text."""
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
    except UNREADABLE as error:
        return {"ok": False, "error": f"not a command: {error}", "hint": ""}
    handler = handlers.get(str(request.get("command")))
    if handler is None:
        return {"ok": False, "error": f"this node knows no command “{request.get('command')}”", "hint": ""}
    try:
        return {"ok": True, **handler(request)}
    except HeadwaterError as error:
        return {"ok": False, "error": error.what, "hint": error.hint}


def send_command(data_dir: str, command: str, **arguments: object) -> dict[str, Any]:
    """Tell the node that runs on this data directory; raises UserError when it does not run or refuses."""
    line = msgspec.json.encode({"command": command, **arguments}) + b"\n"
    reply = bytearray()
    try:
        with short_path(data_dir, SOCKET_NAME) as path, socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            client.connect(path)
            client.sendall(line)
            while (data := client.recv(65536)) and len(reply) < 1 << 20:
                reply += data
    except PermissionError:
        raise UserError(
            f"this user may not command the node in {data_dir}", hint="Run the command as the user of the node."
        ) from None
    except OSError as error:
        raise UserError(f"no node runs in {data_dir}: {error}", hint="Start it with `headwater run`.") from None
    try:
        answered = msgspec.json.decode(bytes(reply), type=dict[str, Any])
    except UNREADABLE:
        raise UserError("the node ended before it answered", hint="Ask again; `headwater status` says more.") from None
    if not answered.get("ok"):
        raise UserError(str(answered.get("error")), hint=str(answered.get("hint", "")))
    return answered
