"""Topic patterns with %u and %c: what they let through, and names that must not widen them."""

from __future__ import annotations

import pytest

from gateway.ingest.mqtt.access import AccessList, Rights
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.settings import AclRule
from headwater.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "topic", "allowed"),
    [
        ("farm/t1", "farm/t1", True),
        ("farm/t1", "farm/t1/x", False),
        ("farm/t1", "farm", False),
        ("farm/+", "farm/t1", True),
        ("farm/+", "farm/t1/x", False),
        ("farm/+", "farm", False),
        ("farm/+/x", "farm//x", True),
        ("farm/#", "farm", True),
        ("farm/#", "farm/t1/x", True),
        ("farm/#", "farmer", False),
        ("#", "anything/at/all", True),
        ("+", "/", False),
        ("+/+", "/", True),
        ("/farm", "farm", False),
    ],
)
def test_patterns_match_as_subscriptions_do(pattern: str, topic: str, allowed: bool) -> None:
    assert Rights([pattern]).allows(topic) is allowed


def test_rules_are_joined_by_user_and_what_none_allows_is_refused() -> None:
    access = AccessList(
        [
            AclRule(publish=("all/%u/#", "by-id/%c")),
            AclRule(users=("pump", "meter"), publish=("site-%u/status",)),
        ]
    )
    pump, other, nobody = access.rights("pump", "c1"), access.rights("other", "c1"), access.rights(None, "c1")
    assert pump is not None
    assert other is not None
    assert nobody is not None
    wanted = ["all/pump/x", "by-id/c1", "site-pump/status", "all/other/x", "by-id/c2", "site-meter/status"]
    assert [pump.allows(topic) for topic in wanted] == [True, True, True, False, False, False]
    assert [other.allows(topic) for topic in wanted] == [False, True, False, True, False, False]
    assert [nobody.allows(topic) for topic in wanted] == [False, True, False, False, False, False]
    assert AccessList([]).rights("pump", "c1") is None
    only_others = AccessList([AclRule(users=("x",), publish=("#",))]).rights("pump", "c1")
    assert only_others is not None
    assert not only_others.allows("a")


@pytest.mark.parametrize("client_id", ["+", "#", "a/b", "a+", "%u", ""])
def test_a_client_id_cannot_widen_a_pattern(client_id: str) -> None:
    with pytest.raises(MqttError, match="client id") as caught:
        AccessList([AclRule(publish=("farm/%c/#",))]).rights("pump", client_id)
    assert caught.value.reason == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    assert AccessList([AclRule(publish=("farm/#",))]).rights("pump", client_id) is not None


@pytest.mark.parametrize("pattern", ["", "a#", "#/a", "a+/b", "a\0"])
def test_patterns_that_are_none_are_named(pattern: str) -> None:
    with pytest.raises(UserError, match=r"\[\[mqtt.acl\]\] number 2"):
        AccessList([AclRule(publish=("a",)), AclRule(publish=(pattern,))])
