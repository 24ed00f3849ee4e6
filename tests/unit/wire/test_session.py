"""Two sessions on an imaginary wire, and what each says to a peer that breaks the protocol."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from gateway.wire.cluster import ADVERTISED
from gateway.wire.compiler import encoder
from gateway.wire.errors import ErrorCode, KafkaError, is_retriable
from gateway.wire.framing import join_frame
from gateway.wire.schema import ApiKey
from gateway.wire.session import (
    PENDING_MAX,
    ClientSession,
    Request,
    ServerSession,
    encode_request,
    encode_response,
)
from headwater.errors import LimitError, PeerError

PRODUCE = {
    "acks": -1,
    "timeout_ms": 5,
    "topic_data": [{"name": "t", "partition_data": [{"index": 0, "records": b"xy"}]}],
}


def versions_body(ranges: dict[ApiKey, tuple[int, int]], code: int = 0) -> dict[str, Any]:
    keys = [{"api_key": key, "min_version": low, "max_version": high} for key, (low, high) in ranges.items()]
    return {"error_code": code, "api_keys": keys}


def requests_of(server: ServerSession, data: bytes) -> list[Request]:
    server.feed(data)
    found = []
    while (request := server.next_request()) is not None:
        found.append(request)
    server.keep()
    return found


def answer(client: ClientSession, request: Request, body: dict[str, Any]) -> None:
    client.feed(encode_response(request.api, request.version, request.correlation_id, body))


def drain(client: ClientSession) -> bytes:
    out = b"".join(client.out)
    client.out.clear()
    return out


def negotiated() -> tuple[ClientSession, ServerSession]:
    client, server = ClientSession(client_id="edge"), ServerSession()
    (asked,) = requests_of(server, drain(client))
    answer(client, asked, versions_body(ADVERTISED))
    return client, server


def test_versions_come_first_and_the_highest_common_one_is_used() -> None:
    client, server = ClientSession(client_id="edge"), ServerSession()
    early = client.send(ApiKey.METADATA, {"topics": None})
    (asked,) = requests_of(server, drain(client))
    assert (asked.api, asked.version, asked.client_id) == (ApiKey.API_VERSIONS, 3, "edge")
    assert asked.body == {"client_software_name": "headwater", "client_software_version": "0"}
    answer(client, asked, versions_body({ApiKey.METADATA: (0, 9), ApiKey.FETCH: (4, 18), ApiKey.PRODUCE: (13, 14)}))
    assert client.versions == {ApiKey.METADATA: 9, ApiKey.FETCH: 12}
    (metadata,) = requests_of(server, drain(client))
    assert (metadata.api, metadata.version, metadata.correlation_id) == (ApiKey.METADATA, 9, early)
    answer(client, metadata, {"brokers": [], "topics": []})
    assert client.responses[0].correlation_id == early
    assert client.waiting == 0
    with pytest.raises(PeerError, match="Produce"):
        client.send(ApiKey.PRODUCE, PRODUCE)


def test_a_broker_of_old_answers_error_35_and_is_asked_again_in_version_0() -> None:
    client, server = (
        ClientSession(client_id="edge"),
        ServerSession(served={ApiKey.API_VERSIONS: (0, 2), ApiKey.METADATA: (0, 1)}),
    )
    (asked,) = requests_of(server, drain(client))
    assert asked.body is None
    client.feed(encode_response(ApiKey.API_VERSIONS, 0, asked.correlation_id, versions_body({}, code=35)))
    (again,) = requests_of(server, drain(client))
    assert again.version == 0
    answer(client, again, versions_body({ApiKey.METADATA: (0, 1)}))
    assert client.versions == {ApiKey.METADATA: 1}


def test_whole_byte_by_byte_and_with_trailing_bytes() -> None:
    for size in (1, 5, 10_000):
        client, server = negotiated()
        for _ in range(3):
            client.send(ApiKey.PRODUCE, PRODUCE)
        stream = drain(client)
        got = []
        for start in range(0, len(stream), size):
            server.feed(stream[start : start + size])
            while (request := server.next_request()) is not None:
                assert request.body is not None
                got.append(bytes(request.body["topic_data"][0]["partition_data"][0]["records"]))
            server.keep()
        assert got == [b"xy"] * 3, size
    # bytes behind a body are no harm: Kafka passes over them, and a future tag-less field may stand there
    frame = encode_request(ApiKey.METADATA, 1, 5, "x", {"topics": None})
    (request,) = requests_of(ServerSession(), join_frame([b"", frame[4:], b"tail"]))
    assert request.correlation_id == 5


def test_answers_byte_by_byte_alias_nothing_that_changes() -> None:
    client, server = negotiated()
    client.send(ApiKey.FETCH, {"max_wait_ms": 0, "min_bytes": 1, "topics": []})
    (asked,) = requests_of(server, drain(client))
    part = {
        "partition_index": 0,
        "error_code": 0,
        "high_watermark": 1,
        "aborted_transactions": None,
        "records": b"data",
    }
    frame = encode_response(
        asked.api, asked.version, asked.correlation_id, {"responses": [{"topic": "t", "partitions": [part]}]}
    )
    for byte in frame:
        client.feed(bytes([byte]))
    assert bytes(client.responses[0].body["responses"][0]["partitions"][0]["records"]) == b"data"


def test_produce_without_acks_expects_no_answer() -> None:
    client, _ = negotiated()
    client.send(ApiKey.PRODUCE, {**PRODUCE, "acks": 0})
    assert client.waiting == 0


def test_the_client_refuses_what_it_did_not_ask() -> None:
    client, _ = negotiated()
    with pytest.raises(PeerError, match="answer to request 99"):
        client.feed(join_frame([b"", struct.pack(">i", 99), b"\0" * 8]))
    client, _ = negotiated()
    client.send(ApiKey.METADATA, {"topics": None})
    with pytest.raises(PeerError, match="Metadata response"):
        client.feed(join_frame([b"", struct.pack(">i", 2), b"\0", b"\xff" * 20]))


def test_unanswered_requests_are_bounded() -> None:
    client, _ = negotiated()
    for _ in range(PENDING_MAX):
        client.send(ApiKey.METADATA, {"topics": None})
    with pytest.raises(LimitError):
        client.send(ApiKey.METADATA, {"topics": None})


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"\0", "no header"),
        (struct.pack(">hhih", 999, 0, 1, -1), "API 999"),
        (struct.pack(">hhih", 0, 2, 1, -1), "Produce version 2"),
        (struct.pack(">hhih", 1, 13, 1, -1), "Fetch version 13"),
        (struct.pack(">hhih", 3, 1, 1, 500), "client id"),
        (struct.pack(">hhih", 3, 1, 1, 1) + b"\xff", "UTF-8"),
        (struct.pack(">hhih", 3, 9, 1, -1), "cut short"),
        (struct.pack(">hhih", 3, 1, 1, -1) + b"\x7f\xff\xff\xff", "elements"),
    ],
)
def test_a_server_says_what_is_wrong_with_a_request(frame: bytes, what: str) -> None:
    with pytest.raises(PeerError, match=what):
        requests_of(ServerSession(), join_frame([b"", frame]))


def test_only_produce_may_be_long() -> None:
    server = ServerSession(frame_bytes_max=8 << 20)
    server.feed((4 << 20).to_bytes(4, "big") + struct.pack(">hh", ApiKey.PRODUCE, 9))
    assert server.next_request() is None
    server = ServerSession(frame_bytes_max=8 << 20)
    server.feed((4 << 20).to_bytes(4, "big") + struct.pack(">hh", ApiKey.METADATA, 9))
    with pytest.raises(LimitError):
        server.next_request()


def test_many_small_elements_are_refused() -> None:
    names = [{"name": ""}] * 150_000
    parts: list[bytes] = []
    encoder("Metadata", 1)({"topics": names}, parts.append)
    frame = join_frame([b"", struct.pack(">hhih", 3, 1, 1, -1), *parts])
    with pytest.raises(PeerError, match="elements"):
        requests_of(ServerSession(), frame)


@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")  # kafka-python's own import
def test_error_codes_are_kafkas() -> None:
    from kafka import errors

    known: dict[Any, Any] = {
        getattr(kind, "errno", None): kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and isinstance(getattr(kind, "errno", None), int)
    }
    for code in ErrorCode:
        assert code in known
        if code is not ErrorCode.CORRUPT_MESSAGE:  # it calls that one fatal; Kafka's own class says otherwise
            assert is_retriable(code) == bool(known[code].retriable), code
    error = KafkaError(51, "ending the transaction")
    assert error.retriable
    assert "CONCURRENT_TRANSACTIONS" in str(error)
    assert KafkaError(9999).code == 9999
