"""The demo's processes: started in order, watched, killed as the plot wants, ended without a trace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from headwater.app.control import fetch_status
from headwater.demo.children import Child
from headwater.demo.layout import EDGE, FAST_TURBINE, OVERHEATING_TURBINE, Layout
from headwater.demo.story import OUTAGE_S
from headwater.errors import UserError

START_S_MAX = 30.0
_NODE = "import sys; from headwater.cli.entry import main; sys.argv[0] = 'headwater'; main()"


class Cast:
    """All processes of one run. `heard(event)` gets what the simulators say, with `from` added."""

    def __init__(self, layout: Layout, seed: int, heard: Callable[[dict[str, Any]], None]) -> None:
        self.layout, self._seed, self._heard = layout, seed, heard
        self._ready: dict[str, asyncio.Event] = {}
        self._last: dict[str, dict[str, Any]] = {}  # (simulator event) -> its latest members
        self.central: Child | None = None
        self.edge: Child | None = None
        self.proxy: Child | None = None
        self.mast: Child | None = None
        self.farm: Child | None = None

    async def start(self) -> None:
        """Central, proxy, mast, edge, farm, each once the one before it is ready. Raises `UserError`."""
        layout, ports = self.layout, self.layout.ports
        self.central = await self._node("central", str(layout.central_config))
        await self._answers(self.central, str(layout.central_data))
        self.proxy = await self._simulator(
            "proxy", "--listen", f"127.0.0.1:{ports.proxy}", "--target", f"127.0.0.1:{ports.central_kafka}"
        )
        self.mast = await self._simulator("mast", "--link", str(layout.serial), "--seed", str(self._seed))
        await self.start_edge()
        await self._page_listens(self.central, ports.central_page)
        await self._page_listens(self.edge, ports.edge_page)
        self.farm = await self._simulator(
            "farm",
            *("--mqtt", f"127.0.0.1:{ports.edge_mqtt}"),
            *("--ledger", str(layout.ledger)),
            *("--seed", str(self._seed)),
            *("--fast-clock", FAST_TURBINE[-2:]),
            *("--overheating", OVERHEATING_TURBINE[-2:]),
            *("--report-every", "0.25"),
        )

    async def start_edge(self) -> None:
        """Start the edge, for the first time or again."""
        self.edge = await self._node("edge", str(self.layout.edge_config))
        await self._answers(self.edge, str(self.layout.edge_data))

    async def _node(self, name: str, config: str) -> Child:
        return await Child.start(name, ["-c", _NODE, "run", "--config", config], self.layout.directory)

    async def _answers(self, child: Child, data_dir: str) -> None:
        """Wait until a node's control socket answers with this process's pid."""
        async with _patience(child):
            while True:
                status = await self._status(data_dir)
                if status is not None and status.get("pid") == child.pid:
                    return
                if child.returncode is not None:
                    raise child.complaint()
                await asyncio.sleep(0.05)

    @staticmethod
    async def _page_listens(child: Child | None, port: int) -> None:
        """Wait for a node's page, which its work process serves a moment after the core has started."""
        assert child is not None  # noqa: S101 - started by the caller
        async with _patience(child):
            while child.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)
        raise child.complaint()

    @staticmethod
    async def _status(data_dir: str) -> dict[str, Any] | None:
        return await fetch_status(data_dir, timeout_s=1.0)

    async def edge_status(self) -> dict[str, Any] | None:
        return await self._status(str(self.layout.edge_data))

    async def central_status(self) -> dict[str, Any] | None:
        return await self._status(str(self.layout.central_data))

    async def _simulator(self, name: str, *arguments: str) -> Child:
        ready = self._ready[name] = asyncio.Event()

        def on_event(event: dict[str, Any]) -> None:
            if event.get("event") == "ready":
                ready.set()
            self._heard({**event, "from": name})

        child = await Child.start(name, ["-m", f"simulators.{name}", *arguments], self.layout.directory, on_event)
        async with _patience(child):
            waiting = asyncio.create_task(ready.wait())
            ending = asyncio.create_task(child.ended())
            await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.is_set():
                waiting.cancel()
                raise child.complaint()
            ending.cancel()
        return child

    def cut(self) -> None:
        """Turn the uplink into a black hole, at the worst moment."""
        if self.proxy is not None:
            self.proxy.say(f"arm {OUTAGE_S}")

    def overheat(self, word: str) -> None:
        if self.farm is not None:
            self.farm.say(f"overheat {word}")

    def garbage(self) -> None:
        if self.farm is not None:
            self.farm.say("garbage")

    async def kill_edge(self) -> None:
        """SIGKILL to the edge and its work process, and a new start at once."""
        if self.edge is None:
            return
        self.edge.kill()
        await self.edge.ended()
        await self.start_edge()

    async def verdict(self, facts: dict[str, Any], *, wait_s: float, readings_only: bool) -> dict[str, Any]:
        """Let the judge speak: its `verdict` event. Raises `UserError` when it could not."""
        said: list[dict[str, Any]] = []
        ports = self.layout.ports
        child = await Child.start(
            "verdict",
            [
                *("-m", "simulators.verdict"),
                *("--ledger", str(self.layout.ledger)),
                *("--edge", f"127.0.0.1:{ports.edge_kafka}"),
                *("--central", f"127.0.0.1:{ports.central_kafka}"),
                *("--node", EDGE),
                *("--timed-by-log", FAST_TURBINE),
                *("--wait", str(wait_s)),
                *("--facts", msgspec.json.encode(facts).decode()),
                *(["--readings-only"] if readings_only else []),
            ],
            self.layout.directory,
            said.append,
        )
        try:
            await child.ended()
        finally:
            await child.stop(0.0)
        spoken = [event for event in said if event.get("event") == "verdict"]
        if not spoken:
            raise child.complaint()
        return spoken[0]

    def check(self, *, edge: bool) -> None:
        """Raises `UserError` when a process has ended that should not have; the edge only counts if `edge`."""
        for child in (self.central, self.edge if edge else None, self.proxy, self.mast, self.farm):
            if child is not None and child.returncode is not None:
                raise child.complaint()

    async def stop_farm(self) -> None:
        """No more readings from anyone; wait for the acknowledgements of those that were sent."""
        if self.mast is not None:
            self.mast.say("silence on")
        if self.farm is not None:
            farm, self.farm = self.farm, None
            farm.say("stop")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(farm.ended(), 25.0)
            await farm.stop()

    async def stop(self) -> None:
        """End everything: the farm first, then each node before what it is connected to."""
        for child in (self.farm, self.edge, self.mast, self.proxy, self.central):
            if child is not None:
                await child.stop()


@contextlib.asynccontextmanager
async def _patience(child: Child) -> Any:
    try:
        async with asyncio.timeout(START_S_MAX):
            yield
    except TimeoutError:
        raise UserError(
            f"the {child.name} was not ready within {START_S_MAX:.0f} s; the end of its log:",
            hint=child.last_words().lstrip(),
        ) from None
