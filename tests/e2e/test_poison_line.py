"""An hour of a serial line on which one message in ten is none, through a real node."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Message

from headwater.app.control import read_status
from headwater.net import free_port
from simulators.garbage import garbage_payload
from simulators.verdict import LogReader
from tests.support.processes import node
from tests.support.serial_ports import Line
from tests.support.waiting import until

LINES = 90_000  # 25 a second: what a line of 9,600 baud carries
ONE_LINE = bytes.maketrans(b"\r\n", b"..")
CONFIG = """
role = "edge"
node = "edge-1"
data_dir = "data"
[kafka]
listen = "127.0.0.1:{kafka}"
[[serial]]
port = "{line}"
name = "hall"
profile = "simulated-serial"
silent_ms = 600000
"""


def resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def poison(random: Random, number: int) -> bytes:
    """No message: what a simulated device's garbage is, and now and then a line that does not end for long."""
    if number % 100 == 0:
        return b"\x00\xfe{" * 1_000
    return garbage_payload(random, number).translate(ONE_LINE)


@pytest.mark.long("poison")
@pytest.mark.timeout(600)
def test_an_hour_of_a_line_with_one_poisoned_message_in_ten_loses_no_good_one_and_no_memory(tmp_path: Path) -> None:
    """What was said is in this test's own book. The pseudo-terminal takes what the node reads, and no more."""
    kafka, link = free_port(), tmp_path / "hall"
    config = tmp_path / "headwater.toml"
    config.write_text(CONFIG.format(kafka=kafka, line=link))
    line, random = Line(link), Random(1)
    said: list[int] = []
    samples: list[int] = []
    stored: Counter[int] = Counter()
    dead = 0

    def reading(record: Message) -> None:
        if record.key() == b"edge-1/$gateway":
            return  # what the node says of itself
        value = json.loads(record.value() or b"")
        assert value["energy"] == value["seq"] / 4
        stored[value["seq"]] += 1

    def dead_letter(_: Message) -> None:
        nonlocal dead
        dead += 1

    with node(config, tmp_path / "data") as process:

        def source() -> dict[str, object]:
            ingest = (read_status(str(tmp_path / "data")) or {}).get("ingest") or {"sources": []}
            return next((dict(one) for one in ingest["sources"] if one["id"] == "serial:hall"), {})

        until(lambda: source().get("connected"), "the line was not opened")
        for number in range(LINES):
            if random.random() < 0.1:
                line.say(poison(random, number) + b"\n")
            else:
                body = {"device": "meter-1", "ts": 1_767_225_600_000 + 40 * number, "seq": number}
                line.say(json.dumps(body | {"energy": number / 4}).encode() + b"\r\n")
                said.append(number)
            if number % 1_000 == 0:
                samples.append(resident_kib(process.pid))
        reader = LogReader(f"127.0.0.1:{kafka}", {"readings": reading, "deadletter": dead_letter})
        try:
            until(lambda: reader.read_to_end(20.0) and len(stored) >= len(said), "readings are missing")
        finally:
            reader.close()
        assert source()["problem"] is None
    assert stored == Counter(said)
    assert dead == LINES - len(said)
    quarter = len(samples) // 4
    assert max(samples[-quarter:]) < 1.15 * max(samples[:quarter]), samples
