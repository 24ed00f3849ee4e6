"""What a listener does with those whom it does not know yet: bytes, time and connections are bounded."""

from __future__ import annotations

import asyncio
import gc
import struct
from pathlib import Path

import pytest

from gateway.scram import ScramClient
from gateway.wire.errors import ErrorCode
from gateway.wire.framing import join_frame
from gateway.wire.schema import ApiKey
from gateway.wire.session import ServerSession, encode_request
from tests.support.certificates import Authority
from tests.support.secure_doors import ALL, OPEN, door, run, signed
from tests.support.secure_node import PASSWORD, SecureNode, secure_node
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("quick_doors")

VERSIONS = encode_request(ApiKey.API_VERSIONS, 0, 1, "t", {})
METADATA = encode_request(ApiKey.METADATA, 1, 2, "t", {**ALL, "allow_auto_topic_creation": False})


async def raw(node: SecureNode, *frames: bytes, end: bool = True) -> bytes:
    """What a client is answered until the node closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port())
    writer.write(b"".join(frames))
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def code_at(answer: bytes, offset: int) -> int:
    found: int = struct.unpack_from(">h", answer, offset)[0]
    return found


def test_nothing_is_answered_before_the_sign_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN) as node:
            assert await raw(node, METADATA) == b""
            answer = await raw(node, VERSIONS, METADATA)
            assert answer[4:8] == struct.pack(">i", 1)  # ApiVersions, and nothing more
            assert len(answer) == 4 + struct.unpack_from(">i", answer)[0]
            early = encode_request(ApiKey.SASL_AUTHENTICATE, 0, 3, "t", {"auth_bytes": b"\0token\0x"})
            assert code_at(await raw(node, early), 8) == ErrorCode.ILLEGAL_SASL_STATE
            assert await raw(node, VERSIONS * 11) != b""  # only so many of these
            assert node.listener.status()["requests"] == {}

    run(scenario)


def test_an_unknown_mechanism_is_refused_with_those_that_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN) as node:
            for mechanism in ("GSSAPI", "PLAIN", "SCRAM-SHA-256-PLUS", ""):
                answer = await raw(node, encode_request(ApiKey.SASL_HANDSHAKE, 1, 1, "t", {"mechanism": mechanism}))
                assert code_at(answer, 8) == ErrorCode.UNSUPPORTED_SASL_MECHANISM
                assert b"SCRAM-SHA-256" in answer

    run(scenario)


@pytest.mark.parametrize("size", [17 << 10, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 0x47455420])
def test_a_strangers_frame_is_refused_by_its_length_alone(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN) as node:
            assert await raw(node, struct.pack(">I", size)) == b""
            assert node.listener.status()["unread_bytes"] == 0

    run(scenario)


def test_strangers_have_their_time_and_no_more(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN, door(authority), authentication_timeout_ms=300) as node:
            assert await raw(node, VERSIONS[:7]) == b""  # a slow one
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port(1))
            writer.write(b"\x16\x03\x01")  # a TLS record that does not go on
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            await eventually(lambda: node.listener.status()["unauthenticated"] == 0)
            assert node.listener.status()["tls_handshakes_failed"] == 1
            channel = await node.channel(signed(authority), door=1)
            await asyncio.sleep(0.4)  # it has signed in: its time goes on
            await channel.call(ApiKey.METADATA, ALL)
            channel.close()

    run(scenario)


def test_strangers_that_are_gone_leave_nothing_behind(tmp_path: Path) -> None:
    """What they had sent stayed in memory until their time was over: 10 s of a crowd that comes and goes."""

    def held() -> int:
        gc.collect()
        return sum(type(each) is ServerSession and each.unread_bytes > 0 for each in gc.get_objects())

    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN) as node:
            before = held()
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", node.port())
                writer.write(struct.pack(">I", 16_000) + b"x" * 10_000)
                await eventually(lambda: node.listener.status()["unread_bytes"])
                writer.transport.abort()
                await eventually(lambda: node.listener.status()["connections"] == 0)
            del writer
            assert held() == before

    run(scenario)


def test_a_crowd_of_half_open_handshakes_keeps_nobody_out(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), unauthenticated_max=20) as node:
            crowd = [await asyncio.open_connection("127.0.0.1", node.port()) for _ in range(60)]
            await eventually(lambda: node.listener.status()["unauthenticated_closed"] == 40)
            assert node.listener.status()["unauthenticated"] == 20
            for reader, _ in crowd[:40]:
                assert await _ended(reader)  # the places are really free
            channel = await node.channel(signed(authority))
            await channel.call(ApiKey.METADATA, ALL)
            channel.close()
            for _, writer in crowd:
                writer.transport.abort()
            await eventually(lambda: node.listener.status()["unauthenticated"] == 0)

    run(scenario)


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


def test_bare_tokens_after_the_first_handshake_version(tmp_path: Path) -> None:
    """SaslHandshake 0: the tokens have no request header (KIP-43); a wrong one is answered by the end alone."""

    async def scenario() -> None:
        async with secure_node(tmp_path, OPEN) as node:
            for password, good in ((PASSWORD, True), ("wrong", False)):
                client = ScramClient("SCRAM-SHA-512", "token", password, "client")
                reader, writer = await asyncio.open_connection("127.0.0.1", node.port())
                handshake = encode_request(ApiKey.SASL_HANDSHAKE, 0, 1, "t", {"mechanism": "SCRAM-SHA-512"})
                writer.write(handshake + join_frame([b"", client.first()]))
                await _frame(reader)
                writer.write(join_frame([b"", client.proof(await _frame(reader))]))
                if good:
                    client.verify(await _frame(reader))
                    writer.write(METADATA)
                    assert (await _frame(reader))[:4] == struct.pack(">i", 2)
                else:
                    assert await reader.read() == b"\0\0\0\0"[:0]
                writer.transport.abort()

    run(scenario)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])
