"""What the state of a field says, row by row."""

from __future__ import annotations

from typing import Any

from processors.aggregates.field_state import FieldState, Ints
from processors.results import FieldResults


def rows_of(state: FieldState, rows: Ints, starts: Ints, ends: Ints) -> list[dict[str, Any] | None]:
    """The aggregates of each row; None for one without a value."""
    return FieldResults("x", *state.results(rows, starts, ends)).rows()
