"""What people read: nothing cut where a program reads on, moments as how long ago."""

from __future__ import annotations

import pytest
from rich.table import Table

from headwater.cli import devices as devices_module
from headwater.cli import replication, status
from headwater.cli.devices import Row
from headwater.cli.screen import console


def test_a_pipe_gets_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "edge-1/" + "shed/" * 30 + "pump-1"
    devices_module._print([Row(device=name, name="Pump " * 20, last_ms=1, readings=7)], now_ms=5001)
    printed = capsys.readouterr().out
    assert name in printed
    assert "5 s ago" in printed
    assert "…" not in printed


def test_no_line_ends_in_the_spaces_that_fill_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table.grid()
    table.add_row("link", "no central")
    table.add_row("records", "readings 7, " * 20)
    with console() as screen:
        screen.print("edge-1")
        screen.print(table)
    assert capsys.readouterr().out == f"edge-1\nlink   no central\nrecords{('readings 7, ' * 20).rstrip()}\n"


def test_the_link_s_moments_are_told_as_ages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    central = {"state": "up", "since_ms": 1_000, "last_success_ms": 59_000, "backlog_bytes": 0, "error": None}
    monkeypatch.setattr(replication, "need_status", lambda _: {"now_ms": 61_000, "central": central})
    assert replication.show(None, as_json=False) == 0
    lines = {line[:16].strip(): line[16:].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines == {"state": "up", "since": "1 min 0 s ago", "last success": "2 s ago", "backlog bytes": "0"}


def test_what_a_client_calls_itself_is_no_markup_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    name = "mqtt:\x1b[2J[/red] :smile:\n[bold]"
    told = {
        "node": "edge-1",
        "state": "degraded",
        "problems": [f"{name}: it publishes"],
        "notes": [f"{name} subscribes"],
        "pid": 1,
        "version": "1",
        "now_ms": 5,
        "started_ms": 1,
        "disk": {"free_bytes": 1, "total_bytes": 2, "data_bytes": 1},
        "clock": {"wall_ms": 5},
        "addresses": {},
        "ingest": {"sources": [{"id": name, "connected": True, "last_ms": 1}]},
        "alerts": [{"rule": "hot", "instance": name, "state": "firing"}],
    }
    with console() as screen:
        status._print(told, screen)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.count("mqtt:\\x1b[2J[/red] :smile:\\n[bold]") == 4
