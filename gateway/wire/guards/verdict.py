"""What a guard says of a request; see `gateway.wire.guard`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from gateway.wire.acl import Kind, Operation, Rights
from gateway.wire.broker import Broker
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.session import Request

_Item = TypeVar("_Item")


class Rest(NamedTuple):
    """What is left of a request, and how the answer to it becomes the answer to the whole."""

    body: Body
    patch: Callable[[Body], Body]
    refuses: bool = True  # or only leaves out what its sender need not know of


Verdict = Rest | Body | None
"""None: it may pass. A body: the whole answer."""

Guard = Callable[[Rights, Request, Broker], Verdict]


def passes(rights: Rights, request: Request, broker: Broker) -> Verdict:
    """For everyone who has come in."""
    return None


def divide(items: Iterable[_Item], allowed: Callable[[_Item], bool]) -> tuple[list[_Item], list[_Item]]:
    """What is allowed and what is refused, in one pass: a request may name 100,000 things."""
    rest: list[_Item] = []
    refused: list[_Item] = []
    for item in items:
        (rest if allowed(item) else refused).append(item)
    return rest, refused


def may_create(rights: Rights, name: str) -> bool:
    """Topics are made by who may create that one, or any."""
    return rights.may(Operation.CREATE, Kind.CLUSTER) or rights.may(Operation.CREATE, Kind.TOPIC, name)


def in_transaction(rights: Rights, name: str) -> ErrorCode:
    """Whether a transactional id may be used."""
    allowed = rights.may(Operation.WRITE, Kind.TRANSACTIONAL_ID, name)
    return ErrorCode.NONE if allowed else ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
