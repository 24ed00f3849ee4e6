"""What the page shows, in bounded memory: series, windows, alerts, devices and nodes.

The model is fed whole blocks of records by `feed.py` and read by `web.py`. It never looks at a clock: the newest
record decides what is old. A chart holds one raw point per second and series (the second's last reading), since a
screen has no room for more; the log has them all.

Every change gets a growing number, so that a browser asks for what is new since the number it has seen.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from devices.reading import HEALTH_DEVICE
from gateway.ingest.intervals import BURST_MS, Interval
from gateway.log.records import decode_headers
from headwater.errors import UNREADABLE

CHARTED_MAX = 1e300  # JSON's integers have no end, a chart's floats do
_MARK = b"hw-mark"
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class _Mark(msgspec.Struct):
    """What the page shows of a mark (docs/records.md)."""

    node: str
    n: int = 0
    live: int = 0
    clock: int = 0
    by: str | None = None


_decode_mark = msgspec.json.Decoder(_Mark).decode
_decode_values = msgspec.json.Decoder(list[dict[str, Any]]).decode


class Point(NamedTuple):
    """One charted raw value: change number, event time in ms, value."""

    change: int
    time_ms: int
    value: float


class WindowPoint(NamedTuple):
    """One window's aggregates of one field, as charted; a revision replaces its window's earlier point."""

    change: int
    start_ms: int
    end_ms: int
    revision: int
    complete: bool
    aggregates: dict[str, float | None]


class Series:
    """The charted past of one field of one device."""

    __slots__ = ("raw", "windows")

    def __init__(self, points_max: int, windows_max: int) -> None:
        self.raw: deque[Point] = deque(maxlen=points_max)
        self.windows: OrderedDict[int, WindowPoint] = OrderedDict()
        self.windows_trim(windows_max)

    def windows_trim(self, windows_max: int) -> None:
        while len(self.windows) > windows_max:
            self.windows.popitem(last=False)


class PageModel:
    """Bounded by its settings: `devices_max`, `series_max`, `history_s`; alerts and nodes by 1,000 each."""

    NAMED_MAX = 1000
    EXPECTED_MAX = 100_000

    def __init__(self, *, history_s: int, devices_max: int, series_max: int) -> None:
        self.change = 0
        self.history_s = history_s
        self.devices_max = devices_max
        self.series_max = series_max
        self.series: dict[tuple[str, str], Series] = {}
        self.devices: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._spoken: dict[str, tuple[Interval, float]] = {}  # and the newest time
        self._expected: dict[str, int] = {}  # as topic `devices` has it: what was learnt counts only where it is silent
        self.alerts: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.nodes: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.readings = 0
        self.windows = 0
        self.series_left_out = 0

    # --- readings and their marks -------------------------------------------------------------------

    def readings_block(
        self,
        keys: Sequence[bytes | None],
        timestamps: Sequence[int],
        values: Sequence[bytes | None],
        headers: Sequence[bytes],
        now_ms: int,
        *,
        live: bool = True,
    ) -> None:
        """One block of topic `readings`, in log order; `live`: it was not there yet when the page began to read."""
        self.change += 1
        for blob in headers:
            if _MARK in blob:
                self._mark(blob, now_ms, live=live)
        fields_of = _fields_of(values)
        for key, time_ms, fields in zip(keys, timestamps, fields_of, strict=True):
            device = (key or b"?").decode("utf-8", "replace")
            if not device.endswith("/" + HEALTH_DEVICE):
                self._reading(device, time_ms, fields, now_ms)

    def _reading(self, device: str, time_ms: int, fields: dict[str, Any], now_ms: int) -> None:
        self.readings += 1
        row = self.devices.get(device)
        if row is None:
            row = self.devices[device] = {"device": device, "readings": 0, "fields": {}}
            self._spoken[device] = (Interval(), float("-inf"))
            if len(self.devices) > self.devices_max:
                self._forget_device(next(iter(self.devices)))
        interval, newest_ms = self._spoken[device]
        if time_ms - newest_ms > BURST_MS:  # by the readings' own times, so that a restart learns the same
            interval.spoke(time_ms, newest_ms)
            row["interval_ms"] = self._expected.get(device) or interval.learnt_ms
        if time_ms > newest_ms:
            self._spoken[device] = (interval, time_ms)
        row["time_ms"] = time_ms
        # its age is the reading's own, however late it was read: after a restart, or out of a backlog
        row["seen_ms"] = min(now_ms, time_ms)
        row["readings"] += 1
        row["fields"] |= fields
        row["change"] = self.change
        self.devices.move_to_end(device)
        for name, value in fields.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < CHARTED_MAX:
                self._point(device, name, time_ms, float(value))

    def _forget_device(self, device: str) -> None:
        del self.devices[device], self._spoken[device]
        for key in [key for key in self.series if key[0] == device]:
            del self.series[key]

    def _series(self, device: str, field: str) -> Series | None:
        series = self.series.get((device, field))
        if series is None:
            if len(self.series) >= self.series_max:
                self.series_left_out += 1
                return None
            series = self.series[device, field] = Series(self.history_s, self.history_s)
        return series

    def _point(self, device: str, field: str, time_ms: int, value: float) -> None:
        series = self._series(device, field)
        if series is None:
            return
        raw = series.raw
        if raw and raw[-1].time_ms // 1000 == time_ms // 1000:
            raw[-1] = Point(self.change, time_ms, value)  # one point a second: the last one
        else:
            raw.append(Point(self.change, time_ms, value))

    def _mark(self, blob: bytes, now_ms: int, *, live: bool) -> None:
        for name, value in decode_headers(blob):
            if name == "hw-mark" and value is not None:
                try:
                    mark = _decode_mark(value)
                except UNREADABLE:
                    continue  # whoever may produce may write anything; what is no mark tells nothing
                if mark.by is not None:
                    continue  # the owner of the partition wrote it, because the node itself is silent
                node = self._node(mark.node)
                clock = mark.clock or now_ms
                node |= {"mark": mark.n, "live_ms": mark.live}
                node["mark_seen_ms"] = now_ms if live else min(now_ms, clock)
                # a mark that waited behind a dead link looks old: only a clock ahead of ours is certainly wrong
                node["clock_ahead_ms"] = max(0, clock - now_ms)

    def _node(self, name: str) -> dict[str, Any]:
        node = self.nodes.setdefault(name, {"node": name})
        node["change"] = self.change
        self._bound(self.nodes)
        return node

    def _bound(self, table: OrderedDict[str, dict[str, Any]]) -> None:
        while len(table) > self.NAMED_MAX:
            table.popitem(last=False)

    # --- what the other topics say ------------------------------------------------------------------

    def progress_block(self, values: Iterable[bytes | None], now_ms: int) -> None:
        """Topic `headwater.progress`: how far behind each node is, and which version it runs."""
        self.change += 1
        for value in values:
            if value is None:
                continue
            record = _decode_object(value)
            parts = record.get("parts", {}).values()
            node = self._node(str(record.get("node", "?")))
            node["version"] = record.get("version")
            node["backlog_records"] = sum(max(0, part["end"] - part["done"]) for part in parts)
            node["progress_seen_ms"] = now_ms
            node["transactions"] = record.get("txn")

    def aggregates_block(self, values: Iterable[bytes | None]) -> None:
        """Topic `aggregates`: a window's newest revision replaces the earlier ones."""
        self.change += 1
        for value in values:
            if value is None:
                continue
            result = _decode_object(value)
            self.windows += 1
            for field, aggregates in result["fields"].items():
                series = self._series(result["group"], field)
                if series is None:
                    continue
                point = WindowPoint(
                    self.change, result["start"], result["end"], result["revision"], result["complete"], aggregates
                )
                series.windows[result["start"]] = point
                series.windows_trim(self.history_s)

    def devices_block(self, keys: Iterable[bytes | None], values: Iterable[bytes | None]) -> None:
        """Topic `devices`: how often each should speak."""
        self.change += 1
        for key, value in zip(keys, values, strict=True):
            name = (key or b"?").decode("utf-8", "replace")
            expected_ms = _object_or_empty(value).get("expected_interval_ms")
            if not isinstance(expected_ms, int) or expected_ms <= 0:
                self._expected.pop(name, None)
                continue
            if name in self._expected or len(self._expected) < self.EXPECTED_MAX:
                self._expected[name] = expected_ms
            if (row := self.devices.get(name)) is not None:
                row["interval_ms"], row["change"] = expected_ms, self.change

    def alerts_block(self, keys: Iterable[bytes | None], values: Iterable[bytes | None]) -> None:
        """Topic `alerts`: the newest transition of each instance."""
        self.change += 1
        for key, value in zip(keys, values, strict=True):
            name = (key or b"?").decode("utf-8", "replace")
            if value is None:
                self.alerts.pop(name, None)
                continue
            alert = _decode_object(value)
            if alert.get("retro"):
                continue  # a digest of an outage: nothing goes on
            self.alerts[name] = alert | {"change": self.change}
            self.alerts.move_to_end(name)
            self._bound(self.alerts)

    # --- what a browser reads -----------------------------------------------------------------------

    def since(self, change: int) -> dict[str, Any]:
        """Everything that changed after number `change`; 0 asks for all. JSON-ready.

        Series are `{field: {device: {"raw": [[ms, value]…], "windows": [[start, end, revision, complete, {…}]…]}}}`.
        """
        series: dict[str, dict[str, dict[str, Any]]] = {}
        for (device, field), one in self.series.items():
            raw = [(point.time_ms, point.value) for point in _newer(one.raw, change)]
            windows = [tuple(point)[1:] for point in one.windows.values() if point.change > change]
            if raw or windows:
                series.setdefault(field, {})[device] = {"raw": raw, "windows": windows}
        return {
            "change": self.change,
            "since": change,
            "series": series,
            "devices": [row for row in self.devices.values() if row["change"] > change],
            "alerts": [row for row in self.alerts.values() if row["change"] > change],
            "nodes": [row for row in self.nodes.values() if row["change"] > change],
            "totals": {
                "readings": self.readings,
                "windows": self.windows,
                "devices": len(self.devices),
                "series_left_out": self.series_left_out,
            },
        }


def _fields_of(values: Sequence[bytes | None]) -> list[dict[str, Any]]:
    """The fields of each reading; {} for what is no JSON object, since any Kafka client may write to the topic."""
    try:
        return _decode_values(b"[" + b",".join(value or b"{}" for value in values) + b"]")
    except UNREADABLE:
        return [_object_or_empty(value) for value in values]


def _object_or_empty(value: bytes | None) -> dict[str, Any]:
    try:
        return _decode_object(value or b"{}")
    except UNREADABLE:
        return {}


def _newer(points: deque[Point], change: int) -> list[Point]:
    """The points after `change`: they stand at the end, so stop at the first older one."""
    newer = []
    for point in reversed(points):
        if point.change <= change:
            break
        newer.append(point)
    newer.reverse()
    return newer
