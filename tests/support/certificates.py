"""Certificates for tests, made by openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_REQUEST = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs; `file` is what those who trust it need."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        _openssl(*_REQUEST, "-x509", "-days", "30", "-subj", f"/CN={name}", "-addext", "keyUsage=keyCertSign",
                 "-keyout", self.key, "-out", self.file)  # fmt: skip

    def sign(
        self, name: str, subject: str = "", *, names: str = "DNS:localhost,IP:127.0.0.1", end: str = "", days: int = 30
    ) -> Certificate:
        """`names` is the subjectAltName; `end`: a date YYYYMMDDHHMMSSZ, also one that is over."""
        key, request, made = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        _openssl(*_REQUEST, "-subj", subject or f"/CN={name}", "-keyout", key, "-out", request)
        key.chmod(0o600)
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        if end:
            config = self.folder / f"{name}.cnf"
            database = self.folder / f"{name}.db"
            database.write_text("")
            config.write_text(
                f"[ca]\ndefault_ca=c\n[c]\ndatabase={database}\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
                f"default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
            )
            _openssl("ca", "-batch", "-config", config, "-cert", self.file, "-keyfile", self.key, "-in", request,
                     "-out", made, "-startdate", "20200101000000Z", "-enddate", end, "-notext",
                     "-extfile", extensions)  # fmt: skip
        else:
            _openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial",
                     "-days", str(days), "-extfile", extensions, "-out", made)  # fmt: skip
        return Certificate(made, key)
