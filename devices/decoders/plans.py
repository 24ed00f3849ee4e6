"""What a decoder works out once per profile, kept by the profile's identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from devices.profiles import Profile

_T = TypeVar("_T")
_PLANS_MAX = 256


class PlanCache(Generic[_T]):
    """Profile object → plan. An entry keeps its profile alive, so its id stays its own. Bounded."""

    def __init__(self, make: Callable[[Profile | None], _T]) -> None:
        self._make = make
        self._plans: dict[int, tuple[Profile | None, _T]] = {}

    def profiles(self) -> list[Profile | None]:
        """Those that have a plan."""
        return [profile for profile, _ in self._plans.values()]

    def of(self, profile: Profile | None) -> _T:
        """The profile's plan, made when first asked for."""
        found = self._plans.get(id(profile))
        if found is None:
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            found = self._plans[id(profile)] = (profile, self._make(profile))
        return found[1]
