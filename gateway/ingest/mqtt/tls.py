"""The MQTT listener's second socket: the same connections, inside TLS.

What it stands on is looked at about once a second; while its certificate is no good the socket is closed, and the plain
listener does not notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from gateway.certificates import common_name
from gateway.ingest.mqtt.settings import MqttTlsSettings
from gateway.strangers import Strangers
from gateway.tls import Refused, ServerTls, Wrapped, explain
from gateway.users import fit_user_name
from headwater.net import Listener, Net, is_loopback, parse_address

_log = logging.getLogger("headwater.mqtt")

Make = Callable[[Callable[[asyncio.BaseTransport], str | None] | None], asyncio.BaseProtocol]


class TlsDoor:
    """`look` opens and shuts it."""

    def __init__(
        self, settings: MqttTlsSettings, net: Net, connection: Make, *, timeout_ms: int, say: Callable[..., None]
    ) -> None:
        """`connection` makes one; told how to find its user, it asks for no password. `say` writes a bounded log."""
        self._say = say
        self._settings = settings
        self._net = net
        self._connection = connection
        self._timeout_ms = timeout_ms
        self._tls = ServerTls(settings, "[mqtt.tls]", ask=bool(settings.client_ca_file))
        self._strangers = Strangers(settings.handshakes_max)
        self._listener: Listener | None = None
        self._opening = False
        self._host, self._port = parse_address(settings.listen, default_port=8883)
        self.address: tuple[str, int] | None = None
        self.problem: str | None = None
        self._failed = 0

    async def look(self, *, users: bool) -> None:
        """Open or shut it, as its files and whether there are `users` say; nothing while an earlier look opens it."""
        if self._opening:
            return
        if self._tls.refresh():
            for warning in self._tls.warnings:
                _log.warning("[mqtt.tls]: %s", warning)
        problem = self._tls.problem
        if problem is None and not (users or self._settings.client_ca_file or is_loopback(self._host)):
            problem = "there is no user yet; `headwater user add NAME --mqtt` makes one and opens it"
        if problem is not None:
            self.close()
        elif self._listener is None:
            self._opening = True
            try:
                self._listener = await self._net.listen(self._accept, self._host, self._port)
            except OSError as error:
                problem = f"cannot listen: {error.strerror or error}"
            else:
                self.address = self._listener.address
                self._port = self.address[1]  # where it stays, also when it was any free one
                _log.info("MQTT over TLS on %s:%d", *self.address)
            finally:
                self._opening = False
        if problem != self.problem and problem is not None:
            _log.error("MQTT over TLS at %s is shut: %s", self._settings.listen, problem)
        self.problem = problem

    def close(self) -> None:
        """Close the socket; connections stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def stop(self) -> None:
        """Close it for good, and end whoever is in the middle of a handshake."""
        self.close()
        self._strangers.end_all()

    def _accept(self) -> asyncio.BaseProtocol:
        context = self._tls.context
        if context is None:  # shut just now, and this one was already on its way
            return Refused()
        certified = bool(self._settings.client_ca_file)
        protocol = self._connection(_user if certified else None)
        return Wrapped(
            protocol,
            context,
            timeout_ms=self._timeout_ms,
            knock=lambda transport: self._knock(protocol, transport),
            done=lambda error: self._shaken(protocol, error),
        )

    def _knock(self, protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        self._strangers.add(protocol, transport.abort)

    def _shaken(self, protocol: asyncio.BaseProtocol, error: BaseException | None) -> None:
        self._strangers.left(protocol)
        if error is not None:
            self._failed += 1
            self._say(logging.WARNING, "an MQTT client at %s: TLS: %s", self._settings.listen, explain(error))

    def status(self) -> dict[str, Any]:
        """For the status document."""
        return {
            "tls_open": self._listener is not None,
            "tls_handshakes_failed": self._failed,
            "certificate_days_left": self._tls.days_left(),
            "security_notes": self._tls.notes("[mqtt.tls]"),
        }


def _user(transport: asyncio.BaseTransport) -> str | None:
    """The common name of a client's certificate, where it may be a user's."""
    name = common_name(transport.get_extra_info("peercert"))
    return name if fit_user_name(name) else None
