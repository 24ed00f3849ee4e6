"""Who has to go when connections hold too much together."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from gateway.holdings import Holdings
from gateway.wire.schema import ApiKey
from gateway.wire.session import encode_request
from tests.support.listener import fetch, produce, run, serving
from tests.support.waiting import eventually


def test_who_is_to_blame_goes_before_who_has_more() -> None:
    held = {"honest": 90, "deaf": 10, "deafer": 20}
    holdings = Holdings(held.__getitem__, 100, lambda name: name.startswith("deaf"))
    assert [holdings.note(name) for name in ("honest", "deaf", "deafer")] == [None, None, "deafer"]
    holdings.forget("deafer")
    held["deaf"] = 0
    held["other"] = 20
    assert holdings.note("other") == "honest", "with nobody to blame, the one with the most"


def test_a_client_is_deaf_while_its_answers_lie_here_unread() -> None:
    async def scenario() -> None:
        async with serving() as node:
            node.store.create_topic("t")
            good = await node.channel()
            await good.call(ApiKey.PRODUCE, produce(os.urandom(900_000)))
            reader, writer = await node.raw()
            (mine,) = [each for each in node.listener._connections if each.peer.name.endswith(_port(writer))]
            assert not mine.deaf()
            writer.write(encode_request(ApiKey.FETCH, 12, 1, "t", fetch()) * 40)
            await eventually(mine.deaf)
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while mine.deaf():
                        await reader.read(1 << 20)
            assert not mine.deaf()
            writer.close()
            good.close()

    run(scenario)


def _port(writer: asyncio.StreamWriter) -> str:
    return f":{writer.get_extra_info('sockname')[1]}"
