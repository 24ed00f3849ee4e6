"""How our own connections to a broker are protected, and how we show there who we are."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable

from gateway.scram import ScramClient, ScramError
from gateway.tls import client_context, fingerprint
from gateway.tls_settings import ClientSecuritySettings
from gateway.wire.compiler import Body
from gateway.wire.errors import ErrorCode, KafkaError
from gateway.wire.schema import ApiKey

Call = Callable[[ApiKey, Body], Awaitable[Body]]


class ClientSecurity:
    """Made once of settings; their files are read again when they change."""

    def __init__(self, settings: ClientSecuritySettings, where: str) -> None:
        """`where` names the settings in messages. Raises `UserError` when they do not fit together."""
        settings.check_security(where)
        self._settings = settings
        self._where = where
        self._made: tuple[object, ssl.SSLContext] | None = None
        self.signs_in = settings.security_protocol.startswith("SASL")

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None without TLS. Raises `UserError` for files that are no good."""
        settings = self._settings
        if not settings.security_protocol.endswith("SSL"):
            return None
        files = (settings.tls_ca_file, settings.tls_certificate_file, settings.tls_key_file)
        seen = tuple(fingerprint(file) for file in files if file)
        if self._made is None or self._made[0] != seen:
            context = client_context(ca_file=files[0], certificate_file=files[1], key_file=files[2], where=self._where)
            self._made = seen, context
        return self._made[1]

    async def sign_in(self, call: Call) -> None:
        """SaslHandshake and SaslAuthenticate. Raises what `call` does, `KafkaError` with the broker's reason, and
        `ScramError` for a broker that does not know the password.
        """
        mechanism, user = self._settings.sasl_mechanism, self._settings.sasl_username
        answer = await call(ApiKey.SASL_HANDSHAKE, {"mechanism": mechanism})
        if answer["error_code"]:
            served = ", ".join(answer["mechanisms"]) or "none"
            raise KafkaError(answer["error_code"], f"SASL {mechanism} (the broker serves {served})")

        async def send(token: bytes) -> bytes:
            answer = await call(ApiKey.SASL_AUTHENTICATE, {"auth_bytes": token})
            if answer["error_code"]:
                said = f": {answer['error_message']}" if answer["error_message"] else ""
                raise KafkaError(answer["error_code"], f"the broker does not let the user “{user}” in{said}")
            return bytes(answer["auth_bytes"])

        if mechanism == "PLAIN":  # RFC 4616
            await send(f"\0{user}\0{self._settings.sasl_password}".encode())
            return
        client = ScramClient(mechanism, user, self._settings.sasl_password, secrets.token_urlsafe(24))
        try:
            first = await send(client.first())
            # Tens of thousands of hashes: not in the loop that takes readings.
            client.verify(await send(await asyncio.to_thread(client.proof, first)))
        except ScramError as error:
            code = ErrorCode.SASL_AUTHENTICATION_FAILED
            raise KafkaError(code, f"{mechanism} as “{user}”: {error.what}") from None
