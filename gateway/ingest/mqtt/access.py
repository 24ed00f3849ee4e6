"""Who may publish where: topic patterns with `%u` (user) and `%c` (client id). Sans-IO.

Names are checked before they are put in: one with `/`, `+` or `#` would widen a pattern beyond what was meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.ingest.mqtt.packets import check_filter
from gateway.ingest.mqtt.reasons import MqttError, ReasonCode
from gateway.ingest.mqtt.settings import AclRule
from headwater.errors import UserError

EVERYONE = "*"


class Rights:
    """The topics that one client may publish to."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.split("/") for pattern in patterns]

    def allows(self, topic: str) -> bool:
        levels = topic.split("/")
        return any(_matches(pattern, levels) for pattern in self._patterns)


def _matches(pattern: list[str], levels: list[str]) -> bool:
    """As a subscription matches (4.7.1): `+` one level, `#` what is left, its parent too."""
    for number, wanted in enumerate(pattern):
        if wanted == "#":
            return True
        if number >= len(levels) or wanted not in ("+", levels[number]):
            return False
    return len(levels) == len(pattern)


class AccessList:
    """The rules of `[[mqtt.acl]]`. Without any, whoever may come in may publish anywhere."""

    def __init__(self, rules: Sequence[AclRule]) -> None:
        """Raises `UserError` for a pattern that is no topic filter."""
        self._rules = rules
        for number, rule in enumerate(rules, 1):
            for pattern in rule.publish:
                try:
                    check_filter(pattern.encode())
                except MqttError as error:
                    hint = (
                        "Patterns are topic filters: “+” is one whole level, “#” the last; %u is the user, %c the id."
                    )
                    raise UserError(f"[[mqtt.acl]] number {number}: “{pattern}” is {error.what}", hint=hint) from None

    def rights(self, user: str | None, client_id: str) -> Rights | None:
        """What a client may do; None: anything. Raises `MqttError` when its id cannot stand in a pattern."""
        if not self._rules:
            return None
        mine = [rule for rule in self._rules if EVERYONE in rule.users or (user is not None and user in rule.users)]
        patterns = []
        for pattern in [pattern for rule in mine for pattern in rule.publish]:
            if "%u" in pattern:
                if user is None:
                    continue
                pattern = pattern.replace("%u", _fit(user, "user name"))
            if "%c" in pattern:
                pattern = pattern.replace("%c", _fit(client_id, "client id"))
            patterns.append(pattern)
        return Rights(patterns)


def _fit(name: str, what: str) -> str:
    if not name or set(name) & set("/+#%"):
        raise MqttError(
            f"its {what} has a character that means more in a topic pattern: / + # %",
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
        )
    return name
