"""Who was refused a subscription or a topic is known when the client has long gone."""

from __future__ import annotations

from pathlib import Path

from gateway.ingest.mqtt import packets
from gateway.ingest.mqtt.packets import Connect
from gateway.ingest.mqtt.refusals import REFUSALS_MAX, Refusals
from headwater.app.status import notes
from tests.support.mqtt_client import Client, node_at, run
from tests.support.waiting import eventually


def test_a_filter_is_told_after_the_client_has_gone(tmp_path: Path) -> None:
    async def test() -> None:
        async with node_at(tmp_path) as node:
            for _ in range(2):
                client = await Client.open(node)
                subscribe = packets.encode_packet(packets.PacketType.SUBSCRIBE, 2, b"\0\5\0\3a/#\0")
                await client.say(packets.encode_connect(Connect(4, "shell", clean=True)), b"\x20\x02\x00\x00")
                await client.say(subscribe, b"\x90\x03\x00\x05\x80")
                await client.close()
                await eventually(lambda: not node.ingest.status()["sources"][0]["connected"])
            ingest = node.ingest.status()
            [row] = ingest["refusals"]
            assert (row["client"], row["does"], row["what"], row["count"]) == ("shell", "subscribes", "a/#", 2)
            found = [one for one in notes({"ingest": ingest, "now_ms": row["last_ms"] + 120_000}) if "vain" in one]
            assert found == ["mqtt:shell subscribes to “a/#” in vain: 2 times, last 2 min ago"]
            assert not [
                one for one in notes({"ingest": ingest, "now_ms": row["last_ms"] + 90_000_000}) if "vain" in one
            ]

    run(test)


def test_their_number_is_bounded_and_the_latest_stay() -> None:
    refusals = Refusals()
    refusals.note("first", "publishes", "t", 1)
    for number in range(REFUSALS_MAX - 1):
        refusals.note(f"c{number}".ljust(1_000), "subscribes", "x" * 1_000, 2)
    refusals.note("first", "publishes", "t", 3)
    refusals.note("anonymous-7", "subscribes", "#", 4)
    refusals.note("anonymous-8", "subscribes", "#", 4)
    rows = refusals.status()
    assert len(rows) == REFUSALS_MAX
    assert [row["client"] for row in rows[:2]] == ["anonymous", "first"]
    assert (rows[0]["count"], rows[1]["count"], len(rows[2]["what"])) == (2, 2, 80)
    assert "c0" not in {row["client"].rstrip() for row in rows}
    assert {len(row["client"]) for row in rows[2:]} == {80}
