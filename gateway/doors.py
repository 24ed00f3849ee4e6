"""Listening addresses where Kafka clients show who they are: TLS, then a certificate or a user, then what it may do.

A `Door` is one address. What it stands on (certificate, key, authorities, users) is looked at about once a second;
while any of it is no good the door is shut: its socket is closed, `status` says why, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from collections.abc import Callable
from typing import Any, Protocol

from gateway.certificates import PrincipalMapping, fit_principal
from gateway.credentials import Outcome, UserBook
from gateway.scram import Secret
from gateway.strangers import Strangers
from gateway.tls import Refused, ServerTls, Wrapped, explain
from gateway.users import ANONYMOUS
from gateway.wire import sasl
from gateway.wire.acl import NO_RIGHTS, AccessList
from gateway.wire.cluster import api_versions_body
from gateway.wire.peer import Peer
from gateway.wire.session import ServerSession
from gateway.wire.settings import KafkaListenerSettings, KafkaSettings
from headwater.errors import UserError
from headwater.net import Listener, Net, parse_address, port_holder

logger = logging.getLogger("headwater.kafka")

_REFUSAL_DELAY_S = 0.1  # Kafka's connection.failed.authentication.delay.ms: guessing takes time
_LINES_PER_LOOK = 20
LOOK_S = 1.0
TELL_S = 60.0  # strangers at the door make an event at most so often


class Caller(Protocol):
    """What a door asks of a connection."""

    peer: Peer
    session: ServerSession
    gate: sasl.SaslGate | None
    transport: asyncio.Transport | None

    def finish(self) -> None:
        """Send what is answered, then close."""


NOBODY = (
    "no client from the network can connect, though kafka.listen = “{listen}”: let clients show who they are at a "
    "[[kafka.listeners]], or write an [[kafka.acl]] for ANONYMOUS (docs/security.md)"
)


class Keeper:
    """The users of the Kafka listeners, for the gates."""

    def __init__(self, book: UserBook) -> None:
        self._book = book

    def secret(self, user: str, mechanism: str) -> Secret:
        return self._book.secret(user, mechanism)

    def verify(self, user: str, password: bytes, verdict: Callable[[bool], None]) -> None:
        self._book.verify(user, password, lambda found: verdict(found is Outcome.GOOD))

    def nonce(self) -> str:
        return secrets.token_urlsafe(24)


class _Client:
    """What a gate does to its connection."""

    def __init__(self, door: Door, caller: Caller) -> None:
        self._door = door
        self._caller = caller

    def bare(self) -> None:
        self._caller.session.bare = True

    def admit(self, user: str) -> None:
        self._door.admit(self._caller, user)
        self._caller.session.bare = False
        self._caller.gate = None

    def refuse(self, answer: Callable[[], None], why: str) -> None:
        self._door.refused(self._caller, why)

        def finish() -> None:
            if self._caller.transport is not None:
                answer()
                self._caller.finish()

        self._door.later(_REFUSAL_DELAY_S, finish)


class Door:
    """One listening address; see the module."""

    def __init__(self, doors: Doors, settings: KafkaListenerSettings, number: int) -> None:
        """Raises `UserError` for settings that contradict each other."""
        where = f"[[kafka.listeners]] number {number}"
        self.settings = settings
        self.address: tuple[str, int] | None = None
        self.advertised: tuple[str, int] | None = None
        self.problem: str | None = None
        self._doors = doors
        self._listener: Listener | None = None
        self._host, self._port = parse_address(settings.listen, default_port=9093)
        asks = settings.protocol == "SSL" or bool(settings.client_ca_file)
        self.tls = ServerTls(settings, where, ask=asks) if settings.protocol.endswith("SSL") else None
        self.signs_in = settings.protocol.startswith("SASL")
        self.mechanisms = settings.sasl_mechanisms
        self._mapping = PrincipalMapping(settings.principal_mapping, where)
        if self.signs_in and self.tls is None:
            # PLAIN would show the password to the whole network.
            self.mechanisms = tuple(each for each in self.mechanisms if each != sasl.PLAIN)
        if self.signs_in and not self.mechanisms:
            hint = "Without TLS only SCRAM is served: PLAIN would send the password in the clear."
            raise UserError(f"{where}: no SASL mechanism is left", hint=hint)

    # --- its socket

    def look(self) -> str | None:
        """Why it must be shut, as things are; None when it may be open. Reads files that changed."""
        if self.tls is not None:
            if self.tls.refresh():
                for warning in self.tls.warnings:
                    logger.warning("%s: %s", self.settings.listen, warning)
            if self.tls.problem is not None:
                return self.tls.problem
        if self.signs_in:
            return self._doors.book_problem()
        if self.settings.protocol == "PLAINTEXT" and not self._doors.access.admits_anonymous:
            return "no [[kafka.acl]] names ANONYMOUS, so whoever comes without a credential may do nothing"
        return None

    async def go(self, net: Net, problem: str | None) -> None:
        """Open or shut, as `look` said."""
        if problem is not None:
            self.shut()
        elif self._listener is None:
            try:
                self._listener = await net.listen(self._accept, self._host, self._port)
            except OSError as error:
                problem = f"cannot listen on {self.settings.listen}: {error.strerror or error}"
            else:
                self.address = self._listener.address
                self._port = self.address[1]  # where it stays, also when it was any free one
                self.advertised = advertised(self.settings.advertised, self.address)
                logger.info("kafka %s on %s:%d", self.settings.protocol, *self.address)
        if problem != self.problem:
            name = f"kafka {self.settings.listen}"
            if problem is not None:
                logger.error("%s is shut: %s", name, problem)
                self._doors.emit("listener-shut", listener=name, cause=problem)
            else:
                self._doors.emit("listener-open", listener=name)
        self.problem = problem

    def shut(self) -> None:
        """Close the socket; connections that are open stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self) -> asyncio.BaseProtocol:
        protocol = self._doors.connection(self)
        context = self.tls.context if self.tls is not None else None
        if self.tls is None:
            return protocol
        if context is None:  # shut just now, and this one was already on its way
            return Refused()
        caller: Any = protocol
        return Wrapped(
            protocol,
            context,
            timeout_ms=self._doors.settings.authentication_timeout_ms,
            knock=lambda transport: self._knock(caller, transport),
            done=lambda error: self._shaken(caller, error),
        )

    def _knock(self, caller: Caller, transport: asyncio.Transport) -> None:
        caller.peer.name = "{}:{}".format(*transport.get_extra_info("peername", ("unknown", 0))[:2])
        self._doors.wait(caller, transport.abort)

    def _shaken(self, caller: Caller, error: BaseException | None) -> None:
        if error is not None:
            self._doors.left(caller)
            self._doors.handshakes_failed += 1
            self._doors.last_refusal = f"{caller.peer.name}: TLS: {explain(error)}"
            self._doors.say("kafka client %s: TLS: %s", caller.peer.name, explain(error))

    # --- its clients

    def arrived(self, caller: Caller) -> None:
        """A connection is there, its TLS handshake done: who is it?"""
        transport = caller.transport
        caller.peer.rights = NO_RIGHTS  # whatever goes wrong from here on
        if transport is None:
            return
        if self.signs_in:
            caller.session.limit(sasl.FRAME_BYTES_MAX)
            caller.gate = sasl.SaslGate(_Client(self, caller), self._doors.keeper, self.mechanisms, api_versions_body)
            self._doors.wait(caller, transport.abort)
            limit_s = self._doors.settings.authentication_timeout_ms / 1000
            self._doors.limits[caller] = self.later(limit_s, lambda: self._too_late(caller))
            return
        name = ANONYMOUS
        if self.tls is not None:
            name = self._mapping.principal(transport.get_extra_info("peercert"))
            if not fit_principal(name):
                self.refused(caller, "its certificate gives no name that may be a principal")
                transport.abort()
                return
        self.admit(caller, name)

    def admit(self, caller: Caller, principal: str) -> None:
        """It is known from now on."""
        self._doors.left(caller)
        caller.session.limit(self._doors.settings.frame_bytes_max)
        caller.peer.principal = principal
        caller.peer.rights = self._doors.access.rights(principal)

    def refused(self, caller: Caller, why: str) -> None:
        self._doors.authentication_failures += 1
        self._doors.last_refusal = f"{caller.peer.name}: {why}"
        self._doors.say("kafka client %s was refused: %s", caller.peer.name, why)

    def _too_late(self, caller: Caller) -> None:
        if caller.gate is not None and caller.transport is not None:
            self.refused(caller, "it did not sign in in time")
            caller.transport.abort()

    def later(self, delay_s: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, action)

    def status(self) -> dict[str, Any]:
        """For the status document."""
        return {
            "listen": self.settings.listen if self.address is None else f"{self.address[0]}:{self.address[1]}",
            "protocol": self.settings.protocol,
            "open": self._listener is not None,
            "problem": self.problem,
            "certificate_days_left": self.tls.days_left() if self.tls is not None else None,
        }

    def notes(self) -> list[str]:
        """What somebody should see to before it becomes a problem."""
        return self.tls.notes(f"kafka listener {self.settings.listen}") if self.tls is not None else []


class Doors:
    """All doors of a listener, and what they share."""

    def __init__(
        self,
        settings: KafkaSettings,
        users_file: str,
        connection: Callable[[Door], asyncio.BaseProtocol],
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        """Raises `UserError` for rules or listeners that are none."""
        self.settings = settings
        self.connection = connection
        self.access = AccessList(settings.acl, reserved=reserved)
        self.book = UserBook(users_file, "kafka", must_exist=bool(settings.users_file))
        self.keeper = Keeper(self.book)
        self.authentication_failures = self.handshakes_failed = 0
        self.last_refusal = ""
        self.emit: Callable[..., object] = lambda kind, **detail: None  # events, for whoever wants them
        self._told, self._told_at = (0, 0), -TELL_S
        self.strangers = Strangers(settings.unauthenticated_max)
        self.limits: dict[Caller, asyncio.TimerHandle] = {}  # until when each must have signed in
        self._lines = 0
        self.all = [Door(self, each, number) for number, each in enumerate(settings.listeners, 1)]

    # --- clients that have not shown who they are

    def wait(self, caller: Caller, abort: Callable[[], None]) -> None:
        """A client is here and unknown."""
        if self.strangers.add(caller, abort) is not None:
            self.say("kafka: %d clients have not signed in; the oldest was closed for a newer one", len(self.strangers))

    def left(self, caller: Caller) -> None:
        """It is known, or gone."""
        self.strangers.left(caller)
        if (limit := self.limits.pop(caller, None)) is not None:
            limit.cancel()  # it holds the connection and what that had sent: a crowd would fill the memory

    def say(self, line: str, *values: object) -> None:
        """A log line about one stranger; a crowd of them is counted in `status` and not told one by one."""
        self._lines += 1
        if self._lines <= _LINES_PER_LOOK:
            logger.warning(line, *values)

    # --- once a second

    def book_problem(self) -> str | None:
        """Why nobody can sign in."""
        if self.book.problem is not None:
            return self.book.problem
        if self.book.empty:
            return "there is no user for Kafka yet; `headwater user add NAME --kafka` makes one and opens it"
        return None

    async def look(self, net: Net) -> set[str]:
        """Open and shut what must be; the users whose connections have to end, for they changed."""
        self._lines = 0
        changed = self.book.reload()
        for door in self.all:
            await door.go(net, door.look())
        self._tell(asyncio.get_running_loop().time())
        return changed

    def _tell(self, now: float) -> None:
        """Who was not let in since the last event, in one; a flood of strangers must not fill the log."""
        seen = self.authentication_failures, self.handshakes_failed
        if seen != self._told and now - self._told_at >= TELL_S:
            sign_ins, handshakes = (new - old for new, old in zip(seen, self._told, strict=True))
            self._told, self._told_at = seen, now
            self.emit("refused", listener="kafka", sign_ins=sign_ins, handshakes=handshakes, last=self.last_refusal)

    async def keep(self, net: Net, end: Callable[[set[str]], None]) -> None:
        """Until cancelled; `end` the connections of users who changed."""
        while True:
            await asyncio.sleep(LOOK_S)
            changed = await self.look(net)
            if changed:
                end(changed)

    def close(self) -> None:
        """Shut all, and end whoever still stands before one."""
        self.book.close()
        self.strangers.end_all()
        for door in self.all:
            door.shut()

    def problems(self) -> dict[str, str]:
        """Which doors are shut, and why."""
        return {f"kafka {door.settings.listen}": door.problem for door in self.all if door.problem is not None}

    def notes(self) -> list[str]:
        """What somebody should see to before it becomes a problem."""
        return [note for door in self.all for note in door.notes()]

    def status(self) -> dict[str, Any]:
        """For the status document."""
        return {
            "security_notes": self.notes(),
            "listeners": [door.status() for door in self.all],
            "authentication_failures": self.authentication_failures,
            "tls_handshakes_failed": self.handshakes_failed,
            "unauthenticated": len(self.strangers),
            "unauthenticated_closed": self.strangers.evicted,
        }


def advertised(setting: str | None, listening: tuple[str, int]) -> tuple[str, int]:
    """What clients of an address are told."""
    if setting is not None:
        return parse_address(setting, default_port=listening[1])
    host, port = listening
    return (socket.gethostname(), port) if host in {"0.0.0.0", "::"} else (host, port)


def check_doors(settings: KafkaSettings) -> None:
    """Raises `UserError` for listeners or rules that are none; reads no file."""
    Doors(settings, "", lambda door: asyncio.BaseProtocol())


def cannot_listen(host: str, port: int, error: OSError) -> UserError:
    """What the operating system said, and what to do."""
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port) or "another process"
        return UserError(
            f"kafka.listen: {host}:{port} is taken by {holder}", hint="Stop it, or set kafka.listen to another port."
        )
    return UserError(
        f"kafka.listen: cannot listen on {host}:{port}: {error.strerror or error}",
        hint="Set kafka.listen to an address of this machine and a port above 1023.",
    )
