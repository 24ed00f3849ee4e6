"""Results made column by column have the very bytes that they have one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.log.headers import encode_headers
from processors.results import FieldResults, Results, Told, WindowResult, aggregate_value, numbered

NAN = float("nan")
ROWS = 3
WIND = FieldResults(
    'wind %s "é"', [True] * ROWS, {"count": [1, 2, 3], "mean": [0.1, NAN, -0.0], "p99.9": [None, 1e16, 2.0]}
)
STATE = FieldResults(
    "state", [True, False, True], {"durations": [{"1": 2.5, "3": 1.0}, None, None], "min": [5e-324, NAN, 0.0]}
)
NOWHERE = FieldResults("nowhere", [False] * ROWS, {"max": [NAN, NAN, NAN]})


def told(fields: list[FieldResults], more: dict[int, dict[str, Any]] | None = None, **columns: list[Any]) -> Told:
    every: dict[str, list[Any]] = {
        "groups": ["n/b", "n/ä\n", "n/a"],
        "starts": [0] * ROWS,
        "ends": [10] * ROWS,
        "revisions": [0] * ROWS,
        "complete": [True] * ROWS,
        "causes": ["close"] * ROWS,
        "retro": [False] * ROWS,
        "first_complete": [True] * ROWS,
        "readings": [7] * ROWS,
    }
    return Told(**(every | columns), fields=fields, more=more or {})


@pytest.mark.parametrize("fields", [[], [WIND], [STATE], [NOWHERE], [STATE, WIND], [NOWHERE, STATE]])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"more": {1: {"shift": "late", "before": {"count": 3, "fields": {}}}, 2: {"merged_into": None}}},
        {"retro": [True, False, True], "more": {0: {"shift": ""}}},
        {
            "starts": [5, 0, 5],
            "revisions": [0, 3, 1],
            "complete": [True, False, True],
            "causes": ["late", "lost", "late"],
        },
    ],
)
def test_values_are_those_of_the_rows(fields: list[FieldResults], more: dict[str, Any]) -> None:
    parts = [told(fields, **more), told([WIND], groups=["n/0", "n/c", "n/az"])]
    results = Results(parts)
    rows = sorted((row for part in parts for row in part.rows()), key=lambda row: (row.start, row.group))
    assert len(results) == 2 * ROWS
    assert repr(list(results)) == repr(rows)
    assert results.values('r"%') == [msgspec.json.encode(aggregate_value('r"%', row)) for row in rows]
    assert (results.groups, results.starts) == ([row.group for row in rows], [row.start for row in rows])


def test_a_field_without_a_value_is_left_out_of_a_row() -> None:
    rows = told([STATE]).rows()
    assert [list(row.fields) for row in rows] == [["state"], [], ["state"]]
    assert isinstance(rows[0], WindowResult)


def test_no_results_are_none() -> None:
    assert not Results([])
    assert list(Results([])) == []
    assert Results([]).values("w") == []


def test_numbers_in_headers_grow_a_digit() -> None:
    found = numbered("hw-out", "w@1/0/", range(8, 12))
    assert found == [encode_headers([("hw-out", f"w@1/0/{number}".encode())]) for number in range(8, 12)]
