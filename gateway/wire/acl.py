"""Who may do what: rules for principals over topics, groups, transactional ids and the node itself. Sans-IO.

As Kafka's authorizer decides: a rule that denies wins over any that allows, what no rule allows is denied, and whoever
may read, write, delete or alter a thing may also see that it is there (`describe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from gateway.users import ANONYMOUS, fit_user_name
from gateway.wire.settings import KafkaAclRule
from headwater.errors import UserError

EVERYONE = "*"
_ANSWERS_MAX = 10_000  # remembered for a principal
_NAME_MAX = 250


class Kind(Enum):
    """What a rule is about."""

    TOPIC = "topics"
    GROUP = "groups"
    TRANSACTIONAL_ID = "transactional_ids"
    CLUSTER = "cluster"


class Operation(Enum):
    """What is done to it; the words of a rule's `allow` and `deny`."""

    READ = "read"
    WRITE = "write"
    CREATE = "create"
    DELETE = "delete"
    ALTER = "alter"
    DESCRIBE = "describe"
    CLUSTER = "cluster"
    IDEMPOTENT_WRITE = "idempotent-write"


_SEES = frozenset({Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER, Operation.DESCRIBE})


class _Grant(NamedTuple):
    allows: bool
    operations: frozenset[Operation]
    kind: Kind
    pattern: str  # a name, or a prefix before `*`

    def holds(self, operation: Operation, kind: Kind, name: str) -> bool:
        if kind is not self.kind:
            return False
        # Who may write may see; who may not write may still see.
        wanted = _SEES if self.allows and operation is Operation.DESCRIBE else {operation}
        if not self.operations & wanted:
            return False
        return name.startswith(self.pattern[:-1]) if self.pattern.endswith("*") else name == self.pattern


class Rights:
    """What one principal may do."""

    __slots__ = ("_answers", "_grants", "_reserved")

    def __init__(self, grants: Sequence[_Grant], reserved: frozenset[str]) -> None:
        self._grants = grants
        self._reserved = reserved
        self._answers: dict[tuple[Operation, Kind, str], bool] = {}

    def may(self, operation: Operation, kind: Kind, name: str = "") -> bool:
        """Whether an operation is allowed on the thing of that kind and name (the cluster has none)."""
        key = (operation, kind, name)
        answer = self._answers.get(key)
        if answer is None:
            held = {grant.allows for grant in self._grants if grant.holds(operation, kind, name)}
            answer = held == {True}
            if len(name) > _NAME_MAX:
                return answer  # nothing has such a name
            if len(self._answers) >= _ANSWERS_MAX:  # a client that asks for ever new names
                self._answers.clear()
            self._answers[key] = answer
        return answer

    def may_in_transactions(self, topic: str) -> bool:
        """Whether transactions may write to a topic: not to those that the node's own uplink reads."""
        return topic not in self._reserved and self.may(Operation.WRITE, Kind.TOPIC, topic)

    def may_write_somewhere(self) -> bool:
        """Whether there is any topic that the principal may write to: enough for a producer id (KIP-679)."""
        mine = [grant for grant in self._grants if grant.kind is Kind.TOPIC and Operation.WRITE in grant.operations]
        denied = [grant.pattern for grant in mine if not grant.allows]
        return any(grant.allows and not _covered(grant.pattern, denied) for grant in mine)


NO_RIGHTS = Rights((), frozenset())


def _covered(pattern: str, by: Sequence[str]) -> bool:
    return any(pattern == each or (each.endswith("*") and pattern.startswith(each[:-1])) for each in by)


class AccessList:
    """The rules of `[[kafka.acl]]`; `reserved` are topics that no stranger's transaction may hold up."""

    def __init__(self, rules: Sequence[KafkaAclRule], *, reserved: frozenset[str] = frozenset()) -> None:
        """Raises `UserError` for a rule that says nothing, or that is no rule."""
        self._rules = rules
        self._reserved = reserved
        self._known: dict[str, Rights] = {}
        for number, rule in enumerate(rules, 1):
            problem = _problem(rule)
            if problem is not None:
                raise UserError(f"[[kafka.acl]] number {number}: {problem}", hint="docs/security.md shows rules.")

    @property
    def admits_anonymous(self) -> bool:
        """Whether any rule names who comes without a credential."""
        return any(ANONYMOUS in rule.principals for rule in self._rules)

    def rights(self, principal: str) -> Rights:
        """What a principal may do; nothing, when no rule names it."""
        known = self._known.get(principal)
        if known is None:
            grants = [grant for rule in self._rules if _is_for(rule, principal) for grant in _grants(rule, principal)]
            if len(self._known) >= _ANSWERS_MAX:
                self._known.clear()
            known = self._known[principal] = Rights(grants, self._reserved)
        return known


def _is_for(rule: KafkaAclRule, principal: str) -> bool:
    """`*` is everyone who has shown who it is: the nameless are named on purpose or not at all."""
    return principal in rule.principals or (EVERYONE in rule.principals and principal != ANONYMOUS)


def _grants(rule: KafkaAclRule, principal: str) -> list[_Grant]:
    words = rule.allow or rule.deny
    operations = frozenset(Operation) if "all" in words else frozenset(map(Operation, words))
    named = {Kind.TOPIC: rule.topics, Kind.GROUP: rule.groups, Kind.TRANSACTIONAL_ID: rule.transactional_ids}
    patterns = [(kind, pattern) for kind, patterns in named.items() for pattern in patterns]
    if rule.cluster:
        patterns.append((Kind.CLUSTER, "*"))
    elif not patterns:
        patterns = [(kind, "*") for kind in Kind]
    fit = fit_user_name(principal)
    made = []
    for kind, pattern in patterns:
        if "%u" in pattern:
            if not fit:  # a certificate's whole subject would widen the pattern beyond what was meant
                continue
            pattern = pattern.replace("%u", principal)
        made.append(_Grant(bool(rule.allow), operations, kind, pattern))
    return made


def _problem(rule: KafkaAclRule) -> str | None:
    if not rule.principals:
        return "it names no principals"
    if bool(rule.allow) == bool(rule.deny):
        return "it needs either allow or deny"
    for pattern in (*rule.topics, *rule.groups, *rule.transactional_ids):
        if not pattern or "*" in pattern[:-1]:
            return f"“{pattern}” is no pattern: a name, or a prefix with one * at its end"
        if "%" in pattern.replace("%u", ""):
            return f"“{pattern}” is no pattern: the principal's name is %u"
    if rule.deny and any("%u" in pattern for pattern in (*rule.topics, *rule.groups, *rule.transactional_ids)):
        return "%u stands in allow rules only"
    return None
