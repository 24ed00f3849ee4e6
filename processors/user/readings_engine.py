"""A reading at a time: order, state, timers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headwater.errors import UserError
from processors.columns import TIME_MAX_MS
from processors.user.host import Failure, Host, Record, Rows, call_of
from processors.user.reading_form import Device, Mark, Processor, StoredReading, Timer
from processors.user.states import Codec, Pending, StateError, States

_DECODER = msgspec.json.Decoder(dict[str, Any])


class ReadingEngine:
    """Calls `on_reading`, `on_timer` and `on_mark` of one processor over one partition."""

    def __init__(self, processor: Processor[Any], state: Any, host: Host) -> None:
        self._processor = processor
        self._codec = Codec(state)
        self._states = States(self._codec, host.limits)
        self._host = host
        self._in_order = processor.in_order
        self._hears_marks = type(processor).on_mark is not Processor.on_mark

    def take(self, rows: Rows, begin: int, end: int) -> None:
        """Readings in the order of the log."""
        block, watermarks = rows.block, self._host.watermarks
        for row in range(begin, end):
            key = rows.keys[row]
            time_ms = block.timestamps[row]
            if not key or not 0 <= time_ms <= TIME_MAX_MS:
                continue
            late = time_ms < watermarks.get(key.partition("/")[0], -1)
            late = late or (rows.backfill is not None and bool(rows.backfill[row]))
            pending = (time_ms, block.offsets[row], key.encode(), block.values[row] or b"{}", block.headers[row])
            if self._in_order and not late:
                self._wait(key, pending)
            else:
                self._reading(pending, rows.documents[row], late=late, at=pending[1])

    def _wait(self, key: str, pending: Pending) -> None:
        try:
            self._states.wait(key.partition("/")[0], pending)
        except StateError as error:
            self._host.failed(Failure(error.what), pending[1], pending[0], key, pending[3], before=True)

    def _reading(self, pending: Pending, fields: dict[str, Any], *, late: bool, at: int) -> None:
        """One reading; `at`: the offset of the record that brings it about, its own or its mark's."""
        time_ms, offset, key, value, headers = pending
        reading = StoredReading(fields, time_ms, late=late, offset=offset, headers=headers)
        try:
            self._with_device(
                *(key.decode(), time_ms, at, offset), lambda device: self._processor.on_reading(reading, device)
            )
        except Failure as failure:
            self._host.failed(failure, at, time_ms, key.decode(), value, before=at == offset)
        else:
            self._host.well()

    def _with_device(
        self, key: str, time_ms: int, at: int, call: int, method: Any, timers: dict[str, int] | None = None
    ) -> None:
        """Call a method with a device, then keep what it did. Raises `Failure`; then nothing of it was done."""
        said: list[Record] = []
        with self._host.call(call, call):
            before = self._states.timers.get(key, {}) if timers is None else timers
            emit, about = self._emitter(said), self._host.about(key, at)
            device: Device[Any] = Device(key, time_ms, self._states.get(key), before, emit, about)
            method(device)
            changed = device.changed_timers()
            state = self._codec.encode(device.state)
            self._states.put(key, state, timers if changed is None else changed)
        self._host.say(at, said)

    def _emitter(self, said: list[Record]) -> Any:
        def emit(value: Any, topic: str, key: str, time_ms: Any) -> None:
            said.append(self._host.emitted(value, topic, key, time_ms))

        return emit

    def mark(self, node: str, watermark_ms: int, at: int) -> None:
        """What is due up to a node's watermark, by event time; then `on_mark`."""
        while (due := self._states.next_due(node, watermark_ms)) is not None:
            if len(due) == 5:
                self._reading(due, _fields(due[3]), late=False, at=at)
            else:
                self._timer(*due, at)
        if self._hears_marks:
            self._on_mark(node, watermark_ms, at)

    def _timer(self, time_ms: int, key: str, name: str, at: int) -> None:
        timer, left = Timer(time_ms, name), self._states.take_timer(key, name)
        try:
            call = call_of(key, name, time_ms)
            self._with_device(key, time_ms, at, call, lambda device: self._processor.on_timer(timer, device), left)
        except Failure as failure:
            self._states.put(key, self._states.states.get(key, self._codec.empty), left)
            value = msgspec.json.encode({"timer": name, "time_ms": time_ms})
            self._host.failed(failure, at, time_ms, key, value, before=False)

    def _on_mark(self, node: str, watermark_ms: int, at: int) -> None:
        said: list[Record] = []
        devices = _Devices(self._states, watermark_ms, self._emitter(said), lambda key: self._host.about(key, at))
        try:
            call = call_of(node, "$mark", watermark_ms)
            with self._host.call(call, call):
                self._processor.on_mark(Mark(node, watermark_ms, devices, self._emitter(said)))
                kept = [
                    (device.key, self._codec.encode(device.state), device.changed_timers()) for device in devices.seen
                ]
                for one in kept:
                    self._states.put(*one)
        except Failure as failure:
            value = msgspec.json.encode({"mark": node, "watermark_ms": watermark_ms})
            self._host.failed(failure, at, watermark_ms, f"{node}/$mark", value, before=False)
        else:
            self._host.say(at, said)

    def snapshot(self) -> dict[str, Any]:
        return self._states.snapshot()

    def restore(self, data: dict[str, Any]) -> None:
        self._states.restore(data)
        try:
            self._states.check()
        except StateError as error:
            raise UserError(error.what) from None

    def state_of(self, key: str) -> Any:
        """For a user's tests."""
        return self._states.get(key)

    def __len__(self) -> int:
        return len(self._states)

    @property
    def size_bytes(self) -> int:
        return self._states.size_bytes


class _Devices:
    """The devices that a mark's method asks for; each is kept as it left it."""

    def __init__(self, states: States, time_ms: int, emit: Any, about: Any) -> None:
        self._states = states
        self._time_ms = time_ms
        self._emit = emit
        self._about = about
        self.seen: list[Device[Any]] = []

    def of_node(self, node: str) -> Iterator[Device[Any]]:
        for key in self._states.of_node(node):
            timers = self._states.timers.get(key, {})
            state, about = self._states.get(key), self._about(key)
            device: Device[Any] = Device(key, self._time_ms, state, timers, self._emit, about)
            self.seen.append(device)
            yield device


def _fields(value: bytes) -> dict[str, Any]:
    return _DECODER.decode(value)
