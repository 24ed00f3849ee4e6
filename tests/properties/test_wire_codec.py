"""The compiled codec over every served message and version: what goes in comes out, nothing hostile gets through."""

from __future__ import annotations

import contextlib
import tracemalloc
from random import Random

import pytest

from gateway.wire.compiler import decoder, encoder
from gateway.wire.schema import MESSAGES, Field, Message
from headwater.errors import PeerError
from tests.support.wire_bodies import completed, plain, random_body

SIDES = [(m, response) for m in MESSAGES.values() for response in (False, True) if m.response or not response]
ROUNDS = 8


def name_of(side: object) -> str | None:
    return side.name if isinstance(side, Message) else None


def fields_of(message: Message, response: bool) -> tuple[Field, ...]:
    return message.response if response else message.request


def encoded(message: Message, version: int, response: bool, body: dict[str, object]) -> bytes:
    parts: list[bytes] = []
    encoder(message.name, version, response=response)(body, parts.append)
    return b"".join(parts)


@pytest.mark.parametrize(("message", "response"), SIDES, ids=name_of)
def test_round_trip(message: Message, response: bool) -> None:
    random = Random(f"{message.name} {response}")
    fields = fields_of(message, response)
    for version in range(message.versions[0], message.versions[1] + 1):
        decode = decoder(message.name, version, response=response)
        for _ in range(ROUNDS):
            body = random_body(fields, version, random)
            data = encoded(message, version, response, body)
            trailing = b"behind" * 3
            found, end = decode(memoryview(b"before" + data + trailing), 6)
            assert end == 6 + len(data), (version, body)
            assert plain(found) == completed(fields, version, body), version


@pytest.mark.parametrize(("message", "response"), SIDES, ids=name_of)
def test_a_message_cut_short_is_the_peers_fault(message: Message, response: bool) -> None:
    random = Random(f"cut {message.name}")
    fields = fields_of(message, response)
    for version in range(message.versions[0], message.versions[1] + 1):
        decode = decoder(message.name, version, response=response)
        data = encoded(message, version, response, random_body(fields, version, random))
        for end in {random.randrange(len(data)) for _ in range(30)} if data else ():
            with pytest.raises(PeerError):
                decode(memoryview(data)[:end], 0)


@pytest.mark.parametrize(("message", "response"), SIDES, ids=name_of)
def test_hostile_bytes_raise_nothing_but_peer_errors_and_cost_little(message: Message, response: bool) -> None:
    random = Random(f"hostile {message.name} {response}")
    fields = fields_of(message, response)
    tracemalloc.start()
    try:
        for version in range(message.versions[0], message.versions[1] + 1):
            decode = decoder(message.name, version, response=response)
            for _ in range(15):
                data = bytearray(encoded(message, version, response, random_body(fields, version, random)))
                for _ in range(random.randrange(1, 5)):
                    if data:
                        data[random.randrange(len(data))] = random.choice(
                            (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
                        )
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                with contextlib.suppress(PeerError):
                    decode(memoryview(data), 0)
                assert tracemalloc.get_traced_memory()[1] - before < 2_000_000
    finally:
        tracemalloc.stop()
