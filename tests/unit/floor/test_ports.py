"""Ports for servers that take their time to listen."""

from __future__ import annotations

import secrets
import socket

import pytest

from tests.support import ports


def test_neighbouring_ports_are_free_and_given_to_nobody_else_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.neighbouring_ports(3)
    given = ports._GIVEN.read_text().split()
    assert not range(max(first, int(given[0])), min(first + 2, int(given[1])) + 1)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", first + 1))
        other = ports.neighbouring_ports(3)
        drawn = [other - ports._FIRST, first - ports._FIRST]
        monkeypatch.setattr(secrets, "randbelow", lambda below: drawn.pop())
        assert ports.neighbouring_ports(3) == other
        assert drawn == []
