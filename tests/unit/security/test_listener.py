"""The doors over real sockets: who gets in, what strangers cost, and what happens when a file goes bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.tls import TlsError
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey
from gateway.wire.settings import KafkaAclRule
from gateway.wire.sign_in import ClientSecurity
from headwater.net import RealNet
from tests.support.broker_world import make_batch
from tests.support.certificates import Authority
from tests.support.secure_doors import ALL, OPEN, door, run, signed
from tests.support.secure_node import PASSWORD, secure_node, security
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("quick_doors")

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
                await eventually(lambda channel=channel: channel.closed)  # type: ignore[misc]

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
            parts = [{"partition_index": 0, "offset": 0}]
            asked = {"topics": [{"name": name, "partitions": parts} for name in both], "timeout_ms": 5000}
            answer = await channel.call(ApiKey.DELETE_RECORDS, asked)
            assert _codes(answer["topics"], "name", "partitions") == {"mine": 0, "other": denied}
            asked = {"topics": [{"name": name, "topic_id": bytes(16)} for name in both], "timeout_ms": 5000}
            answer = await channel.call(ApiKey.DELETE_TOPICS, asked)
            assert {each["name"]: each["error_code"] for each in answer["responses"]} == {"mine": 0, "other": denied}
            assert set(node.store.topics) >= {"other"}
            assert "mine" not in node.store.topics
            assert node.listener.status()["denied"] == 10
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
