"""A recording played into a node of its own: what stands in its log then, and what its windows said of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.consume.reader import Block
from gateway.log.records import encode_headers
from headwater.net import free_port
from processors.processor import PartitionProcessor
from processors.rules.files import load_rules
from simulators.verdict import LogReader
from tests.support.group_processing import Said
from tests.support.processes import HEADWATER, node

ANSWER_S = 30.0


class Played(NamedTuple):
    """The readings with their marks, in the order of the log, and the results in the order in which they were told."""

    readings: Block
    said: list[Said]

    @property
    def values(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for _, value, _ in self.said]

    def cut(self, size: int) -> Iterator[Block]:
        """The same records in blocks of `size`."""
        whole = self.readings
        for begin in range(0, len(whole.keys), size):
            end = min(begin + size, len(whole.keys))
            yield whole._replace(
                offsets=whole.offsets[begin:end],
                timestamps=whole.timestamps[begin:end],
                keys=whole.keys[begin:end],
                values=whole.values[begin:end],
                headers=whole.headers[begin:end],
                next_offset=whole.offsets[end - 1] + 1,
            )

    def again(self, rules: Path, size: int, *, restart: bool = False) -> list[Said]:
        """What processors say of the log in blocks of `size`; `restart`: from a snapshot between any two."""
        read = load_rules([str(rules)])
        one = PartitionProcessor(read, "readings", 0, place="edge")
        found: list[Said] = []
        for block in self.cut(size):
            outputs = one.process(block)
            found += [(key or b"", value or b"", at) for at, key, value, *_ in (output.record for output in outputs)]
            if not restart:
                continue
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(one.snapshot()))
            one = PartitionProcessor(read, "readings", 0, place="edge")
            one.restore(state)
        return found


class Player:
    """A folder with a node's files, `headwater.toml` among them, and ports of its own beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka, self.mqtt = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "ports.toml").write_text(
            f'[mqtt]\nlisten = "{self.mqtt}"\n[kafka]\nlisten = "{self.kafka}"\n'
            f'[page]\nlisten = "127.0.0.1:{free_port()}"\n'
        )

    def headwater(self, *arguments: str) -> str:
        """Run a command in the folder; what it printed."""
        environment = {key: value for key, value in os.environ.items() if key != "HEADWATER_CONFIG"}
        environment |= {"XDG_CONFIG_HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), "COLUMNS": "120"}
        done = subprocess.run(
            [*HEADWATER, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(
        self, arguments: Sequence[str], is_over: Callable[[list[Said]], bool], then: Callable[[], None] = lambda: None
    ) -> Played:
        """Play a recording (the arguments of `headwater simulate`) and read until all is told; `then` asks the node."""
        with node(self.folder / "headwater.toml", self.folder / "data"):
            self.headwater("simulate", *arguments, "--mqtt", self.mqtt)
            readings: list[Any] = []
            said: list[Said] = []
            reader = LogReader(
                self.kafka,
                {
                    "readings": readings.append,
                    "aggregates": lambda one: said.append((one.key(), one.value(), one.timestamp()[1])),
                },
            )
            while not is_over(said):
                assert reader.read_to_end(ANSWER_S), (self.folder / "headwater.log").read_text()
            reader.close()
            then()
        block = Block(
            "readings",
            0,
            [one.offset() for one in readings],
            [one.timestamp()[1] for one in readings],
            [one.key() for one in readings],
            [one.value() for one in readings],
            [encode_headers(one.headers() or []) for one in readings],
            readings[-1].offset() + 1,
        )
        return Played(block, said)
