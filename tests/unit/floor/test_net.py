"""Addresses, and who holds a port."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from headwater.errors import UserError
from headwater.net import RealNet, free_port, is_loopback, parse_address, port_holder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9092", ("127.0.0.1", 9092)),
        ("[::1]:80", ("::1", 80)),
        (":1883", ("0.0.0.0", 1883)),
        ("pi.local", ("pi.local", 7)),
        ("[::1]", ("::1", 7)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, default_port=7) == expected


@pytest.mark.parametrize("text", ["pi:http", "pi:70000", "pi:"])
def test_no_address(text: str) -> None:
    with pytest.raises(UserError, match="is no address"):
        parse_address(text)


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "pi")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_the_holder_of_a_port_is_named_even_when_it_is_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = port_holder(server.getsockname()[1])
    assert holder is not None
    assert holder.endswith(f"(pid {os.getpid()})")


def test_nobody_holds_a_free_port() -> None:
    assert port_holder(free_port()) is None


def test_a_connection_from_a_port_does_not_hold_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert port_holder(client.getsockname()[1]) is None


def test_a_cancellation_in_any_step_of_listening_leaves_no_socket_open() -> None:
    async def listening(steps: int) -> bool:
        """Whether it was done within so many turns of the loop; else it is cancelled."""
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(RealNet().listen(asyncio.Protocol, "127.0.0.1", 0))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            (await task).close()
        except asyncio.CancelledError:
            return False
        finally:
            assert len(loop._selector.get_map()) == 1  # type: ignore[attr-defined]  # the loop's own
        return True

    assert not asyncio.run(listening(0))
    steps = 1
    while not asyncio.run(listening(steps)):
        steps += 1
    assert steps > 1
