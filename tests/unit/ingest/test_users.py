"""The users file: read whole or not at all, never open to others, and passwords in it only as hashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import users
from gateway.users import add_user, fit_user_name, matches, read_users
from headwater.errors import UserError

MQTT = frozenset({"mqtt"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_N", 4)


def test_a_user_is_added_and_told_from_others(tmp_path: Path) -> None:
    path = str(tmp_path / "node" / "users")
    add_user(path, "pump", b"secret", MQTT)
    add_user(path, "meter-ü", b"secret", MQTT)
    found = read_users(path)
    assert list(found) == ["pump", "meter-ü"]
    assert found["pump"].digest != found["meter-ü"].digest  # salted
    assert matches(found["pump"], b"secret")
    assert not matches(found["pump"], b"Secret")
    assert not matches(found["pump"], b"")
    assert not matches(None, b"secret")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert "secret" not in Path(path).read_text()
    assert os.listdir(tmp_path / "node") == ["users"]


def test_a_stranger_costs_as_much_as_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[int, int, int]] = []
    scrypt = users._scrypt

    def counted(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
        costs.append((n, r, p))
        return scrypt(password, salt, 2, r, p)

    monkeypatch.undo()
    monkeypatch.setattr(users, "_scrypt", counted)
    add_user(str(tmp_path / "users"), "pump", b"secret", MQTT)
    matches(read_users(str(tmp_path / "users"))["pump"], b"x")
    matches(None, b"x")
    assert len(set(costs)) == 1
    assert costs[0][0] >= 1 << 14


def test_a_user_that_is_there_needs_replace(tmp_path: Path) -> None:
    path = str(tmp_path / "users")
    add_user(path, "pump", b"old", MQTT)
    with pytest.raises(UserError, match="already"):
        add_user(path, "pump", b"new", MQTT)
    add_user(path, "pump", b"new", MQTT, replace=True)
    assert matches(read_users(path)["pump"], b"new")
    assert not matches(read_users(path)["pump"], b"old")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a+", "#", "%u", "$SYS", "*", "a:b", "a\n", "a\0", "x" * 65, "a,b"])
def test_names_that_mean_more_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert not fit_user_name(name)
    with pytest.raises(UserError, match="cannot name a user"):
        add_user(str(tmp_path / "users"), name, b"secret", MQTT)


@pytest.mark.parametrize("password", [b"", b"x" * 1025, b"two\nlines", b"a\0b"])
def test_passwords_that_are_none(tmp_path: Path, password: bytes) -> None:
    with pytest.raises(UserError, match="no password"):
        add_user(str(tmp_path / "users"), "pump", password, MQTT)
    assert not (tmp_path / "users").exists()


GOOD = f"pump mqtt scrypt:4:8:1:{'00' * 16}:{'00' * 32}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pump", ":1 is no user"),
        (GOOD + "\n# fine\n\n" + GOOD.replace("pump", "a/b"), ":4 is no user"),
        (GOOD + "\n" + GOOD, ":2 names a user twice"),
        (GOOD.replace("scrypt", "plain"), "is no user"),
        (GOOD.replace(":4:", ":5:"), "is no user"),
        (GOOD.replace(":4:", ":1:"), "is no user"),
        (GOOD.replace(":4:8", ":1048576:8"), "is no user"),
        (GOOD.replace(":8:1:", ":8:1000:"), "is no user"),
        (GOOD.replace(":8:1:", ":0:1:"), "is no user"),
        (GOOD.replace("00" * 16 + ":", "00:"), "is no user"),
        (GOOD[:-2], "is no user"),
        (GOOD[:-1] + "x", "is no user"),
        (GOOD.replace("mqtt", "everything"), "is no user"),
        (GOOD.replace(" mqtt", "  mqtt"), "is no user"),
        ("\xff", "is no user"),
    ],
)
def test_a_file_with_one_bad_line_lets_nobody_in(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "users"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(UserError, match=said):
        read_users(str(path))


def test_a_file_that_others_may_read_or_that_is_none_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with pytest.raises(UserError, match="No such file"):
        read_users(str(path))
    path.write_text(GOOD + "\n")
    path.chmod(0o640)
    with pytest.raises(UserError, match=r"open to others \(mode 0640\)") as caught:
        read_users(str(path))
    assert "chmod 600" in caught.value.hint
    path.chmod(0o600)
    assert list(read_users(str(path))) == ["pump"]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_users(str(tmp_path / "link"))
    path.write_bytes(b"#" * (users.FILE_BYTES_MAX + 1))
    with pytest.raises(UserError, match="larger than"):
        read_users(str(path))
    with pytest.raises(UserError, match="cannot be"):
        read_users(str(tmp_path))
