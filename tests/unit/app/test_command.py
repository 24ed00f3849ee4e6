"""The command socket: one line in, one line out, for the node's own user."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from headwater.app.command import LINE_BYTES_MAX, CommandServer, answer, send_command
from headwater.errors import UserError


def refuse(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise UserError("not today", hint="Come back tomorrow.")


HANDLERS = {"say": lambda request: {"said": request["word"]}, "no": refuse}


def ask(tmp_path: Path, what: Callable[[], Any]) -> Any:
    (tmp_path / "node").mkdir(exist_ok=True)

    async def run() -> Any:
        server = await CommandServer.start(str(tmp_path), HANDLERS)
        try:
            assert os.stat(tmp_path / "node" / "command.sock").st_mode & 0o777 == 0o600
            return await asyncio.to_thread(what)
        finally:
            server.close()

    return asyncio.run(run())


def test_a_command_is_answered(tmp_path: Path) -> None:
    assert ask(tmp_path, lambda: send_command(str(tmp_path), "say", word="go")) == {"ok": True, "said": "go"}


def test_a_refusal_reaches_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not today") as caught:
        ask(tmp_path, lambda: send_command(str(tmp_path), "no"))
    assert caught.value.hint == "Come back tomorrow."


def test_no_node(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with pytest.raises(UserError, match="no node runs"):
        send_command(str(tmp_path), "say")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"command":"fly"}', b"x" * (LINE_BYTES_MAX + 1), b'{"command":["a"]}'])
def test_nonsense_is_refused(line: bytes) -> None:
    assert answer(line, HANDLERS)["ok"] is False
