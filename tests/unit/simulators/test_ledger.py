from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UserError
from simulators import farm, fleet, replay
from simulators.ledger import Ledger, LedgerView, begin_ledger


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


def test_what_is_committed_is_seen_by_a_reader_while_the_writer_goes_on(path: str) -> None:
    with Ledger(path) as ledger:
        ledger.sent("a", 1, 100, b'{"x":1}')
        ledger.commit()
        view = LedgerView(path)
        assert (view.sent, view.acknowledged) == (1, 0)
        ledger.acked("a", 1, 105)
        ledger.sent("a", 2, 200, b'{"x":2}')
        ledger.garbage("b", 1, 50, b"\xff")
        ledger.total("resent", 4)
        assert (view.sent, view.acknowledged, view.garbage_sent) == (1, 0, 0)
        ledger.commit()
        assert (view.sent, view.acknowledged, view.garbage_sent, view.total("resent")) == (2, 1, 1, 4)
        assert view.total("never") == 0
        assert [tuple(reading) for reading in view.readings("a")] == [
            ("a", 1, 100, b'{"x":1}', True),
            ("a", 2, 200, b'{"x":2}', False),
        ]
        assert list(view.acked_seqs("a")) == [1]
        assert list(view.garbage_payloads()) == [b"\xff"]
        assert view.devices() == {"a": 2}
        view.close()


def test_closing_writes_the_rest(path: str) -> None:
    with Ledger(path) as ledger:
        ledger.sent("a", 1, 100, b"{}")
        ledger.acked("a", 1, 101)
    view = LedgerView(path)
    assert (view.sent, view.acknowledged) == (1, 1)
    view.close()


def test_the_buffer_is_bounded(path: str) -> None:
    ledger = Ledger(path, buffered_max=10)
    for seq in range(10):
        ledger.sent("a", seq, seq, b"{}")
    view = LedgerView(path)
    assert view.sent == 10
    view.close()
    ledger.close()


def test_an_acknowledgement_that_comes_twice_counts_once(path: str) -> None:
    with Ledger(path) as ledger:
        ledger.sent("a", 1, 1, b"{}")
        ledger.acked("a", 1, 2)
        ledger.acked("a", 1, 3)
        ledger.commit()
        ledger.acked("a", 1, 4)
    view = LedgerView(path)
    assert view.acknowledged == 1
    view.close()


def test_a_second_run_is_refused_before_it_sends(path: str, tmp_path: Path) -> None:
    begin_ledger(path)
    begin_ledger(path)  # nothing was sent yet
    with Ledger(path) as ledger:
        ledger.sent("a", 1, 100, b"{}")
    for simulator, *arguments in (
        (fleet, "pump-house"),
        (farm,),
        (replay, "none.csv", "--time-column", "t", "--device", "d"),
    ):
        with pytest.raises(UserError, match=r"holds an earlier run's readings \(1\)"):
            simulator.main([*arguments, "--mqtt", "127.0.0.1:1", "--ledger", path])
    (tmp_path / "text").write_text("no database, but something longer than a header is" * 20)
    with pytest.raises(UserError, match="not a database"):
        begin_ledger(str(tmp_path / "text"))
