"""A connection's way to a name: SaslHandshake, SaslAuthenticate, and nothing else before (KIP-43, KIP-152). Sans-IO.

    handshake  ApiVersions, or SaslHandshake with a mechanism that is served
    tokens     SaslAuthenticate; after SaslHandshake version 0 the tokens come bare, in frames without a header
    over       admitted, or refused: the connection ends after the answer

A refusal has one text for a wrong password, a user that there is not, and a proof that is no proof.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from gateway.scram import HASHES, ScramError, ScramServer, Secret
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode
from gateway.wire.peer import Reply
from gateway.wire.schema import ApiKey
from gateway.wire.session import Request
from headwater.errors import PeerError

PLAIN = "PLAIN"
MECHANISMS = (PLAIN, *HASHES)

FRAME_BYTES_MAX = 16 << 10
"""The longest frame of a client that has not shown who it is."""
_REQUESTS_MAX = 10  # a client needs four


class Keeper(Protocol):
    """What the gate asks of whoever keeps the users."""

    def secret(self, user: str, mechanism: str) -> Secret: ...
    def verify(self, user: str, password: bytes, verdict: Callable[[bool], None]) -> None: ...
    def nonce(self) -> str: ...


class Client(Protocol):
    """What the gate does to the connection that it stands before."""

    def bare(self) -> None:
        """What follows has no request header."""

    def admit(self, user: str) -> None:
        """The client is who it says."""

    def refuse(self, answer: Callable[[], None], why: str) -> None:
        """Let it wait a little, give the answer, close."""


class _State(Enum):
    HANDSHAKE = 1
    TOKENS = 2
    VERIFYING = 3
    OVER = 4


class SaslGate:
    """Stands before one connection until its client is known."""

    def __init__(
        self, client: Client, keeper: Keeper, mechanisms: tuple[str, ...], api_versions: Callable[[Request], Body]
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._mechanisms = mechanisms
        self._api_versions = api_versions
        self._state = _State.HANDSHAKE
        self._mechanism = ""
        self._scram: ScramServer | None = None
        self._requests = 0
        self._bare = False

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer a request. Raises `PeerError` for one that does not belong here: close the connection."""
        self._requests += 1
        if self._requests > _REQUESTS_MAX:
            raise PeerError("too many requests before it has signed in")
        if self._state is _State.HANDSHAKE and request.api is ApiKey.API_VERSIONS:
            reply(self._api_versions(request))
        elif self._state is _State.HANDSHAKE and request.api is ApiKey.SASL_HANDSHAKE:
            self._handshake(request, reply)
        elif self._state is _State.TOKENS and request.api is ApiKey.SASL_AUTHENTICATE:
            self._token(bytes((request.body or {})["auth_bytes"]), reply)
        elif self._state is _State.HANDSHAKE and request.api is ApiKey.SASL_AUTHENTICATE:
            self._refuse(reply, "SaslAuthenticate came before SaslHandshake", code=ErrorCode.ILLEGAL_SASL_STATE)
        else:
            raise PeerError(f"{request.api.name.lower()} before it has signed in")

    def _handshake(self, request: Request, reply: Reply) -> None:
        mechanism = (request.body or {})["mechanism"]
        answer: dict[str, Any] = {"error_code": ErrorCode.NONE, "mechanisms": list(self._mechanisms)}
        if mechanism not in self._mechanisms:
            self._state = _State.OVER
            answer["error_code"] = ErrorCode.UNSUPPORTED_SASL_MECHANISM
            self._client.refuse(lambda: reply(answer), f"SASL mechanism {mechanism[:40]!r} is not served")
            return
        self._mechanism = mechanism
        self._state = _State.TOKENS
        if mechanism != PLAIN:
            self._scram = ScramServer(
                mechanism, lambda user: self._keeper.secret(user, mechanism), self._keeper.nonce()
            )
        if request.version == 0:
            self._bare = True
            self._client.bare()
        reply(answer)

    def _token(self, token: bytes, reply: Reply) -> None:
        if self._scram is None:
            self._plain(token, reply)
            return
        try:
            answer = self._scram.step(token)
        except ScramError as error:
            self._refuse(reply, f"{self._scram.user[:64]!r}: {error.what}")
            return
        if self._scram.done:
            self._admit(self._scram.user, reply, answer)
        else:
            reply(_answer(answer))

    def _plain(self, token: bytes, reply: Reply) -> None:
        """RFC 4616: authorization identity, NUL, user, NUL, password."""
        parts = token.split(b"\0")
        try:
            acting, user = parts[0].decode(), parts[1].decode()
        except (UnicodeDecodeError, IndexError):
            self._refuse(reply, "no PLAIN message")
            return
        if len(parts) != 3 or not user or acting not in ("", user):
            self._refuse(reply, "no PLAIN message, or one user that would act for another")
            return
        self._state = _State.VERIFYING

        def verdict(good: bool) -> None:  # noqa: FBT001 - a callback's one value
            if self._state is not _State.VERIFYING:
                return
            if good:
                self._admit(user, reply, b"")
            else:
                self._refuse(reply, f"{user[:64]!r}: user and password do not match")

        self._keeper.verify(user, parts[2], verdict)

    def _admit(self, user: str, reply: Reply, token: bytes) -> None:
        self._state = _State.OVER
        self._client.admit(user)
        reply(_answer(token))

    def _refuse(self, reply: Reply, why: str, code: ErrorCode = ErrorCode.SASL_AUTHENTICATION_FAILED) -> None:
        self._state = _State.OVER
        text = (
            f"Authentication failed with SASL mechanism {self._mechanism}: invalid credentials"
            if code is ErrorCode.SASL_AUTHENTICATION_FAILED
            else why
        )
        # A bare answer has no place for an error, and an empty one would be PLAIN's consent: the close tells.
        answer = None if self._bare else {"error_code": code, "error_message": text, "auth_bytes": b""}
        self._client.refuse(lambda: reply(answer), why)


def _answer(token: bytes) -> Body:
    return {"error_code": ErrorCode.NONE, "error_message": None, "auth_bytes": token}


def handshake_again(request: Request) -> Body:
    """SaslHandshake where nobody signs in, or a second one."""
    return {"error_code": ErrorCode.ILLEGAL_SASL_STATE, "mechanisms": []}


def authenticate_again(request: Request) -> Body:
    """SaslAuthenticate where nobody signs in, or after it was good."""
    text = "SaslAuthenticate is not expected: this connection needs no sign-in, or has had it"
    return {"error_code": ErrorCode.ILLEGAL_SASL_STATE, "error_message": text, "auth_bytes": b""}
