"""How a node connects to its central: settings that fit together, and a password that is shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.replicate.settings import UplinkSettings
from headwater.errors import UserError
from headwater.settings.load import load_settings, masked

SIGNS_IN = {"security_protocol": "SASL_SSL", "sasl_username": "token", "sasl_password": "s3cret"}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_username": "token"}, "needs sasl_username and sasl_password_file"),
        (SIGNS_IN | {"security_protocol": "SSL"}, "signs nobody in"),
        (SIGNS_IN | {"security_protocol": "PLAINTEXT"}, "signs nobody in"),
        (SIGNS_IN | {"security_protocol": "SASL_PLAINTEXT"}, "in the clear"),
        ({"tls_ca_file": "ca.pem"}, "which has no TLS"),
        ({"security_protocol": "PLAINTEXT", "tls_certificate_file": "a.pem"}, "which has no TLS"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as refused:
        UplinkSettings(bootstrap_servers="b:1", **settings).check_security("[central]")
    assert refused.value.what.startswith("[central]: ")
    assert "s3cret" not in str(refused.value)


def test_settings_that_fit_together_are_taken() -> None:
    for settings in ({}, SIGNS_IN, {"security_protocol": "SSL", "tls_ca_file": "ca.pem"}):
        UplinkSettings(bootstrap_servers="b:1", **settings).check_security("[central]")  # type: ignore[arg-type]
    scram = SIGNS_IN | {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512"}
    UplinkSettings(bootstrap_servers="b:1", **scram).check_security("[central]")  # type: ignore[arg-type]


def test_a_password_is_shown_nowhere_whether_it_stands_there_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    base = '[central]\nbootstrap_servers = "b:1"\nsecurity_protocol = "SASL_SSL"\nsasl_username = "token"\n'
    for line in ('sasl_password = "s3cret"', 'sasl_password_file = "key"'):
        file = tmp_path / "headwater.toml"
        file.write_text(base + line)
        loaded = load_settings(str(file), environ={}, host_name="edge")
        assert loaded.settings.central is not None
        assert loaded.settings.central.sasl_password == "s3cret"
        assert "s3cret" not in str(masked(loaded))
        assert "s3cret" not in repr(loaded.settings)
