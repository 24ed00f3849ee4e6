from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from headwater.app.logs import set_up_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_one_line_with_node_and_part() -> None:
    stream = io.StringIO()
    set_up_logging("edge-1", stream=stream)
    logging.getLogger("gateway.replicate.driver").warning("link down: %s", "timed out")
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == "warning edge-1 replicate: link down: timed out\n"


def test_what_a_client_calls_itself_makes_no_line_of_ours_and_moves_no_cursor() -> None:
    stream = io.StringIO()
    set_up_logging("edge-1", stream=stream)
    logging.getLogger("gateway.ingest").warning("%s: refused", "mqtt:a\n2026-01-01 error\x1b[2J")
    first, second = stream.getvalue().splitlines()
    assert first.endswith(" warning edge-1 ingest: mqtt:a")
    assert second == "    2026-01-01 error\\x1b[2J: refused"


def test_json_is_one_object_a_line_with_extras() -> None:
    stream = io.StringIO()
    set_up_logging("edge-1", form="json", stream=stream)
    logging.getLogger("headwater.app.core").info("started", extra={"offset": 7})
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("level", "node", "part", "message", "offset")} == {
        "level": "info",
        "node": "edge-1",
        "part": "app",
        "message": "started",
        "offset": 7,
    }


def test_the_level_is_kept() -> None:
    stream = io.StringIO()
    set_up_logging("edge-1", level="error", stream=stream)
    logging.getLogger("gateway.log").warning("no")
    assert stream.getvalue() == ""
