"""SCRAM, both ends, sans-IO: who knows a password proves it without sending it (RFC 5802; SHA-256: RFC 7677).

SHA-512 is the same with another hash, as Kafka speaks it (KIP-84). No channel binding is offered: Kafka has none.
Names and passwords are taken as UTF-8 as they come, without SASLprep, as Kafka's own clients and brokers do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import NamedTuple

from headwater.errors import PeerError

HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

ITERATIONS = 8_192
"""Of the credentials made here; each connection of a client on a small machine pays for them."""
ITERATIONS_MIN = 4_096
"""RFC 7677 section 4; a peer that offers fewer wants the password cheap."""
ITERATIONS_MAX = 1_000_000
"""A peer that asks for more wants our processor."""
SALT_BYTES = 16
MESSAGE_BYTES_MAX = 4_096

_PRINTABLE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")  # RFC 5802 section 7: any printable ASCII but the comma
_NAME = re.compile(r"(?:[^=,\0]|=2C|=3D)+\Z")


class ScramError(PeerError):
    """The exchange failed: a wrong proof, an altered nonce, a malformed message."""


class Secret(NamedTuple):
    """What a server keeps of a password: enough to verify, not enough to log in with (RFC 5802 section 3)."""

    mechanism: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes


def make_secret(mechanism: str, password: bytes, salt: bytes, iterations: int = ITERATIONS) -> Secret:
    """Salt and hash a password; takes some ten milliseconds."""
    client_key, server_key = _keys(mechanism, password, salt, iterations)
    return Secret(mechanism, iterations, salt, _hash(mechanism, client_key), server_key)


def decoy(mechanism: str, name: str, key: bytes) -> Secret:
    """What a user that there is not seems to have: the same each time, so that nobody learns who is one (section 9)."""
    salt = hmac.digest(key, f"{mechanism} {name}".encode(), "sha256")[:SALT_BYTES]
    nothing = bytes(hashlib.new(HASHES[mechanism]).digest_size)
    return Secret(mechanism, ITERATIONS, salt, nothing, nothing)


class ScramServer:
    """The server's end of one exchange: `step` with each of the client's two messages; `user` is set by the first."""

    def __init__(self, mechanism: str, find: Callable[[str], Secret], nonce: str) -> None:
        """`find` gives a user's secret, a decoy for an unknown one. `nonce`: printable, new each time."""
        self._mechanism = mechanism
        self._find = find
        self._nonce = nonce
        self._secret: Secret | None = None
        self._client_nonce = ""
        self._header = self._bare = self._first = ""
        self.user = ""
        self.done = False

    def step(self, message: bytes) -> bytes:
        """The answer to a message. Raises `ScramError`; the exchange is over then."""
        text = _text(message)
        if self.done:
            raise ScramError("a message after the last one")
        if self._secret is None:
            return self._begin(text)
        secret, self._secret = self._secret, None
        self.done = True
        return self._finish(text, secret)

    def _begin(self, text: str) -> bytes:
        parts = text.split(",", 2)
        if len(parts) != 3 or parts[0] not in ("n", "y"):
            raise ScramError("channel binding is not served here" if text.startswith("p=") else "no SCRAM message")
        self._header, self._bare = f"{parts[0]},{parts[1]},", parts[2]
        fields = self._bare.split(",")
        name, nonce = _field(fields, 0, "n"), _field(fields, 1, "r")
        # Whatever follows are extensions, to be passed over (section 7); a delegation token is another kind of secret.
        if not _NAME.match(name) or not _PRINTABLE.match(nonce) or "tokenauth=true" in fields[2:]:
            raise ScramError("no user name, no nonce, or a delegation token")
        self.user = name.replace("=2C", ",").replace("=3D", "=")
        if parts[1] not in ("", f"a={name}"):
            raise ScramError("one user cannot act for another")
        self._secret = self._find(self.user)
        self._client_nonce, self._nonce = nonce, nonce + self._nonce
        salt = base64.b64encode(self._secret.salt).decode()
        self._first = f"r={self._nonce},s={salt},i={self._secret.iterations}"
        return self._first.encode()

    def _finish(self, text: str, secret: Secret) -> bytes:
        without, comma, proof = text.rpartition(",p=")
        fields = without.split(",")
        binding, nonce = _base64(_field(fields, 0, "c")), _field(fields, 1, "r")
        exchange = f"{self._bare},{self._first},{without}".encode()
        signature = _hmac(self._mechanism, secret.stored_key, exchange)
        given = _base64(proof)
        # Everything is computed and compared before anything is said: what failed shows in no answer's time.
        client_key = bytes(a ^ b for a, b in zip(given, signature, strict=False))
        proved = hmac.compare_digest(_hash(self._mechanism, client_key), secret.stored_key)
        # librdkafka before 2.6.1 puts its own nonce before ours once more (its issue 4895); ours is in it all the same.
        twice = hmac.compare_digest(nonce.encode(), f"{self._client_nonce}{self._nonce}".encode())
        same_nonce = hmac.compare_digest(nonce.encode(), self._nonce.encode()) or twice
        same_header = hmac.compare_digest(binding, self._header.encode())
        if not (comma and proved and same_nonce and same_header and len(given) == len(signature)):
            raise ScramError("the proof is wrong")
        return b"v=" + base64.b64encode(_hmac(self._mechanism, secret.server_key, exchange))


class ScramClient:
    """The client's end: `first`, then `proof` of the server's answer, then `verify` its last message."""

    def __init__(self, mechanism: str, user: str, password: str, nonce: str) -> None:
        self._mechanism = mechanism
        self._password = password.encode()
        self._nonce = nonce
        name = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def proof(self, message: bytes) -> bytes:
        """Raises `ScramError`. Hashes for some ten milliseconds: call it in a thread."""
        text = _text(message)
        fields = text.split(",")
        nonce, salt, count = _field(fields, 0, "r"), _base64(_field(fields, 1, "s")), _field(fields, 2, "i")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce) or not _PRINTABLE.match(nonce):
            raise ScramError("the server's nonce does not continue ours")
        iterations = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
        if not ITERATIONS_MIN <= iterations <= ITERATIONS_MAX:
            raise ScramError(f"the server asks for {count} iterations, not {ITERATIONS_MIN} to {ITERATIONS_MAX}")
        if not salt:
            raise ScramError("the server sends no salt")
        client_key, server_key = _keys(self._mechanism, self._password, salt, iterations)
        without = f"c={base64.b64encode(b'n,,').decode()},r={nonce}"
        exchange = f"{self._bare},{text},{without}".encode()
        signature = _hmac(self._mechanism, _hash(self._mechanism, client_key), exchange)
        self._signature = _hmac(self._mechanism, server_key, exchange)
        given = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{without},p={base64.b64encode(given).decode()}".encode()

    def verify(self, message: bytes) -> None:
        """The server knows the password too. Raises `ScramError` for one that does not."""
        text = _text(message)
        if text.startswith("e="):
            raise ScramError(f"the server refused: {text[2:80]}")
        given = _base64(_field(text.split(","), 0, "v"))
        if not self._signature or not hmac.compare_digest(given, self._signature):
            raise ScramError("the server does not know the password: it is not the one that we mean")


def _keys(mechanism: str, password: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """ClientKey and ServerKey (RFC 5802 section 3)."""
    salted = hashlib.pbkdf2_hmac(HASHES[mechanism], password, salt, iterations)
    return _hmac(mechanism, salted, b"Client Key"), _hmac(mechanism, salted, b"Server Key")


def _text(message: bytes) -> str:
    if len(message) > MESSAGE_BYTES_MAX:
        raise ScramError(f"a message of {len(message)} bytes; the limit is {MESSAGE_BYTES_MAX}")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("a message that is no UTF-8") from None


def _field(fields: list[str], index: int, name: str) -> str:
    """A field's value, where it must stand; an `m=` in its place is an extension that we must refuse (section 5.1)."""
    if index >= len(fields) or not fields[index].startswith(f"{name}="):
        raise ScramError(f"no field {name} where it belongs")
    return fields[index][2:]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        raise ScramError("a field is no base64") from None


def _hmac(mechanism: str, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, HASHES[mechanism])


def _hash(mechanism: str, data: bytes) -> bytes:
    return hashlib.new(HASHES[mechanism], data).digest()
