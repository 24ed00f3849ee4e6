"""Listeners and clients of a secured node, for the tests of its doors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.wire.settings import KafkaListenerSettings
from gateway.wire.sign_in import ClientSecurity
from tests.support.certificates import Authority
from tests.support.secure_node import PASSWORD, security

ALL: dict[str, Any] = {"topics": None}
OPEN = KafkaListenerSettings(
    listen="127.0.0.1:0", protocol="SASL_PLAINTEXT", sasl_mechanisms=("SCRAM-SHA-256", "SCRAM-SHA-512")
)


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
