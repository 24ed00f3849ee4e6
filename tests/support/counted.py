"""How much is done between two steps: in lines of Python, which no slow machine makes more."""

from __future__ import annotations

import sys
from collections.abc import Generator
from types import FrameType
from typing import Any, TypeVar

from gateway.log.steps import Step

T = TypeVar("T")


def most_lines(steps: Generator[Step, None, T]) -> tuple[int, int, T]:
    """Take all of the steps: how many there were, the most lines that ran in one beside what may block, the result."""
    lines = most = count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    while True:
        lines = 0
        sys.settrace(trace)
        try:
            step = next(steps)
        except StopIteration as end:
            return count, most, end.value
        finally:
            sys.settrace(before)
            most, count = max(most, lines), count + 1
        if step is not None:
            step()
