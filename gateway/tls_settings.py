"""Settings of TLS, of a listener's side and of a client's."""

from __future__ import annotations

from typing import Literal

import msgspec

from headwater.errors import UserError


class ServerTlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a listener shows and asks for; TLS 1.2 and newer. Files are PEM and read again when they change."""

    certificate_file: str = ""
    """The listener's certificate, and behind it those that lead to its authority."""

    key_file: str = ""
    """Its private key, without a passphrase, readable for the node alone (0600); empty: in certificate_file."""

    client_ca_file: str = ""
    """Authorities whose client certificates are let in. Set, every client must show one."""


class ClientSecuritySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we connect to a broker: the names are those of a Kafka client's settings, dots written as underscores."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SSL is TLS, 1.2 or newer, with the broker's name verified; SASL_… signs in with a user and password."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How. SCRAM does not send the password; IBM Event Streams wants PLAIN."""
    sasl_username: str = ""
    """The user; at IBM Event Streams it is the word token."""
    sasl_password: str = ""
    """Its password, or API key; better sasl_password_file, a file (0600) that holds it."""
    tls_ca_file: str = ""
    """Authorities (PEM) whose brokers are trusted; empty: the system's."""
    tls_certificate_file: str = ""
    """Our own certificate (PEM, with its chain), where the broker asks for one."""
    tls_key_file: str = ""
    """Its private key (PEM, 0600, without a passphrase); empty: in tls_certificate_file."""

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__} | {"sasl_password": "********"}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def check_security(self, where: str) -> None:
        """Raises `UserError` for settings that do not fit together; `where` names them."""
        sasl, tls = self.security_protocol.startswith("SASL"), self.security_protocol.endswith("SSL")
        credential = bool(self.sasl_username or self.sasl_password)
        if sasl and not (self.sasl_username and self.sasl_password):
            raise UserError(
                f"{where}: {self.security_protocol} needs sasl_username and sasl_password_file",
                hint="Write the user, and the password into a file of mode 0600.",
            )
        if credential and not sasl:
            raise UserError(
                f"{where}: there is a user, and security_protocol is {self.security_protocol}, which signs nobody in",
                hint='Write security_protocol = "SASL_SSL".',
            )
        if (self.tls_ca_file or self.tls_certificate_file) and not tls:
            raise UserError(
                f"{where}: there are TLS files, and security_protocol is {self.security_protocol}, which has no TLS",
                hint=f'Write security_protocol = "{"SASL_SSL" if sasl else "SSL"}".',
            )
        if sasl and not tls and self.sasl_mechanism == "PLAIN":
            raise UserError(
                f"{where}: SASL_PLAINTEXT with PLAIN sends the password in the clear",
                hint="Use SASL_SSL, or a SCRAM mechanism.",
            )
