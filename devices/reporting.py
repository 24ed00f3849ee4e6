"""Report by exception: which of a device's readings say something new, and so are worth storing.

Sans-IO and bounded: it remembers a device's last stored values, forgets the device heard of longest ago, and lets
through whatever it knows nothing about.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from devices.profiles import HEARTBEAT_MS, Profile
from devices.reading import Scalar

_DEVICES_MAX = 16_384


class Reporter:
    """A profile's deadbands, heartbeat and rate cap, prepared; false when it has none, and nothing needs to be asked.

    A reading is stored when `interval_min_ms` has passed since the last one stored, and then, if there are deadbands,
    when some field has moved by more than its deadband (a field without one: when it is not the same), or when
    `heartbeat_ms` has passed. Times are event times; a reading older than the last one stored is always let through.
    """

    def __init__(self, profile: Profile | None) -> None:
        self._interval_min_ms = (profile.interval_min_ms if profile is not None else None) or 0
        fields = profile.fields if profile is not None else {}
        self._deadbands = {name: spec.deadband for name, spec in fields.items() if spec.deadband is not None}
        heartbeat_ms = profile.heartbeat_ms if profile is not None else None
        self._by_change = bool(self._deadbands) or heartbeat_ms is not None
        self._heartbeat_ms = heartbeat_ms or HEARTBEAT_MS
        # a sequence number changes always, and says nothing
        self._natural_field = profile.natural_field if profile is not None else None
        self._last: OrderedDict[str, tuple[int, dict[str, Scalar]]] = OrderedDict()

    def __bool__(self) -> bool:
        return self._by_change or self._interval_min_ms > 0

    def is_news(self, device: str, fields: Mapping[str, Scalar], time_ms: int) -> bool:
        """Whether to store it; what is stored is what later ones are compared with."""
        last = self._last.get(device)
        if last is not None:
            age_ms = time_ms - last[0]
            if age_ms < 0:
                return True
            if age_ms < self._interval_min_ms:
                return False
            if self._by_change and age_ms < self._heartbeat_ms and not self._has_moved(last[1], fields):
                return False
            self._last.move_to_end(device)
        elif len(self._last) >= _DEVICES_MAX:
            self._last.popitem(last=False)
        # a device may send its fields in several messages: each is compared with its own last value
        self._last[device] = (time_ms, {**last[1], **fields} if last is not None else dict(fields))
        return True

    def forget_all(self) -> None:
        """What was taken for stored was not: let everything through once more."""
        self._last.clear()

    def _has_moved(self, last: dict[str, Scalar], fields: Mapping[str, Scalar]) -> bool:
        deadbands, natural_field = self._deadbands, self._natural_field
        for name, value in fields.items():
            if name == natural_field:
                continue
            before = last.get(name, fields)  # `fields` equals no value
            if before == value and type(before) is type(value):
                continue
            deadband = deadbands.get(name)
            if deadband is None or not isinstance(value, int | float) or not isinstance(before, int | float):
                return True
            if abs(value - before) > deadband:
                return True
        return False
