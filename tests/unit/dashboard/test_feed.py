"""The feed goes on whatever a client has written."""

from __future__ import annotations

from gateway.consume.reader import Block
from gateway.log.records import NO_HEADERS
from headwater.clock import ManualClock
from headwater.dashboard.feed import Feed
from headwater.dashboard.model import PageModel
from headwater.net import RealNet


def test_a_record_that_cannot_be_shown_does_not_stop_the_page() -> None:
    model = PageModel(history_s=60, devices_max=10, series_max=10)
    feed = Feed(model, net=RealNet(), clock=ManualClock(), host="127.0.0.1", port=1)
    for offset, value in enumerate([b'{"no":"window"}', b"garbage", b'{"rule":"r","instance":"i","state":"firing"}']):
        for topic in ("aggregates", "alerts", "headwater.progress", "readings"):
            feed.apply(Block(topic, 0, [offset], [1], [b"r/i"], [value], [NO_HEADERS], offset + 1))
    assert feed._positions["aggregates", 0] == 3
    assert model.alerts["r/i"]["state"] == "firing"
