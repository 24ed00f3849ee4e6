"""Replaying dead letters of serial lines: a Modbus unit's by its bus's profile, what framing refused never."""

from __future__ import annotations

import asyncio
from pathlib import Path

from devices.decoders.modbus import Block, encode_blocks
from gateway.ingest.modbus.settings import ModbusSettings, UnitSettings
from gateway.ingest.serial_settings import SerialSettings
from headwater.cli.deadletter import Replay
from headwater.cli.deadletters import DeadLetter
from headwater.settings.model import Settings

METER = """
name = "meter"
format = "modbus"
[fields.power]
register = { address = 3 }
[fields.label]
register = { address = 4, encoding = "text" }
"""


def letter(offset: int, source: str, topic: str, payload: bytes, decoder: str) -> DeadLetter:
    headers = {"reason": "it was bad", "decoder": decoder, "source": source, "topic": topic, "time": "1700000000000"}
    return DeadLetter(0, offset, 1_700_000_000_000, f"edge-1/{source}", payload, headers)


def test_a_poll_is_read_by_its_bus_s_profile_and_garbage_by_none(tmp_path: Path) -> None:
    profile = tmp_path / "meter.toml"
    profile.write_text(METER)
    bus = ModbusSettings(tcp="127.0.0.1", name="hall", profile=str(profile), units=(UnitSettings(unit=7, device="m7"),))
    settings = Settings(node="edge-1", modbus=(bus,), serial=(SerialSettings(port="/dev/ttyUSB0", name="scale"),))
    poll = encode_blocks([Block("holding", 3, b"\x00\x2a"), Block("holding", 4, b"ok")])

    async def story() -> None:
        replay = Replay(settings, ())
        letters = [
            letter(1, "modbus:hall/7", "m7", poll, "modbus"),
            letter(2, "serial:scale", "scale", b"21", "framing"),
            letter(3, "serial:scale", "scale", b"22", "json"),
        ]
        made = await replay.decode(letters)
        await replay.close()
        readings = {one.offset: one.readings for _, outcomes in made for one in outcomes}
        assert [(one.device, one.fields) for one in readings[1]] == [("m7", {"power": 42, "label": "ok"})]
        assert [(one.device, one.fields) for one in readings[3]] == [("scale", {"value": 22})]
        assert replay.still == {"it was bad": [2]}

    asyncio.run(story())
