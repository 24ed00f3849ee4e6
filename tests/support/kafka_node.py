"""A node with nothing but a log and its Kafka listener, as a process: `python -m tests.support.kafka_node DIR PORT`.

It prints the port that it listens on, and stops when its standard input ends. `KafkaNode` starts and kills it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

from gateway.log.settings import LogSettings
from gateway.log.store import LogStore
from gateway.serve import serve_kafka
from gateway.wire.broker import Broker
from headwater.clock import SystemClock
from headwater.disk import RealDisk
from headwater.net import RealNet

ROOT = Path(__file__).resolve().parents[2]


async def serve(data_dir: str, port: int, fsync_interval_ms: int = 0) -> None:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    store = LogStore.open(
        data_dir,
        node="test",
        settings=LogSettings(fsync_interval_ms=fsync_interval_ms),
        disk=RealDisk(),
        clock=clock,
        call_in_loop=loop.call_soon_threadsafe,
        call_soon=loop.call_soon,
    )
    listener = await serve_kafka(Broker(store, clock), RealNet(), "127.0.0.1", port)
    print(listener.address[1], flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    listener.close()
    store.close()


class KafkaNode:
    """Starts the process; `kill` and `start` again keep its data and its port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.kafka_node", str(self.directory / "data"), str(self.port)]
        with open(self.directory / "node.log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ}
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.port = int(line)

    def log(self) -> str:
        return (self.directory / "node.log").read_text()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self._gone()

    def stop(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self._gone()

    def _gone(self) -> None:
        if self.process is not None:
            self.process.wait(20)
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
