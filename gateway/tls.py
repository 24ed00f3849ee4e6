"""TLS for listeners and clients: contexts from files, wrapped connections, and what went wrong in plain words.

`ServerTls` keeps a listener's files and reads them again when they change; one that is no good gives no context, so
that nothing is served with it. A connection is wrapped by a protocol of asyncio's own around the one that would have
had the socket, so that whoever accepts sees it before its handshake.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import stat
from asyncio import sslproto
from collections.abc import Callable

from gateway.certificates import not_after
from gateway.tls_settings import ServerTlsSettings
from headwater.errors import PeerError, UserError

WARN_DAYS = 30
_RECORD_BYTES = 32 << 10  # what is read at once; asyncio's own 256 KiB would be there for each connection
_SHUTDOWN_S = 5.0

# OpenSSL's verification codes (x509_vfy.h): the ones that a setting or a clock mends.
_VERIFY = {
    9: "its certificate is not valid yet: is one of the clocks wrong?",
    10: "its certificate has expired",
    18: "its certificate is self-signed and not among those that we trust",
    19: "its certificate leads to an authority that we do not trust",
    20: "its certificate is of an authority that we do not trust",
    21: "its certificate is of an authority that we do not trust",
    23: "its certificate is revoked",
    26: "its certificate is for another purpose",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}


class TlsError(PeerError):
    """The other end's TLS, or ours, is not what was expected."""


class ServerTls:
    """A listener's certificate, key and trusted authorities; `context` is made of them as they were last read."""

    def __init__(self, settings: ServerTlsSettings, where: str, *, ask: bool) -> None:
        """`where` names the settings in messages. `ask` every client for a certificate."""
        self._settings = settings
        self._where = where
        self._ask = ask
        self._seen: object = None
        self.context: ssl.SSLContext | None = None
        self.problem: str | None = None
        self.warnings: tuple[str, ...] = ()
        self.expires: dt.datetime | None = None

    def refresh(self) -> bool:
        """Read the files when they changed; whether anything is new. Afterwards there is a context or a problem."""
        files = [self._settings.certificate_file, self._settings.key_file, self._settings.client_ca_file]
        seen = tuple(fingerprint(file) for file in files if file)
        if self._seen is not None and seen == self._seen:
            return False
        self._seen = seen
        self.context, self.expires, self.warnings = None, None, ()
        try:
            self.context = self._read()
            self.problem = None
        except UserError as error:
            self.problem = f"{error.what}. {error.hint}".rstrip()
        return True

    def _read(self) -> ssl.SSLContext:
        settings, where = self._settings, self._where
        if not settings.certificate_file:
            raise UserError(f"{where} has no certificate_file", hint="docs/security.md shows how to make one.")
        if self._ask and not settings.client_ca_file:
            raise UserError(f"{where} has no client_ca_file", hint="Name the authority of the clients' certificates.")
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        load_chain(context, settings.certificate_file, settings.key_file, where)
        self.expires = not_after(settings.certificate_file)
        self.warnings = tuple(
            f"{file} holds a private key and is open to others (mode {mode:04o}): chmod 600 it"
            for file, mode in [(settings.key_file or settings.certificate_file, _mode(settings))]
            if mode & 0o077
        )
        if self._ask:
            load_authorities(context, settings.client_ca_file, where)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def notes(self, name: str) -> list[str]:
        """What somebody should see to before it becomes a problem; `name` is the listener's."""
        days = self.days_left()
        if days is None or days >= WARN_DAYS:
            return list(self.warnings)
        ends = f"ends in {days} days" if days >= 0 else "has expired"
        return [f"the certificate of {name} {ends}", *self.warnings]

    def days_left(self) -> int | None:
        """Days until the certificate ends, rounded down; negative for one that has."""
        if self.expires is None:
            return None
        return (self.expires - dt.datetime.now(dt.UTC)).days


def _mode(settings: ServerTlsSettings) -> int:
    return stat.S_IMODE(os.stat(settings.key_file or settings.certificate_file).st_mode)


def client_context(*, ca_file: str, certificate_file: str = "", key_file: str = "", where: str) -> ssl.SSLContext:
    """For connecting: verifies the server and its host name. Raises `UserError` for files that are no good.

    Without a `ca_file` the system's authorities are trusted.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file:
        load_authorities(context, ca_file, where)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate_file:
        load_chain(context, certificate_file, key_file, where)
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_chain(context: ssl.SSLContext, certificate_file: str, key_file: str, where: str) -> None:
    """Our own certificate and key. Raises `UserError`."""

    def no_passphrase() -> str:
        raise UserError(
            f"{where}: the private key in {key_file or certificate_file} has a passphrase",
            hint="Nobody is there to type it: store the key without one (openssl pkey), mode 0600.",
        )

    try:
        context.load_cert_chain(certificate_file, key_file or None, no_passphrase)
    except ssl.SSLError as error:
        reason = (
            "key and certificate do not belong together" if "MISMATCH" in str(error) else "no PEM of the right kind"
        )
        files = certificate_file if not key_file else f"{certificate_file} and {key_file}"
        raise UserError(
            f"{where}: {files}: {reason}",
            hint="certificate_file begins with -----BEGIN CERTIFICATE-----, key_file with a PRIVATE KEY.",
        ) from None
    except OSError as error:
        unreadable = next((file for file in (certificate_file, key_file) if file and not os.access(file, os.R_OK)), "")
        raise UserError(f"{where}: {unreadable or certificate_file} cannot be read: {error.strerror}") from None


def load_authorities(context: ssl.SSLContext, file: str, where: str) -> None:
    """Those whom we trust; an empty file would trust nobody, or everybody, so it is refused. Raises `UserError`."""
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise UserError(f"{where}: {file} holds no certificates", hint="It must be PEM.") from None
    except OSError as error:
        raise UserError(f"{where}: {file} cannot be read: {error.strerror}") from None
    if not context.cert_store_stats()["x509"]:
        raise UserError(f"{where}: {file} holds no certificates", hint="It must be PEM.")


def fingerprint(path: str) -> tuple[int, ...] | None:
    """Tells whether a file is another one than before; None when it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


# --- connections


class Wrapped(sslproto.SSLProtocol):
    """TLS on a plain connection: hands the clear bytes to `protocol` once the handshake is good."""

    max_size = _RECORD_BYTES

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        timeout_ms: int,
        server_name: str | None = None,
        knock: Callable[[asyncio.Transport], None] | None = None,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Client's side with a `server_name`. `knock` is told of the connection before its handshake, `done` once
        after it: None, or why there is none.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waiter.add_done_callback(lambda future: done(_outcome(future)))
        self._knock = knock
        super().__init__(
            loop,
            protocol,
            context,
            waiter,
            server_side=server_name is None,
            server_hostname=server_name,
            ssl_handshake_timeout=timeout_ms / 1000,  # type: ignore[arg-type]  # asyncio takes fractions
            ssl_shutdown_timeout=_SHUTDOWN_S,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket gives
        if self._knock is not None:
            self._knock(transport)
        super().connection_made(transport)

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        # asyncio would drop the alert that tells the other end what is wrong.
        if self._transport is not None and isinstance(exc, ssl.SSLError):
            self._process_outgoing()  # type: ignore[attr-defined]  # asyncio's own, of no published type
        super()._fatal_error(exc, message)

    def connection_lost(self, exc: BaseException | None) -> None:
        # A peer that goes in the middle of its handshake leaves no reason behind; without one it would look good.
        super().connection_lost(exc or ConnectionResetError("the connection closed"))


class Refused(asyncio.Protocol):
    """For a connection that was on its way when its listener shut."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _outcome(future: asyncio.Future[None]) -> BaseException | None:
    return asyncio.CancelledError() if future.cancelled() else future.exception()


def explain(error: BaseException) -> str:
    """Why a handshake failed, in words that say what to mend."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"its certificate is no good: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        text = f"{error.reason or error}".lower().replace("_", " ")
        if "wrong version number" in text or "http request" in text or "unknown protocol" in text:
            return "it does not speak TLS there"
        if "alert" in text and "certificate required" in text:
            return "it asks for a client certificate, and we have shown none"
        if "alert" in text:
            return f"it refused our certificate or our TLS ({text})"
        return text
    if isinstance(error, ConnectionAbortedError) or "handshake" in str(error):
        return "no TLS handshake in time"
    return str(error) or "the connection closed during the TLS handshake: does it speak TLS there?"
