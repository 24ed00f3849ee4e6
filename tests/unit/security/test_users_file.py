"""The users file with Kafka's credentials: what it keeps, and that no damage of it lets anybody in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import users
from gateway.scram import ITERATIONS
from gateway.users import add_user, read_file, remove_user
from headwater.errors import UserError

KAFKA = frozenset({"kafka"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(users, "_N", 4)
    path = tmp_path / "users"
    add_user(str(path), "token", b"s3cret", KAFKA)
    add_user(str(path), "pump", b"other", frozenset({"mqtt"}))
    return path


def test_it_keeps_what_verifies_and_nothing_that_signs_in(file: Path) -> None:
    found = read_file(str(file))
    assert {secret.mechanism for secret in found.by_name["token"].scram} == {"SCRAM-SHA-256", "SCRAM-SHA-512"}
    assert found.by_name["pump"].scram == ()
    assert "s3cret" not in file.read_text()
    # who is none for Kafka looks like one, the same after every change of the file
    strangers = [found.secret(name, "SCRAM-SHA-256") for name in ("pump", "nobody")]
    assert {stranger.iterations for stranger in strangers} == {ITERATIONS}
    add_user(str(file), "third", b"x", KAFKA)
    assert [read_file(str(file)).secret(name, "SCRAM-SHA-256") for name in ("pump", "nobody")] == strangers
    remove_user(str(file), "third")
    with pytest.raises(UserError, match="no user “third”"):
        remove_user(str(file), "third")


@pytest.mark.parametrize(
    ("old", "new"),
    [(f":{ITERATIONS}:", ":4095:"), (f":{ITERATIONS}:", ":99999999:"), ("SCRAM-SHA-256:", "SCRAM-MD5:"),
     (" kafka ", " mqtt "), (" mqtt ", " kafka "), ("token ", "ANONYMOUS ")],
)  # fmt: skip
def test_a_line_that_was_tampered_with_spoils_the_file(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match="nobody may come in"):
        read_file(str(file))


def test_a_file_cut_short_anywhere_widens_nothing(file: Path) -> None:
    """It is refused: a file with fewer users would leave out who is in it, and one with none would ask nobody."""
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_file(str(file))
