from __future__ import annotations

import json

import pytest

from processors.sinks.answers import Answer, Conflict, Means, judge

SENT = ["m a=1 1", "m a=2 2", "m a=x 3"]
NOW = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


def said(message: str) -> str:
    return json.dumps({"code": "invalid", "message": message})


@pytest.mark.parametrize("status", [200, 204])
def test_written(status: int) -> None:
    assert judge(Answer(status), SENT, now_ms=NOW).means is Means.WRITTEN


@pytest.mark.parametrize("status", [0, 401, 403, 404, 408, 429, 500, 502, 503])
def test_what_is_not_about_the_lines_is_waited_out(status: int) -> None:
    verdict = judge(Answer(status, said("bucket not found")), SENT, now_ms=NOW)
    assert verdict.means is Means.WAIT
    assert "bucket not found" in verdict.reason


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("", 0),
        ("7", 7000),
        ("Tue, 14 Nov 2023 22:13:25 GMT", 5000),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0),
        ("soon", 0),
        ("-1", 0),
        ("9" * 400, 600_000),
    ],
)
def test_retry_after(header: str, wait_ms: float) -> None:
    assert judge(Answer(429, "", header), SENT, now_ms=NOW).wait_ms == wait_ms


def test_a_type_conflict_names_field_and_both_types() -> None:
    message = (
        "failure writing points to database: partial write: field type conflict: "
        'input field "a b" on measurement "m\\"x" is type string, already exists as type float dropped=2'
    )
    verdict = judge(Answer(422, said(message)), SENT, now_ms=NOW)
    assert verdict.conflict == Conflict('m\\"x', "a b", "string", "float")
    assert (verdict.means, verdict.dropped, verdict.sure) == (Means.LINES, 2, True)
    assert str(verdict.conflict).endswith("is string here, but float in the database")


def test_lines_that_do_not_parse_are_known_again() -> None:
    message = "unable to parse 'm a=x 3': invalid boolean\nunable to parse 'm a=1 1': bad timestamp"
    verdict = judge(Answer(400, said(message)), SENT, now_ms=NOW)
    assert (verdict.means, verdict.lines, verdict.sure) == (Means.LINES, (0, 2), True)


def test_influxdb_3_numbers_the_lines() -> None:
    body = {
        "error": "partial write of line protocol occurred",
        "data": [{"original_line": "m a=x 3", "line_number": 3, "error_message": "?"}, {"line_number": 9}, None],
    }
    assert judge(Answer(400, json.dumps(body)), SENT, now_ms=NOW).lines == (2,)


def test_points_beyond_the_retention_are_done_with() -> None:
    message = "failure writing points to database: partial write: points beyond retention policy dropped=3"
    verdict = judge(Answer(422, said(message)), SENT, now_ms=NOW)
    assert (verdict.means, verdict.dropped) == (Means.WRITTEN, 3)


@pytest.mark.parametrize("body", ["", "<html>Bad Request</html>", "[1]", '{"message":null}', "\ud800"])
def test_a_refusal_that_speaks_of_no_lines_is_not_sure(body: str) -> None:
    verdict = judge(Answer(400, body), SENT, now_ms=NOW)
    assert (verdict.means, verdict.sure, verdict.lines) == (Means.LINES, False, ())


def test_too_large() -> None:
    assert judge(Answer(413, ""), SENT, now_ms=NOW).means is Means.TOO_LARGE
