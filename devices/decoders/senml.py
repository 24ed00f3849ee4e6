"""SenML (RFC 8428) to Readings, as JSON (section 5) and as CBOR (section 6), by the profile's `format`.

A pack's records are resolved (section 4.6): base name, time, value and sum added. The base name, without the
separator it ends in, is the device, a record's own name its field; a record without a name of its own goes by its
unit, else `value`. With `options.device_separator` it is the last of these in the full name that parts the two.
Records of one device and one time make one Reading. A sum (`s`) is the field `NAME.sum`.

Times below 2**28 are relative to now (section 4.5.3): they count from the message's arrival.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from devices.cbor import CborError, loads
from devices.decoders.plans import PlanCache
from devices.options import SenmlOptions, read_options
from devices.profiles import Profile
from devices.reading import FromArrival, Reading, Undecodable, one_by_one
from devices.shape import READINGS_MAX, Shape

RELATIVE_BELOW_S = 2**28
VERSION_MAX = 10
# section 6, table 4: CBOR's integer labels
LABELS = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs"}
LABELS |= {0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd"}
_NUMBERS = frozenset(("bt", "bv", "bs", "v", "s", "t", "ut"))
_TEXTS = frozenset(("bn", "bu", "n", "u", "vs"))
_VALUES = ("v", "vs", "vb", "vd")
_SEPARATORS = "-:./_"  # the characters that a name may not begin with (section 4.5.1), so a base name may end in
_json = msgspec.json.Decoder()


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, pack), in order: its readings, or why there are none."""
    return _plans.of(profile).decode(messages)


class _Record(NamedTuple):
    """A resolved record."""

    base: str
    own: str
    unit: str
    time_s: float
    value: Any
    total: float | None


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        self._is_cbor = profile is not None and profile.format == "senml+cbor"
        self._decoder = "senml+cbor" if self._is_cbor else "senml+json"
        self._options = read_options(SenmlOptions, profile.options if profile is not None else {})
        self._shape = Shape(profile, self._decoder)

    def decode(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
        return one_by_one(self._pack, messages)

    def _pack(self, topic: str, payload: bytes) -> list[Reading]:
        pack = self._parsed(payload)
        if type(pack) is not list or not pack:
            raise self._undecodable("a pack is an array of records")
        if len(pack) > READINGS_MAX:
            raise self._undecodable(f"{len(pack)} records in one message; {READINGS_MAX} is the most")
        base: dict[str, Any] = {}
        groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for number, record in enumerate(pack, start=1):
            try:
                resolved = self._resolved(record, base)
            except Undecodable as error:
                raise self._undecodable(f"record {number}: {error.reason}") from None
            if resolved is not None:
                self._sort_in(resolved, groups)
        if not groups:
            raise self._undecodable("no record holds a value")
        readings: list[Reading] = []
        for (device, time_s), several in groups.items():
            event_ms = None
            if time_s >= RELATIVE_BELOW_S:
                event_ms = round(time_s * 1000)
            elif time_s:
                event_ms = FromArrival(round(time_s * 1000))
            readings += [self._shape.reading(topic, values, event_ms=event_ms, device=device) for values in several]
        return readings

    def _parsed(self, payload: bytes) -> Any:
        if not payload:
            raise self._undecodable("the message is empty")
        try:
            return loads(payload) if self._is_cbor else _json.decode(payload)
        except CborError as error:
            raise self._undecodable(f"no CBOR: {error}") from None
        except (ValueError, RecursionError) as error:
            raise self._undecodable(f"no JSON: {error}") from None

    def _resolved(self, record: Any, base: dict[str, Any]) -> _Record | None:
        """The record by itself (None: it only sets bases); `base` takes up what it says about those after it."""
        if type(record) is not dict:
            raise self._undecodable("it is no object")
        fields = {LABELS.get(label, label) if type(label) is int else label: value for label, value in record.items()}
        for label, value in fields.items():
            self._check(label, value)
        base.update(
            {label: value for label, value in fields.items() if label in ("bn", "bt", "bu", "bv", "bs", "bver")}
        )
        if base.get("bver", VERSION_MAX) > VERSION_MAX:
            raise self._undecodable(f"version {base['bver']} is newer than {VERSION_MAX}")
        kinds = [kind for kind in _VALUES if kind in fields]
        if len(kinds) > 1:
            raise self._undecodable(f"more than one value ({', '.join(kinds)})")
        value = fields[kinds[0]] if kinds else None
        if kinds == ["v"] or (not kinds and "bv" in base and "s" not in fields and "n" in fields):
            value = (value if value is not None else 0) + base.get("bv", 0)
        elif kinds == ["vd"] and type(value) is bytes:
            value = base64.urlsafe_b64encode(value).rstrip(b"=").decode()  # as it stands in JSON (section 5)
        only_bases = all(type(label) is str and label.startswith("b") for label in fields)
        total = None
        if "s" in fields or ("bs" in base and not only_bases):
            total = fields.get("s", 0) + base.get("bs", 0)
        if value is None and total is None:
            if not only_bases:
                raise self._undecodable("neither a value nor a sum")
            return None
        own = fields.get("n", "")
        if not base.get("bn", "") + own:
            raise self._undecodable("no name, neither of its own nor a base name")
        time_s = base.get("bt", 0) + fields.get("t", 0)
        return _Record(base.get("bn", ""), own, fields.get("u", base.get("bu", "")), time_s, value, total)

    def _check(self, label: Any, value: Any) -> None:
        if label in _NUMBERS:
            if (type(value) is not int and type(value) is not float) or not math.isfinite(value) or abs(value) > 1e300:
                raise self._undecodable(f"“{label}” should be a number and holds {value!r:.40}")
        elif label in _TEXTS:
            if type(value) is not str:
                raise self._undecodable(f"“{label}” should be a text and holds {value!r:.40}")
        elif label == "vb":
            if type(value) is not bool:
                raise self._undecodable(f"“vb” should be a boolean and holds {value!r:.40}")
        elif label == "vd":
            if type(value) is not (bytes if self._is_cbor else str):
                raise self._undecodable(f"“vd” should be data and holds {value!r:.40}")
        elif label == "bver":
            if type(value) is not int:
                raise self._undecodable(f"“bver” should be an integer and holds {value!r:.40}")
        elif type(label) is str and label.endswith("_"):
            raise self._undecodable(f"“{label[:40]}” must be understood (section 4.4), and is not")

    def _sort_in(self, record: _Record, groups: dict[tuple[str, float], list[dict[str, Any]]]) -> None:
        full = record.base + record.own
        device, field = record.base.rstrip(_SEPARATORS), record.own
        if separator := self._options.device_separator:
            device, _, field = full.rpartition(separator)
        field = field or record.unit or "value"
        values = {} if record.value is None else {field: record.value}
        if record.total is not None:
            values[f"{field}.sum"] = record.total
        if self._shape.listed:
            values[full] = record.value if record.value is not None else record.total
        several = groups.setdefault((device, record.time_s), [])
        for earlier in several:
            if earlier.keys().isdisjoint(values):
                earlier.update(values)
                return
        several.append(values)

    def _undecodable(self, reason: str) -> Undecodable:
        return Undecodable(reason, decoder=self._decoder)


_plans: PlanCache[_Plan] = PlanCache(_Plan)
