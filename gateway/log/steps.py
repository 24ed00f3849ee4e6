"""Long work on a log in steps, so that whoever drives it decides when and where each is done.

A step is None (a little work was done, give the others a turn) or a call that blocks on the disk, to be made off the
loop before the next step is asked for. What such a call raises is thrown into the work where it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Step = Callable[[], None] | None
Steps = Generator[Step, None, None]


def run_steps(steps: Generator[Step, None, T]) -> T:
    """Do all of it here and now; what it returns. For tests, and for whoever nobody else waits for."""
    error: BaseException | None = None
    while True:
        try:
            step = next(steps) if error is None else steps.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        error = None
        if step is not None:
            try:
                step()
            except BaseException as raised:
                error = raised
