"""The books of expiry: an event counts when it is on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.log.expiries import Expired, Expiries
from headwater.disk import ForgetfulDisk
from tests.support.logs import DATA

GONE = Expired(topic="r", partition=0, first=0, end=8, bytes=9, from_ms=1, to_ms=2, cause="age", at_ms=3)


def test_an_event_that_a_failed_sync_loses_is_written_again() -> None:
    emitted: list[dict[str, Any]] = []
    syncs: list[tuple[Callable[[], None], Callable[[], None]]] = []
    books = Expiries(
        ForgetfulDisk(),
        f"{DATA}/node/expired.json",
        lambda kind, **detail: emitted.append(detail),
        lambda done, failed: syncs.append((done, failed)),
    )
    books.note(GONE)
    assert books.under_way == 1
    syncs.pop()[1]()
    assert books.under_way == 0
    books.tell()
    assert [each["end"] for each in emitted] == [8, 8]
    syncs.pop()[0]()
    assert books.under_way == 0
    books.tell()
    assert len(emitted) == 2
