"""Rules of [[kafka.acl]], and the guard of every API."""

from __future__ import annotations

import itertools
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.acl import AccessList, Kind, Operation, Rights
from gateway.wire.compiler import decoder, encoder
from gateway.wire.errors import ErrorCode
from gateway.wire.guard import GUARDS
from gateway.wire.guards.verdict import Rest
from gateway.wire.schema import BY_KEY, SERVED, ApiKey
from gateway.wire.session import Request
from gateway.wire.settings import KafkaAclRule
from headwater.errors import UserError
from tests.support.wire_bodies import random_body


def rule(*principals: str, **more: Any) -> KafkaAclRule:
    return KafkaAclRule(principals=principals, **more)


def rights(*rules: KafkaAclRule, who: str = "ann") -> Rights:
    return AccessList(rules).rights(who)


R, W, D, C, A, X = (
    Operation.READ, Operation.WRITE, Operation.DESCRIBE, Operation.CREATE, Operation.ALTER, Operation.DELETE,
)  # fmt: skip


def test_what_no_rule_allows_is_denied_and_deny_wins() -> None:
    assert not rights().may(R, Kind.TOPIC, "t")
    mine = rights(rule("ann", allow=("read",), topics=("t", "logs-*")), rule("*", deny=("read",), topics=("logs-x",)))
    assert mine.may(R, Kind.TOPIC, "t")
    assert mine.may(R, Kind.TOPIC, "logs-a")
    assert not mine.may(R, Kind.TOPIC, "logs-x")
    assert not mine.may(R, Kind.TOPIC, "tt")
    assert not mine.may(R, Kind.TOPIC, "log")
    assert not mine.may(W, Kind.TOPIC, "t")
    assert not mine.may(R, Kind.GROUP, "t")
    assert not rights(rule("bob", allow=("all",))).may(R, Kind.TOPIC, "t")


def test_who_may_do_something_may_see_it() -> None:
    for word in ("read", "write", "delete", "alter", "describe"):
        assert rights(rule("ann", allow=(word,), topics=("t",))).may(D, Kind.TOPIC, "t"), word
    assert not rights(rule("ann", allow=("create",), topics=("t",))).may(D, Kind.TOPIC, "t")
    both = rights(rule("ann", allow=("all",), topics=("t",)), rule("ann", deny=("write",), topics=("t",)))
    assert both.may(D, Kind.TOPIC, "t")  # no writing is not no seeing
    assert not both.may(W, Kind.TOPIC, "t")


def test_a_rule_that_names_nothing_is_about_everything_and_nobody_is_not_everyone() -> None:
    everything = AccessList([rule("*", allow=("all",))])
    for operation, kind in itertools.product(Operation, Kind):
        assert everything.rights("ann").may(operation, kind, "any")
        assert not everything.rights("ANONYMOUS").may(operation, kind, "any")
    assert AccessList([rule("ANONYMOUS", allow=("read",))]).rights("ANONYMOUS").may(R, Kind.TOPIC, "t")


def test_the_principals_own_name_stands_in_patterns_as_it_is() -> None:
    rules = AccessList([rule("*", allow=("write",), topics=("from-%u",), transactional_ids=("headwater.%u*",))])
    assert rules.rights("e7").may(W, Kind.TOPIC, "from-e7")
    assert not rules.rights("e7").may(W, Kind.TOPIC, "from-e8")
    assert rules.rights("e7").may(W, Kind.TRANSACTIONAL_ID, "headwater.e7-1")


@given(st.text(max_size=12))
def test_no_name_widens_a_pattern(name: str) -> None:
    mine = AccessList([rule("*", allow=("write",), topics=("from-%u",))]).rights(name)
    for other in ("from-", "from-x", "from-ann", "readings", "*"):
        assert not mine.may(W, Kind.TOPIC, other) or other == f"from-{name}"


@pytest.mark.parametrize(
    "bad",
    [{}, {"allow": ("read",), "deny": ("read",)}, {"allow": ("read",), "topics": ("a*b",)},
     {"allow": ("read",), "topics": ("",)}, {"allow": ("read",), "topics": ("%c",)},
     {"deny": ("read",), "topics": ("%u",)}],
)  # fmt: skip
def test_a_rule_that_is_none_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"\[\[kafka.acl\]\] number 1: "):
        AccessList([rule("ann", **bad)])
    with pytest.raises(UserError, match="names no principals"):
        AccessList([rule(allow=("read",))])


def test_a_producer_id_needs_a_topic_to_write_to() -> None:
    assert rights(rule("ann", allow=("write",), topics=("t",))).may_write_somewhere()
    assert not rights(rule("ann", allow=("read",), topics=("*",))).may_write_somewhere()
    shut = rule("*", deny=("write",), topics=("t*",))
    assert not rights(rule("ann", allow=("write",), topics=("t1",)), shut).may_write_somewhere()


def test_no_stranger_holds_up_what_the_uplink_reads() -> None:
    mine = AccessList([rule("ann", allow=("all",))], reserved=frozenset({"readings"})).rights("ann")
    assert mine.may(W, Kind.TOPIC, "readings")
    assert not mine.may_in_transactions("readings")
    assert mine.may_in_transactions("others")


# --- guards

BROKER = cast("Any", SimpleNamespace(store=SimpleNamespace(topics={}), denied=0))
OPEN = {ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE, ApiKey.DESCRIBE_CLUSTER}
REFUSED = {
    ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.GROUP_AUTHORIZATION_FAILED, ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}  # fmt: skip


NO_ANSWER: dict[str, Any] = {name: [] for name in ("topics", "responses", "groups", "results", "coordinators")}
NOT_ASKED_FOR = {"forgotten_topics_data"}
ANY_OR_ALL = {ApiKey.LIST_GROUPS, ApiKey.OFFSET_FETCH}  # all that there are; what may not be seen is left out


def test_every_api_that_is_served_has_a_guard() -> None:
    assert set(GUARDS) == set(SERVED)


@pytest.mark.parametrize("api", sorted(set(SERVED) - OPEN))
def test_without_rights_nothing_of_a_request_comes_through(api: ApiKey) -> None:
    """Every version of every API, with random requests: the rest is empty, and the refusals fit the answer's form."""
    message, nothing = BY_KEY[api], AccessList([]).rights("ann")
    for version, seed in itertools.product(range(SERVED[api][0], SERVED[api][1] + 1), range(5)):
        made = random_body(message.request, version, Random(seed))
        parts: list[bytes] = []
        encoder(message.name, version)(made, parts.append)
        body, _ = decoder(message.name, version)(memoryview(b"".join(parts)), 0)
        if api is ApiKey.PRODUCE and body["acks"] == 0:
            continue
        if api is ApiKey.FIND_COORDINATOR:
            body["key_type"] %= 2
        verdict = GUARDS[api](nothing, Request(api, version, 1, None, body), BROKER)
        answer = verdict.patch(NO_ANSWER) if isinstance(verdict, Rest) else verdict
        rest = verdict.body if isinstance(verdict, Rest) else body if verdict is None else {}
        lists = {field.name for field in message.request if field.array} - NOT_ASKED_FOR
        left = [each for name in lists & set(rest) for each in rest[name] or () if api not in ANY_OR_ALL]
        assert [each for each in left if isinstance(each, str) or each.get("name") or each.get("topic")] == []
        if answer is None:
            continue  # nothing was named
        out: list[bytes] = []
        full = {"error_code": 0, "cluster_id": "c", "controller_id": 1, "brokers": [], **answer}
        encoder(message.name, version, response=True)(full, out.append)
        assert set(_codes(answer)) <= REFUSED | {ErrorCode.OPERATION_NOT_ATTEMPTED, ErrorCode.UNKNOWN_TOPIC_ID}


def _codes(answer: Any) -> list[int]:
    if isinstance(answer, dict):
        inner = [code for value in answer.values() for code in _codes(value)]
        return inner + [value for key, value in answer.items() if key.endswith("error_code") and value]
    return [code for each in answer for code in _codes(each)] if isinstance(answer, list) else []
