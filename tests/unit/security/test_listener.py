"""The doors over real sockets: who gets in, what strangers cost, and what happens when a file goes bad."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import doors, users
from gateway.doors import check_doors
from gateway.scram import ScramClient
from gateway.tls import ServerTls, TlsError
from gateway.tls_settings import ServerTlsSettings
from gateway.users import add_user, remove_user
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.framing import join_frame
from gateway.wire.schema import ApiKey
from gateway.wire.session import ServerSession, encode_request
from gateway.wire.settings import KafkaAclRule, KafkaListenerSettings, KafkaSettings
from gateway.wire.sign_in import ClientSecurity
from headwater.errors import UserError
from headwater.net import RealNet
from tests.support.broker_world import make_batch
from tests.support.certificates import Authority
from tests.support.secure_node import PASSWORD, SecureNode, secure_node, security

KAFKA = frozenset({"kafka"})
ALL: dict[str, Any] = {"topics": None}
VERSIONS = encode_request(ApiKey.API_VERSIONS, 0, 1, "t", {})
METADATA = encode_request(ApiKey.METADATA, 1, 2, "t", {**ALL, "allow_auto_topic_creation": False})
OPEN = KafkaListenerSettings(
    listen="127.0.0.1:0", protocol="SASL_PLAINTEXT", sasl_mechanisms=("SCRAM-SHA-256", "SCRAM-SHA-512")
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_N", 4)
    monkeypatch.setattr(doors, "LOOK_S", 0.02)
    monkeypatch.setattr(doors, "_REFUSAL_DELAY_S", 0.01)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.sign("node")
    return made


def door(authority: Authority, name: str = "node", **more: Any) -> KafkaListenerSettings:
    files = {"certificate_file": f"{authority.folder}/{name}.crt", "key_file": f"{authority.folder}/{name}.key"}
    return KafkaListenerSettings(**{"listen": "127.0.0.1:0", **files, **more})


def signed(authority: Authority, mechanism: str = "SCRAM-SHA-256", **more: Any) -> ClientSecurity:
    who = {"sasl_mechanism": mechanism, "sasl_username": "token", "sasl_password": PASSWORD}
    return security(authority, security_protocol="SASL_SSL", **(who | more))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in the code under test
            await asyncio.sleep(0.002)


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


# --- before a client is known


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
            await until(lambda: node.listener.status()["unauthenticated"] == 0)
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
                await until(lambda: node.listener.status()["unread_bytes"])
                writer.transport.abort()
                await until(lambda: node.listener.status()["connections"] == 0)
            del writer
            assert held() == before

    run(scenario)


def test_a_crowd_of_half_open_handshakes_keeps_nobody_out(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), unauthenticated_max=20) as node:
            crowd = [await asyncio.open_connection("127.0.0.1", node.port()) for _ in range(60)]
            await until(lambda: node.listener.status()["unauthenticated_closed"] == 40)
            assert node.listener.status()["unauthenticated"] == 20
            for reader, _ in crowd[:40]:
                assert await _ended(reader)  # the places are really free
            channel = await node.channel(signed(authority))
            await channel.call(ApiKey.METADATA, ALL)
            channel.close()
            for _, writer in crowd:
                writer.transport.abort()
            await until(lambda: node.listener.status()["unauthenticated"] == 0)

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


# --- signing in


def test_a_wrong_password_and_a_user_that_there_is_not_are_told_the_same(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority)) as node:
            for mechanism in ("PLAIN", "SCRAM-SHA-256"):
                told = set()
                for who in ({"sasl_password": "wrong"}, {"sasl_username": "nobody"}):
                    with pytest.raises(KafkaError) as refused:
                        await node.channel(signed(authority, mechanism, **who))
                    assert refused.value.code == ErrorCode.SASL_AUTHENTICATION_FAILED
                    told.add(refused.value.what.replace("nobody", "token"))
                assert len(told) == 1
            assert node.listener.status()["authentication_failures"] == 4

    run(scenario)


def test_a_second_sign_in_is_an_illegal_state_and_harms_nothing(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority)) as node:
            channel = await node.channel(signed(authority, "PLAIN"))
            again = await channel.call(ApiKey.SASL_HANDSHAKE, {"mechanism": "PLAIN"})
            assert again["error_code"] == ErrorCode.ILLEGAL_SASL_STATE
            more = await channel.call(ApiKey.SASL_AUTHENTICATE, {"auth_bytes": b"\0other\0x"})
            assert more["error_code"] == ErrorCode.ILLEGAL_SASL_STATE
            assert (await channel.call(ApiKey.METADATA, ALL))["cluster_id"]
            channel.close()

    run(scenario)


def test_a_password_with_authorization_for_another_is_refused(tmp_path: Path, authority: Authority) -> None:
    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), users=("token", "other")) as node:
            channel = await node.channel(security(authority, security_protocol="SSL"))  # TLS, and not signed in
            for token in (b"other\0token\0" + PASSWORD.encode(), b"\0token", b"", b"\0\0x", b"\0\xff\0x"):
                channel = await node.channel(security(authority, security_protocol="SSL"))
                await channel.call(ApiKey.SASL_HANDSHAKE, {"mechanism": "PLAIN"})
                answer = await channel.call(ApiKey.SASL_AUTHENTICATE, {"auth_bytes": token})
                assert answer["error_code"] == ErrorCode.SASL_AUTHENTICATION_FAILED
                await until(lambda channel=channel: channel.closed)  # type: ignore[misc]

    run(scenario)


# --- TLS as the client sees it


def test_each_fault_of_a_certificate_is_named(tmp_path: Path, authority: Authority) -> None:
    authority.sign("old", end="20200201000000Z")
    authority.sign("elsewhere", names="DNS:elsewhere.example")
    other = Authority(tmp_path / "other", "other-ca")

    async def scenario() -> None:
        names = ("node", "old", "elsewhere")
        async with secure_node(tmp_path / "data", *(door(authority, name) for name in names), OPEN) as node:
            cases = [
                (other, 0, "of an authority that we do not trust"),
                (authority, 1, "has expired"),
                (authority, 2, "another host name"),
            ]
            for trusted, number, text in cases:
                with pytest.raises(TlsError, match=text):
                    await node.channel(signed(trusted), door=number)
            with pytest.raises(ConnectionResetError, match="does it ask for TLS"):
                await node.channel(None)
            with pytest.raises(TlsError, match=r"does not speak TLS|closed during the TLS handshake"):
                await node.channel(signed(authority), door=-1)
            assert "expired" in " ".join(node.listener.status()["security_notes"])

    run(scenario)


def test_a_client_certificate_is_asked_for_and_names_the_principal(tmp_path: Path, authority: Authority) -> None:
    mine = authority.sign("edge-7", "/O=Example/OU=edges/CN=edge-7", names="")
    stranger = Authority(tmp_path / "other", "other-ca").sign("edge-7", names="")
    nameless = authority.sign("nameless", "/O=Example", names="")
    mapped = "RULE:^CN=([^,]+),OU=edges,.*$/$1.$1/U"

    async def scenario() -> None:
        ask = {"protocol": "SSL", "client_ca_file": str(authority.file)}
        listeners = [door(authority, **ask, principal_mapping=text) for text in ("CN", "DN", mapped)]
        async with secure_node(tmp_path / "data", *listeners) as node:

            def showing(certificate: Any) -> ClientSecurity:
                files = {"tls_certificate_file": str(certificate.certificate), "tls_key_file": str(certificate.key)}
                return security(authority, security_protocol="SSL", **files)

            names: set[str] = set()
            for number in range(3):
                channel = await node.channel(showing(mine), door=number)
                assert (await channel.call(ApiKey.METADATA, ALL))["cluster_id"]
                names |= {connection.peer.principal for connection in node.listener._connections}
                channel.close()
            assert names == {"edge-7", "CN=edge-7,OU=edges,O=Example", "EDGE-7.EDGE-7"}
            for who in (security(authority, security_protocol="SSL"), showing(stranger), showing(nameless)):
                with pytest.raises((TlsError, ConnectionError)):
                    await (await node.channel(who)).call(ApiKey.METADATA, ALL)

    run(scenario)


# --- rules


def test_the_node_itself_may_do_anything_and_others_what_rules_allow(tmp_path: Path, authority: Authority) -> None:
    rules = (
        KafkaAclRule(principals=("token",), allow=("write",), topics=("readings", "other"), transactional_ids=("*",)),
    )

    async def scenario() -> None:
        reserved = frozenset({"readings"})
        async with secure_node(tmp_path, door(authority), acl=rules, reserved=reserved) as node:
            for name in ("readings", "other", "hidden"):
                node.store.create_topic(name)
            channel = await node.channel(signed(authority))
            shown = await channel.call(ApiKey.METADATA, ALL)
            assert {topic["name"] for topic in shown["topics"]} == {"readings", "other"}
            init = {"transactional_id": "x", "transaction_timeout_ms": 5000}
            producer = await channel.call(ApiKey.INIT_PRODUCER_ID, init)
            assert producer["error_code"] == 0
            who = {key: producer[key] for key in ("producer_id", "producer_epoch")} | {"transactional_id": "x"}
            topics = [{"name": name, "partitions": [0]} for name in ("readings", "other")]
            added = await channel.call(ApiKey.ADD_PARTITIONS_TO_TXN, {**who, "topics": topics})
            codes = [part["results_by_partition"][0]["partition_error_code"] for part in added["results_by_topic"]]
            assert codes == [ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.OPERATION_NOT_ATTEMPTED]
            refusals = {"readings": ErrorCode.TOPIC_AUTHORIZATION_FAILED, "other": ErrorCode.INVALID_TXN_STATE}
            ids = {key: producer[key] for key in ("producer_id", "producer_epoch")}
            for name, code in refusals.items():
                batch = make_batch([b"x"], **ids, base_sequence=0, transactional=True)
                part = {"index": 0, "records": batch}
                asked = {"acks": -1, "timeout_ms": 5000, "transactional_id": "x"}
                asked["topic_data"] = [{"name": name, "partition_data": [part]}]
                answer = await channel.call(ApiKey.PRODUCE, asked)
                assert _codes(answer["responses"], "name", "partition_responses") == {name: code}
            channel.close()
            host, port = node.listener.address
            own = await type(channel).connect(RealNet(), host, port, client_id="own")
            assert {topic["name"] for topic in (await own.call(ApiKey.METADATA, ALL))["topics"]} > {"hidden"}
            own.close()

    run(scenario)


def test_what_is_allowed_of_a_request_is_done_and_the_rest_refused(tmp_path: Path, authority: Authority) -> None:
    """One request names what is allowed and what is not: both are answered, each by its own."""
    rules = (
        KafkaAclRule(principals=("token",), allow=("read", "write", "alter", "delete", "create"), topics=("mine",)),
        KafkaAclRule(principals=("token",), allow=("read", "delete"), groups=("mine",)),
    )
    denied = ErrorCode.TOPIC_AUTHORIZATION_FAILED

    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), acl=rules) as node:
            for name in ("mine", "other"):
                node.store.create_topic(name)
            channel = await node.channel(signed(authority))
            both, part = ("mine", "other"), {"index": 0, "records": make_batch([b"x"])}
            asked: dict[str, Any] = {"acks": -1, "timeout_ms": 5000}
            asked["topic_data"] = [{"name": name, "partition_data": [part]} for name in both]
            answer = await channel.call(ApiKey.PRODUCE, asked)
            assert _codes(answer["responses"], "name", "partition_responses") == {"mine": 0, "other": denied}
            assert node.store.topics["other"].partitions[0].log_end_offset == 0

            part = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
            asked = {"max_wait_ms": 5000, "min_bytes": 1 << 20}
            asked["topics"] = [{"topic": name, "partitions": [part]} for name in both]
            answer = await channel.call(ApiKey.FETCH, asked)  # the refusal does not wait for a long poll's bytes
            assert _codes(answer["responses"], "topic", "partitions") == {"mine": 0, "other": denied}

            part = {"partition_index": 0, "timestamp": -1}
            asked = {"topics": [{"name": name, "partitions": [part]} for name in both]}
            answer = await channel.call(ApiKey.LIST_OFFSETS, asked)
            assert _codes(answer["topics"], "name", "partitions") == {"mine": 0, "other": denied}

            part = {"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}
            asked = {"group_id": "mine", "member_id": "", "topics": [{"name": n, "partitions": [part]} for n in both]}
            answer = await channel.call(ApiKey.OFFSET_COMMIT, asked)
            assert _codes(answer["topics"], "name", "partitions") == {"mine": 0, "other": denied}
            asked["group_id"] = "other"
            answer = await channel.call(ApiKey.OFFSET_COMMIT, asked)
            no_group = ErrorCode.GROUP_AUTHORIZATION_FAILED
            assert _codes(answer["topics"], "name", "partitions") == dict.fromkeys(both, no_group)

            groups = [{"group_id": name, "topics": None} for name in both]
            answer = await channel.call(ApiKey.OFFSET_FETCH, {"groups": groups})
            found = {each["group_id"]: (each["error_code"], len(each["topics"])) for each in answer["groups"]}
            assert found == {"mine": (0, 1), "other": (no_group, 0)}

            topics = [{"name": name, "partition_indexes": [0]} for name in both]
            answer = await channel.call(ApiKey.OFFSET_FETCH, {"groups": [{"group_id": "mine", "topics": topics}]})
            assert _codes(answer["groups"][0]["topics"], "name", "partitions") == {"mine": 0, "other": denied}

            grown = [{"name": name, "count": 2, "assignments": None} for name in both]
            asked = {"topics": grown, "timeout_ms": 5000, "validate_only": False}
            answer = await channel.call(ApiKey.CREATE_PARTITIONS, asked)
            assert {each["name"]: each["error_code"] for each in answer["results"]} == {"mine": 0, "other": denied}
            asked = {"topics": [{"name": name, "topic_id": bytes(16)} for name in both], "timeout_ms": 5000}
            answer = await channel.call(ApiKey.DELETE_TOPICS, asked)
            assert {each["name"]: each["error_code"] for each in answer["responses"]} == {"mine": 0, "other": denied}
            assert set(node.store.topics) >= {"other"}
            assert "mine" not in node.store.topics
            assert node.listener.status()["denied"] == 9
            channel.close()

    run(scenario)


def _codes(topics: Any, name: str, partitions: str) -> dict[str, int]:
    return {topic[name]: topic[partitions][0]["error_code"] for topic in topics}


def test_off_loopback_without_a_rule_for_the_nameless_nobody_is_let_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        from gateway.serve import serve_kafka

        async with secure_node(tmp_path, OPEN) as node:
            shut = await serve_kafka(node.listener.broker, RealNet(), "0.0.0.0", 0)
            assert shut.address[0] == "127.0.0.1"
            assert "no client from the network can connect" in str(shut.problem)
            shut.close()

    run(scenario)


# --- files that change


def test_users_come_go_and_a_bad_file_shuts_the_door_alone(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "node" / "users"

    async def scenario() -> None:
        async with secure_node(tmp_path, door(authority), users=("token", "other")) as node:
            told: list[tuple[str, dict[str, Any]]] = []
            node.listener.doors.emit = lambda kind, **detail: told.append((kind, detail))
            (status,) = node.listener.status()["listeners"]
            assert status["open"]
            stays, goes = [await node.channel(signed(authority, sasl_username=name)) for name in ("token", "other")]
            remove_user(str(file), "other")
            await until(lambda: goes.closed)
            good = file.read_bytes()
            file.write_bytes(good[:-20])
            await until(lambda: node.listener.doors.problems())
            with pytest.raises(OSError, match=r"Connect call failed|refused"):
                await node.channel(signed(authority))
            await stays.call(ApiKey.METADATA, ALL)  # who is in stays in
            assert not node.listener.status()["listeners"][0]["open"]
            file.write_bytes(good)
            await until(lambda: not node.listener.doors.problems())
            add_user(str(file), "token", b"new", KAFKA, replace=True)
            await until(lambda: stays.closed)
            await until(lambda: node.listener.doors.book.reload() == set())
            (await node.channel(signed(authority, sasl_password="new"))).close()
            assert [kind for kind, _ in told] == ["listener-shut", "listener-open"]
            for _ in range(5):
                with pytest.raises(KafkaError):
                    await node.channel(signed(authority))
            await until(lambda: len(told) == 3)
            kind, detail = told[2]
            assert (kind, detail["listener"], "proof is wrong" in detail["last"]) == ("refused", "kafka", True)
            await asyncio.sleep(0.06)
            assert len(told) == 3  # one for all of them

    run(scenario)


def test_a_door_opens_with_its_first_user_and_with_its_certificate(tmp_path: Path, authority: Authority) -> None:
    made = {name: tmp_path / name for name in ("node.crt", "node.key")}

    async def scenario() -> None:
        files: dict[str, Any] = {"certificate_file": str(made["node.crt"]), "key_file": str(made["node.key"])}
        async with secure_node(tmp_path, KafkaListenerSettings(listen="127.0.0.1:0", **files), users=()) as node:
            assert "cannot be read" in next(iter(node.listener.doors.problems().values()))
            for name, file in made.items():
                file.write_bytes((authority.folder / name).read_bytes())
                file.chmod(0o644)
            await until(lambda: "no user" in next(iter(node.listener.doors.problems().values())))
            add_user(str(tmp_path / "node" / "users"), "token", PASSWORD.encode(), KAFKA)
            await until(lambda: not node.listener.doors.problems())
            (await node.channel(signed(authority))).close()
            assert "open to others" in " ".join(node.listener.status()["security_notes"])

    run(scenario)


def test_a_certificate_cut_short_anywhere_serves_nobody(tmp_path: Path, authority: Authority) -> None:
    files = {kind: tmp_path / kind for kind in ("crt", "key", "ca")}
    whole = {"crt": authority.folder / "node.crt", "key": authority.folder / "node.key", "ca": authority.file}
    for kind, file in files.items():
        file.write_bytes(whole[kind].read_bytes())
    settings = ServerTlsSettings(
        certificate_file=str(files["crt"]), key_file=str(files["key"]), client_ca_file=str(files["ca"])
    )

    tls = ServerTls(settings, "here", ask=True)

    def read() -> ssl.SSLContext | None:
        assert tls.refresh()
        assert (tls.context is None) == (tls.problem is not None)
        return tls.context

    assert read() is not None
    for kind, file in files.items():
        data = whole[kind].read_bytes()
        for length in range(0, len(data) - 1, 7):
            file.write_bytes(data[:length])
            assert read() is None, (kind, length)
        os.unlink(file)
        assert read() is None
        file.write_bytes(data)
        assert read() is not None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"protocol": "SASL_PLAINTEXT", "sasl_mechanisms": ("PLAIN",)}, "no SASL mechanism is left"),
        ({"principal_mapping": "RULE:^CN=(/$1/"}, "principal_mapping"),
        ({"principal_mapping": "cn"}, "principal_mapping"),
        ({"listen": ":x"}, "no address"),
    ],
)
def test_listeners_that_contradict_themselves_are_told_of_at_once(settings: dict[str, Any], text: str) -> None:
    listener = KafkaListenerSettings(**{"listen": "127.0.0.1:0", **settings})
    with pytest.raises(UserError, match=text):
        check_doors(KafkaSettings(listeners=(listener,)))
