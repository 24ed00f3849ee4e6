"""Whom a certificate names, and until when: what Python's ssl leaves to be told."""

from __future__ import annotations

import datetime as dt
import re
import ssl
from collections.abc import Mapping
from typing import Any

from gateway.users import ANONYMOUS
from headwater.errors import UserError

_SHORT = {
    "commonName": "CN", "organizationalUnitName": "OU", "organizationName": "O", "localityName": "L",
    "stateOrProvinceName": "ST", "countryName": "C", "domainComponent": "DC", "userId": "UID",
}  # fmt: skip


def subject(certificate: Mapping[str, Any] | None) -> str:
    """A certificate's subject as text, the most special part first (RFC 2253); "" without one."""
    parts = [pair for rdn in (certificate or {}).get("subject", ()) for pair in rdn]
    return ",".join(f"{_SHORT.get(name, name)}={re.sub(_SPECIAL, _escape, value)}" for name, value in reversed(parts))


_SPECIAL = r'[,+"\\<>;=\x00-\x1f]|^[ #]|[ ]$'


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}" if match[0].isprintable() else f"\\{ord(match[0]):02X}"


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """The one common name; "" when there is none, or more than one."""
    names = [value for rdn in (certificate or {}).get("subject", ()) for name, value in rdn if name == "commonName"]
    return names[0] if len(names) == 1 else ""


class PrincipalMapping:
    """Makes a principal of a client's certificate: `CN`, `DN`, or one `RULE:pattern/replacement/[L|U]` on the DN."""

    def __init__(self, text: str, where: str) -> None:
        """Raises `UserError`."""
        self._text = text
        self._rule: tuple[re.Pattern[str], str, str] | None = None
        if text in ("CN", "DN"):
            return
        found = re.fullmatch(r"RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?)", text)
        try:
            if found is None:
                raise re.error("no rule")
            pattern = re.compile(found[1].replace("\\/", "/"))
            self._rule = pattern, re.sub(r"\$(\d)", r"\\g<\1>", found[2]), found[3]
            pattern.sub(self._rule[1], "")
        except re.error as error:
            hint = "Write CN, DN, or a rule such as RULE:^CN=([^,]+),OU=edges.*$/$1/L."
            raise UserError(f"{where}: principal_mapping “{text}”: {error}", hint=hint) from None

    def principal(self, certificate: Mapping[str, Any] | None) -> str:
        """The name, or "" when the certificate gives none: then its client is nobody."""
        if self._text == "CN":
            return common_name(certificate)
        name = subject(certificate)
        if self._rule is None:
            return name
        pattern, replacement, case = self._rule
        match = pattern.fullmatch(name)
        if match is None:
            return ""
        made = match.expand(replacement)
        return made.lower() if case == "L" else made.upper() if case == "U" else made


def not_after(file: str) -> dt.datetime | None:
    """When the first certificate of a PEM file ends (RFC 5280 section 4.1); None when that cannot be told.

    ssl tells it of the other end's certificate only.
    """
    with open(file, encoding="ascii", errors="replace") as handle:
        found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", handle.read(), re.DOTALL)
    try:
        if found is None:
            return None
        der = ssl.PEM_cert_to_DER_cert(found[0])
        inside = _inside(der, 0)  # Certificate
        at = _inside(der, inside)  # TBSCertificate
        if der[at] == 0xA0:  # the version, left out for version 1
            at = _after(der, at)
        for _ in ("serial", "signature", "issuer"):
            at = _after(der, at)
        at = _after(der, _inside(der, at))  # past notBefore
        text = der[_inside(der, at) : _after(der, at)].decode("ascii")
        form = "%y%m%d%H%M%SZ" if der[at] == 0x17 else "%Y%m%d%H%M%SZ"
        return dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
    except (ValueError, IndexError):
        return None


def _inside(der: bytes, at: int) -> int:
    """Where the contents of the element at `at` begin."""
    return at + 2 + (der[at + 1] & 0x7F if der[at + 1] & 0x80 else 0)


def _after(der: bytes, at: int) -> int:
    begin = _inside(der, at)
    size = int.from_bytes(der[at + 2 : begin], "big") if der[at + 1] & 0x80 else der[at + 1]
    return begin + size


def fit_principal(name: str) -> bool:
    """Whether a certificate's name may be a principal: nothing that means more in rules or lines."""
    return 0 < len(name) <= 256 and name.isprintable() and name not in (ANONYMOUS, "*")
