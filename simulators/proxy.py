"""A TCP proxy that can become a black hole, as a mobile link or a firewall that has lost its state does.

While the hole is open nothing passes: connections that saw it stay open and silent for good (not even their end is
passed on), new ones are accepted and silent until it ends, and are served then if their client is still there.

To open the hole at the worst moment for a transactional Kafka client, arm it: it opens right after a Produce
request has passed whole, so that the far end has the data and the near end never hears of it. The proxy reads
nothing of the protocol but frame lengths and the api key (Kafka protocol guide: INT32 length, INT16 api key).

Run: `python -m simulators.proxy --listen HOST:PORT --target HOST:PORT`; commands (see `simulators.control`):
`arm SECONDS`, `hole SECONDS`, `restore`, `stop`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from headwater.net import parse_address
from simulators.control import Console

PRODUCE_API_KEY = 0
CHUNK_BYTES = 65536
ARMED_MS_MAX = 5000.0
CONNECTIONS_MAX = 512


class FrameScanner:
    """Follows Kafka's framing in one direction of a connection; sans-IO."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._is_produce = False

    def feed(self, data: bytes) -> bool:
        """True when a Produce request has become complete within `data`."""
        position, seen = 0, False
        while position < len(data):
            if self._left == 0:
                take = data[position : position + 6 - len(self._head)]
                self._head += take
                position += len(take)
                if len(self._head) < 6:
                    break
                # The two bytes of the api key are part of the length.
                self._left = max(0, int.from_bytes(self._head[:4], "big") - 2)
                self._is_produce = int.from_bytes(self._head[4:], "big") == PRODUCE_API_KEY
                self._head = b""
            take_bytes = min(self._left, len(data) - position)
            self._left -= take_bytes
            position += take_bytes
            seen |= self._left == 0 and self._is_produce
        return seen


class Proxy:
    """The proxy itself; `report(event, members)` is told what happens."""

    def __init__(self, target: tuple[str, int], report: Callable[[str, dict[str, Any]], None]) -> None:
        self._target, self._report = target, report
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._holes = 0  # how many there have been: a connection older than the newest is dead
        self._armed: tuple[float, asyncio.TimerHandle] | None = None
        self._ends: asyncio.TimerHandle | None = None
        self._passing = 0
        self.swallowed_bytes = 0

    def listen(self, address: tuple[str, int]) -> tuple[str, int]:
        """Start; the address that it got."""
        self._listener = socket.create_server(address, backlog=128)
        self._listener.setblocking(False)  # noqa: FBT003 - a socket's own method
        self._start(self._accept(self._listener))
        host, port = self._listener.getsockname()[:2]
        return host, port

    def arm(self, seconds: float) -> None:
        """Open the hole for `seconds` right after the next Produce request, in `ARMED_MS_MAX` at the latest."""
        if self._armed is None and self._open.is_set():
            late = asyncio.get_running_loop().call_later(ARMED_MS_MAX / 1000.0, self._open_hole, seconds)
            self._armed = (seconds, late)

    def hole(self, seconds: float) -> None:
        """Open the hole now."""
        self._open_hole(seconds)

    def restore(self) -> None:
        """End the hole, or the waiting for one."""
        if self._armed is not None:
            self._armed[1].cancel()
            self._armed = None
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
            self._open.set()
            self._report("restored", {"holes": self._holes, "swallowed_bytes": self.swallowed_bytes})

    async def close(self) -> None:
        """Close every connection."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open_hole(self, seconds: float, *, after_produce: bool = False) -> None:
        if self._armed is not None:
            self._armed[1].cancel()
            self._armed = None
        if not self._open.is_set():
            return
        self._open.clear()
        self._holes += 1
        self._ends = asyncio.get_running_loop().call_later(seconds, self.restore)
        members = {"seconds": seconds, "after_produce": after_produce, "connections": self._passing}
        self._report("hole", members)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            if len(self._tasks) >= CONNECTIONS_MAX:
                near.close()
                continue
            near.setblocking(False)  # noqa: FBT003 - a socket's own method
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve(near))

    async def _serve(self, near: socket.socket) -> None:
        with near:
            while not self._open.is_set():
                await self._open.wait()
            hole = self._holes
            if _hung_up(near):
                return
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET) as far:
                far.setblocking(False)  # noqa: FBT003 - a socket's own method
                try:
                    await loop.sock_connect(far, self._target)
                except OSError:
                    return
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._relay(near, far, hole)

    async def _relay(self, near: socket.socket, far: socket.socket, hole: int) -> None:
        """Pass bytes both ways until one side ends; a connection that meets a hole ends only with the proxy."""
        self._passing += 1
        ways = [
            asyncio.ensure_future(self._pump(near, far, hole, FrameScanner())),
            asyncio.ensure_future(self._pump(far, near, hole, None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self._holes != hole:  # neither end is told: both sockets stay as they are
                await asyncio.Event().wait()
        finally:
            self._passing -= 1
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket, hole: int, scan: FrameScanner | None) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, CHUNK_BYTES):
                if self._holes != hole:
                    self.swallowed_bytes += len(data)
                    continue
                await loop.sock_sendall(sink, data)
                if scan is not None and scan.feed(data) and self._armed is not None:
                    self._open_hole(self._armed[0], after_produce=True)


def _hung_up(near: socket.socket) -> bool:
    """Whether the client has closed its end, unread bytes notwithstanding."""
    poll = select.poll()
    poll.register(near, select.POLLRDHUP)
    return bool(poll.poll(0))


async def run(listen: tuple[str, int], target: tuple[str, int], console: Console) -> None:
    """Serve until told to stop."""
    proxy = Proxy(target, console.say)
    stopped = asyncio.Event()

    def obey() -> None:
        for command in console.commands():
            seconds = _seconds(command)
            if command[0] == "arm":
                proxy.arm(seconds)
            elif command[0] == "hole":
                proxy.hole(seconds)
            elif command[0] == "restore":
                proxy.restore()
            elif command[0] == "stop":
                stopped.set()
        if not console.inputs:
            loop.remove_reader(watched)

    host, port = proxy.listen(listen)
    console.say("ready", {"address": f"{host}:{port}"})
    loop, watched = asyncio.get_running_loop(), console.inputs[0]
    loop.add_reader(watched, obey)
    await stopped.wait()
    loop.remove_reader(watched)
    await proxy.close()
    console.say("stopped")


def _seconds(command: list[str]) -> float:
    try:
        return float(command[1])
    except (IndexError, ValueError):
        return 15.0


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m simulators.proxy", description="a TCP proxy with a black hole")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--target", required=True)
    options = parser.parse_args(arguments)
    asyncio.run(run(parse_address(options.listen), parse_address(options.target), Console()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
