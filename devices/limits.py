"""Whether a reading's numbers are within the limits that its profile states; it is kept either way."""

from __future__ import annotations

from collections.abc import Mapping

from devices.profiles import Profile
from devices.reading import Scalar

OUT_OF_RANGE = "out-of-range"


class Limits:
    """A profile's `min` and `max`, prepared; false when it has none, and nothing needs to be asked."""

    def __init__(self, profile: Profile | None) -> None:
        inf = float("inf")
        self._ranges = [
            (name, -inf if spec.min is None else spec.min, inf if spec.max is None else spec.max)
            for name, spec in (profile.fields.items() if profile is not None else ())
            if spec.min is not None or spec.max is not None
        ]

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def quality(self, fields: Mapping[str, Scalar]) -> str:
        """The value of header `hw-q`, `out-of-range:power,rotor_rpm`; "" when all is well. Only numbers are judged."""
        outside = [
            name
            for name, least, most in self._ranges
            if (type(value := fields.get(name)) is float or type(value) is int) and not least <= value <= most
        ]
        return f"{OUT_OF_RANGE}:{','.join(outside)}" if outside else ""
