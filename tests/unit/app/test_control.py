from __future__ import annotations

import asyncio
import os
from pathlib import Path

from headwater.app.control import ControlServer, fetch_status, read_status


async def answer_through(data_dir: Path) -> None:
    (data_dir / "node").mkdir(parents=True)
    server = await ControlServer.start(str(data_dir), lambda: {"node": "n", "big": "x" * 300_000})
    try:
        status = await fetch_status(str(data_dir))
        assert status is not None
        assert (status["node"], len(status["big"])) == ("n", 300_000)
        blocking = await asyncio.to_thread(read_status, str(data_dir))
        assert blocking == status
        assert os.stat(data_dir / "node" / "control.sock").st_mode & 0o777 == 0o660
    finally:
        server.close()
    assert await fetch_status(str(data_dir)) is None


def test_a_status_travels_through_the_socket(tmp_path: Path) -> None:
    asyncio.run(answer_through(tmp_path))


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    asyncio.run(answer_through(deep))


def test_a_socket_left_by_a_dead_node_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "control.sock").write_text("")

    async def run() -> None:
        server = await ControlServer.start(str(tmp_path), lambda: {"node": "n"})
        assert await fetch_status(str(tmp_path)) == {"node": "n"}
        server.close()

    asyncio.run(run())


def test_no_node_is_none_not_an_error(tmp_path: Path) -> None:
    assert read_status(str(tmp_path)) is None
    (tmp_path / "node").mkdir()
    assert read_status(str(tmp_path)) is None
