"""A user's own decoder: what it is handed and gives back, how it is found, and what is made of its results.

    from headwater.api import Message, Reading

    def decode(message: Message):
        yield Reading({"temperature": message.payload[0] / 2})

It never runs in the core process; `headwater.app.decoder_child` runs it. It is loaded by its path, never by a name that
something else on the path may have.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from devices.profiles import Profile
from devices.reading import Reading as Decoded
from devices.reading import Undecodable
from devices.shape import READINGS_MAX, Shape
from devices.trees import tree_values
from headwater.errors import UserError

ENTRY_GROUP = "headwater.decoders"
_SPEC = re.compile(r"(?:entry:(?P<entry>[A-Za-z0-9._-]+))|(?:(?P<file>.+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*))")
_TIME_MAX_MS = 1 << 52
_REASON_MAX = 500


class Message(NamedTuple):
    """What a decoder is handed: one message as it came.

    topic       the MQTT topic, or a serial port's name
    payload     the bytes
    arrival_ms  when the gateway took it in, milliseconds since 1970 in UTC
    source      who sent it: `mqtt:<client id>` or `serial:<port>`
    options     the profile's `[options]` table
    """

    topic: str
    payload: bytes
    arrival_ms: int
    source: str = ""
    options: Mapping[str, Any] = {}


@dataclass(slots=True)
class Reading:
    """What a decoder yields: fields measured together, nested ones too; a plain dict of fields does as well.

    The profile does the rest: paths, units, scales, limits, deadband, natural key. `device` stands in for the name
    from the topic; `time` is the device's own (milliseconds since 1970 or a datetime), else the arrival counts.
    """

    fields: Mapping[str, Any]
    _: KW_ONLY
    device: str = ""
    time: float | datetime | None = None


class Reject(Exception):  # noqa: N818 - a verdict on a message, not a failure of the decoder
    """Raise it for a message that is no good: it becomes a dead letter with this reason, and the decoder is well."""


Decode = Callable[[Message], "Iterable[Reading | Mapping[str, Any]] | Reading | Mapping[str, Any] | None"]


class Result(NamedTuple):
    """Of one message: its readings, or the reason why there are none. `failed`: the decoder's fault, not Reject's."""

    readings: list[Decoded]
    reason: str = ""
    failed: bool = False


def parse_spec(spec: str) -> tuple[str, str]:
    """(file, function) of `FILE.py:FUNCTION`, or ("", name) of `entry:NAME`. Raises UserError."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise UserError(
            f"“{spec}” names no decoder", hint="Write FILE.py:FUNCTION, as ./mine.py:decode, or entry:NAME."
        )
    return (found["file"], found["function"]) if found["file"] else ("", found["entry"])


def load_decoder(spec: str) -> tuple[Decode, str]:
    """The decoder's function and its file. Runs the file's code. Raises UserError naming file and line."""
    file, name = parse_spec(spec)
    found = _from_file(file, name) if file else _from_entry(name)
    if not callable(found):
        raise UserError(f"{spec}: {name} is no function", hint="Write def decode(message): …")
    code = getattr(found, "__code__", None)
    decode: Decode = found
    return decode, file or (code.co_filename if code is not None else "")


def _from_file(file: str, name: str) -> Any:
    module_name = f"headwater_decoder_{zlib.crc32(file.encode()):08x}"
    place = importlib.util.spec_from_file_location(module_name, file)
    if place is None or place.loader is None:
        raise UserError(f"{file} cannot be loaded", hint="A decoder's file ends in .py.")
    module = importlib.util.module_from_spec(place)
    sys.modules[module_name] = module  # dataclasses look themselves up there
    try:
        place.loader.exec_module(module)
    except FileNotFoundError:
        raise UserError(f"there is no file {file}", hint="A relative path stands against the profile's file.") from None
    except BaseException as error:
        raise UserError(f"{blame(error, file)}", hint="Mend the decoder's file.") from error
    if not hasattr(module, name):
        raise UserError(f"{file} defines no {name}", hint=f"Write def {name}(message): … in it.")
    return getattr(module, name)


def find_entry(name: str) -> importlib.metadata.EntryPoint:
    """The entry point of a package's decoder; runs none of its code. Raises UserError."""
    entries = importlib.metadata.entry_points(group=ENTRY_GROUP)
    if name not in entries.names:
        known = ", ".join(sorted(entries.names)) or "none"
        raise UserError(f"no installed package has the decoder “{name}”", hint=f"Group {ENTRY_GROUP} has: {known}.")
    return entries[name]


def _from_entry(name: str) -> Any:
    entry = find_entry(name)
    try:
        return entry.load()
    except BaseException as error:
        raise UserError(f"decoder “{name}”: {blame(error, '')}", hint="Mend the package that has it.") from error


def blame(error: BaseException, file: str) -> str:
    """`mine.py, line 12: KeyError: 'x'`: the innermost line of `file` (else of any) that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{_short(file)}, line {error.lineno}: {error.msg}"[:_REASON_MAX]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or [
        frame for frame in frames if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    where = f"{_short(own[-1].filename)}, line {own[-1].lineno}: " if own else ""
    return f"{where}{type(error).__name__}: {error}".rstrip(": ")[:_REASON_MAX]


def _short(file: str) -> str:
    return file.rpartition("/")[2]


class UserDecoder:
    """A profile's decoder, loaded, with what the profile adds to it."""

    def __init__(self, profile: Profile) -> None:
        """Runs the decoder's file. Raises UserError."""
        self.profile = profile
        self._decode, self._file = load_decoder(profile.decoder)
        self._shape = Shape(profile, profile.name)

    def result(self, message: Message, device: str = "") -> Result:
        """What one message says; `device` is its port's. Never raises, whatever the user's code does."""
        try:
            returned: Any = self._decode(message._replace(options=self.profile.options))
            if returned is None:
                items: Iterable[Any] = ()
            elif isinstance(returned, Reading | Mapping):
                items = (returned,)
            elif isinstance(returned, Iterable) and not isinstance(returned, str | bytes):
                items = returned
            else:
                return Result([], f"the decoder returned {_kind(returned)}, no Reading", failed=True)
            readings = [self._reading(message, item, device) for item in islice(items, READINGS_MAX + 1)]
        except Reject as error:
            return Result([], str(error)[:_REASON_MAX] or "rejected without a reason")
        except Undecodable as error:
            return Result([], error.reason)
        except BaseException as error:  # SystemExit too: it is a stranger's code
            return Result([], blame(error, self._file), failed=True)
        if len(readings) > READINGS_MAX:
            return Result([], f"more than {READINGS_MAX} readings in one message", failed=True)
        return Result(readings)

    def _reading(self, message: Message, item: Any, device: str) -> Decoded:
        fields, time_ms = item, None
        if isinstance(item, Reading):
            fields, device, time_ms = item.fields, item.device or device, milliseconds(item.time)
        if not isinstance(fields, Mapping) or not isinstance(device, str):
            raise TypeError(f"the decoder gave {_kind(item)}; it should give Reading or dict")
        values = tree_values(self._shape, message.topic, _plain(fields))
        return self._shape.reading(message.topic, values, event_ms=time_ms, device=device)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's numbers and the like as Python's own."""
    return {
        str(name): value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value
        for name, value in fields.items()
    }


def milliseconds(time: Any) -> int | None:
    """A time that users' code gave as milliseconds since 1970; None stays. Raises `TypeError` for what is no time."""
    if time is None:
        return None
    if isinstance(time, datetime):
        time = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000
    if isinstance(time, bool) or not isinstance(time, int | float) or not -_TIME_MAX_MS <= time <= _TIME_MAX_MS:
        raise TypeError(f"time is {time!r:.60}; it should be milliseconds since 1970 or a datetime")
    return round(time)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
