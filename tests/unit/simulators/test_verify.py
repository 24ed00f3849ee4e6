from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.ledger import Ledger, LedgerView
from simulators.verify import Verification


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerView]:
    """Devices `a` and `b`: a-1 and a-2 acknowledged, a-2 sent twice, b-1 not acknowledged; one piece of garbage."""
    path = str(tmp_path / "ledger.db")
    with Ledger(path) as book:
        for device, seq in (("a", 1), ("a", 2), ("b", 1)):
            book.sent(device, seq, seq * 1000, b'{"ts":%d,"seq":%d,"level":%d.5}' % (seq * 1000, seq, seq))
        book.acked("a", 1, 5)
        book.acked("a", 2, 6)
        book.repeated("a", 2)
        book.garbage("a", 1, 7, b"\xff")
        book.garbage_acked("a", 1, 8)
    view = LedgerView(path)
    yield view
    view.close()


def stored(seq: int, level: float | None = None) -> bytes:
    return b'{"seq":%d,"level":%.1f}' % (seq, seq + 0.5 if level is None else level)


def test_all_is_there(ledger: LedgerView) -> None:
    verification = Verification(ledger)
    verification.reading(b"edge/a", stored(1))
    verification.reading(b"edge/a", stored(2))
    verification.reading(b"edge/a", stored(2))  # sent twice on purpose
    verification.reading(b"edge/$gateway", b'{"disk":1}')
    verification.dead_letter(b"\xff")
    found = verification.findings()
    assert found.faults == []
    assert (found.acknowledged, found.found, found.sent, found.repeated) == (2, 2, 3, 1)


def test_a_device_is_found_by_a_level_of_its_topic(ledger: LedgerView) -> None:
    verification = Verification(ledger)
    verification.reading(b"edge/sim/a/telemetry", stored(1))
    assert verification.findings().found == 1


def test_what_is_missing_is_counted_and_named(ledger: LedgerView) -> None:
    verification = Verification(ledger)
    verification.reading(b"edge/a", stored(1))
    found = verification.findings()
    assert (found.missing, found.garbage_missing) == (1, 1)
    assert len(found.faults) == 2
    assert verification.examples == ["a number 2 was acknowledged and is not there"]


def test_other_values_are_told(ledger: LedgerView) -> None:
    verification = Verification(ledger)
    verification.reading(b"edge/a", stored(1, level=7.0))
    assert verification.findings().different == 1


def test_a_copy_that_nobody_sent_is_a_duplicate(ledger: LedgerView) -> None:
    verification = Verification(ledger)
    for _ in range(2):
        verification.reading(b"edge/a", stored(1))
    for _ in range(3):
        verification.reading(b"edge/a", stored(2))
    assert verification.findings().duplicates == 2


def test_another_nodes_readings_are_not_ours(ledger: LedgerView) -> None:
    verification = Verification(ledger, "edge")
    verification.reading(b"other/a", stored(1))
    found = verification.findings()
    assert (found.missing, found.unknown) == (2, 1)
