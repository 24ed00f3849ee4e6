"""Which dead letters a filter takes, and how devices are listed."""

from __future__ import annotations

import pytest

from headwater.cli.deadletter import what_next
from headwater.cli.deadletters import DeadLetter, Filter, parse_filter
from headwater.cli.status import lines
from headwater.errors import UserError

ONE = DeadLetter(
    0, 17, 5_000, "edge/mqtt:pump-1", b"x", {"reason": "no JSON: bad", "source": "mqtt:pump-1", "time": "4000"}
)


@pytest.mark.parametrize(
    ("options", "takes"),
    [
        (("", "", "", "", ""), True),
        (("no json", "mqtt:pump-*", "", "", ""), True),
        (("timestamp", "", "", "", ""), False),
        (("", "serial:*", "", "", ""), False),
        (("", "", "4000", "4001", "17"), True),
        (("", "", "4001", "", ""), False),
        (("", "", "", "4000", ""), False),
        (("", "", "", "", "15-17"), True),
        (("", "", "", "", "18-20"), False),
    ],
)
def test_a_filter_takes_what_its_options_say(options: tuple[str, str, str, str, str], takes: bool) -> None:
    assert parse_filter(*options).takes(ONE) is takes


@pytest.mark.parametrize("offset", ["x", "-5", "5-", "5-x"])
def test_an_offset_that_is_none_is_told(offset: str) -> None:
    with pytest.raises(UserError, match="is no offset"):
        parse_filter("", "", "", "", offset)


def test_a_dead_letter_without_headers_has_what_its_record_says() -> None:
    bare = ONE._replace(headers={})
    assert (bare.source, bare.arrival_ms, bare.reason) == ("mqtt:pump-1", 5_000, "")
    assert ONE._replace(headers={"time": "9" * 30}).arrival_ms == 5_000
    assert Filter().takes(bare)


def test_status_has_a_line_for_each_decoder() -> None:
    decoder = {"state": "paused", "lag_records": 7, "messages": 1_200, "rejected": 3, "failed": 6}
    status = {
        "now_ms": 0,
        "disk": {"free_bytes": 1, "total_bytes": 2, "data_bytes": 1},
        "clock": {"wall_ms": 1_800_000_000_000, "trusted": True},
        "addresses": {},
        "work": {"state": "running", "restarts": 0, "report": {"decoders": {"gauge": decoder}}},
    }
    assert ("decoder gauge", "paused, 7 records behind; 1,200 decoded, 9 bad") in lines(status)


def test_only_messages_are_to_be_replayed() -> None:
    of_processor = ONE._replace(headers={"source": "processor:pump"})
    assert "replay" in what_next([of_processor, ONE])
    assert what_next([of_processor]) == "headwater deadletter show OFFSET: all of one."
