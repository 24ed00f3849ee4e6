"""Settings of TLS, of a listener's side and of a client's."""

from __future__ import annotations

import msgspec


class ServerTlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a listener shows and asks for; TLS 1.2 and newer. Files are PEM and read again when they change."""

    certificate_file: str = ""
    """The listener's certificate, and behind it those that lead to its authority."""

    key_file: str = ""
    """Its private key, without a passphrase, readable for the node alone (0600); empty: in certificate_file."""

    client_ca_file: str = ""
    """Authorities whose client certificates are let in. Set, every client must show one."""
