"""What `headwater status` says of messages, and that it never leaves something out without a word."""

from __future__ import annotations

import pytest

from headwater.cli.screen import console
from headwater.cli.status import _ingest_line, _print
from headwater.dashboard.metrics import _ingest

COUNTS = {
    "received": 1_200,
    "stored": 1_000,
    "suppressed": 150,
    "undated_copies": 3,
    "refused_messages": 4,
    "refused": 2,
    "devices": {"refused": 40},
}


def test_everything_that_was_not_stored_is_in_the_line() -> None:
    assert _ingest_line(COUNTS) == (
        "1,200 received, 1,000 stored, 150 suppressed, 3 retained copies without a time left out,"
        " 4 refused for their topic, 40 refused of unknown devices, 2 clients refused"
    )
    assert _ingest_line({"received": 1, "stored": 1, "devices": None}) == "1 received, 1 stored"


def test_everything_that_was_not_stored_is_a_metric() -> None:
    found: dict[str, float] = {}
    for metric in _ingest(COUNTS, 0):
        found |= {sample.name: sample.value for sample in metric.samples if sample.name.endswith("_total")}
    assert (found["headwater_ingest_suppressed_total"], found["headwater_ingest_refused_messages_total"]) == (150, 4)
    assert found["headwater_ingest_undated_copies_total"] == 3
    assert found["headwater_ingest_unknown_devices_refused_total"] == 40


def test_problems_and_notes_that_have_no_room_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    problems, notes = [f"problem {number}" for number in range(7)], [f"note {number}" for number in range(4)]
    with console() as screen:
        _print({"node": "n", "state": "degraded", "problems": problems, "notes": notes}, screen)
    lines = capsys.readouterr().out.splitlines()
    assert lines[6].strip() == "and 2 more problems; all of them with --json"
    assert lines[10].strip() == "and 1 more note; all of them with --json"
