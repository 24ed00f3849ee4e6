"""What connections hold in a listener's memory, together under one limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Holdings(Generic[Holder]):
    """Bytes by holder. A holder's are as many as `measure` said when it was last noted.

    With too much in all, who is `to_blame` goes before all others.
    """

    def __init__(
        self, measure: Callable[[Holder], int], bytes_max: int, to_blame: Callable[[Holder], bool] = lambda _: False
    ) -> None:
        self._measure = measure
        self._to_blame = to_blame
        self._of: dict[Holder, int] = {}
        self.bytes_max = bytes_max
        self.total_bytes = 0

    def of(self, holder: Holder) -> int:
        return self._of.get(holder, 0)

    def note(self, holder: Holder) -> Holder | None:
        """Measure one anew. With too much in all, the one that has to go: of those to blame, if any, who has most."""
        size_bytes = self._measure(holder)
        if size_bytes == self._of.get(holder, 0):
            return None
        self._set(holder, size_bytes)
        if self.total_bytes <= self.bytes_max:
            return None
        for each in list(self._of):  # some have given up theirs without a word: what a transport has sent meanwhile
            self._set(each, self._measure(each))
        if self.total_bytes <= self.bytes_max:
            return None
        return max(self._of, key=lambda each: (self._to_blame(each), self._of[each]))

    def forget(self, holder: Holder) -> None:
        self._set(holder, 0)

    def _set(self, holder: Holder, size_bytes: int) -> None:
        self.total_bytes += size_bytes - self._of.get(holder, 0)
        if size_bytes:
            self._of[holder] = size_bytes
        else:
            self._of.pop(holder, None)
