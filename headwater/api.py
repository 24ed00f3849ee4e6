"""The public names for users' own code; everything else in Headwater may change between versions.

A decoder turns one message into readings. A profile names it, `decoder = "./mine.py:decode"`, and says what format it
cannot: units, limits, deadband, natural key, expected interval.

    from headwater.api import Message, Reading, Reject

    def decode(message: Message):
        if len(message.payload) < 3:
            raise Reject("a frame has 3 bytes at least")
        yield Reading({"temperature": message.payload[1] / 2}, device=f"tag-{message.payload[0]}")

It may return or yield `Reading`s or plain dicts of fields, one or many, or nothing for a message that says nothing.
What it raises otherwise makes the message a dead letter that names file and line. `headwater new decoder NAME`
writes one with its test; docs/profiles.md tells the rest.

A processor turns readings into records of a topic of its own, with a state per device. A rule file names it,
`[[processor]]` with `file = "./mine.py"`. It is handed a reading at a time, or columns (`ColumnProcessor`).

    from dataclasses import dataclass
    from headwater.api import Device, Processor, StoredReading

    @dataclass
    class Seen:
        most: float = 0.0

    class Record(Processor[Seen]):
        def on_reading(self, reading: StoredReading, device: Device[Seen]) -> None:
            power = reading.number("power")
            if power is not None and power > device.state.most:
                device.state.most = power
                device.emit({"power": power})

`run(Record(), [Reading({"power": 3})])` is what it emits, with nothing running. `headwater new processor NAME` writes
one with its test and its rule; docs/processors.md tells the rest.
"""

from __future__ import annotations

from headwater.shadows import check_shadows

check_shadows()

# Only now: a folder of the user's that shadows one of these packages has been named.
from typing import TYPE_CHECKING, Any  # noqa: E402 - as said above

from devices.decoding import Decoding  # noqa: E402 - as above
from devices.profile_files import read_profiles  # noqa: E402 - as above
from devices.reading import Undecodable  # noqa: E402 - as above
from devices.user_code import Message, Reading, Reject  # noqa: E402 - as above
from headwater.errors import UserError  # noqa: E402 - as above

if TYPE_CHECKING:
    from processors.user.column_form import Bools as Bools
    from processors.user.column_form import Column as Column
    from processors.user.column_form import ColumnMark as ColumnMark
    from processors.user.column_form import ColumnProcessor as ColumnProcessor
    from processors.user.column_form import ColumnState as ColumnState
    from processors.user.column_form import Floats as Floats
    from processors.user.column_form import Ints as Ints
    from processors.user.column_form import Readings as Readings
    from processors.user.column_form import Texts as Texts
    from processors.user.column_form import filled as filled
    from processors.user.names import Output as Output
    from processors.user.reading_form import Device as Device
    from processors.user.reading_form import Mark as Mark
    from processors.user.reading_form import Processor as Processor
    from processors.user.reading_form import StoredReading as StoredReading
    from processors.user.reading_form import Timer as Timer
    from processors.user.trying import Driver as Driver
    from processors.user.trying import run as run

_HOMES = {
    "processors.user.column_form": "Bools Column ColumnMark ColumnProcessor ColumnState Floats Ints Readings Texts"
    " filled",
    "processors.user.names": "Output",
    "processors.user.reading_form": "Device Mark Processor StoredReading Timer",
    "processors.user.trying": "Driver run",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Bools",
    "Column",
    "ColumnMark",
    "ColumnProcessor",
    "ColumnState",
    "Device",
    "Driver",
    "Floats",
    "Ints",
    "Mark",
    "Message",
    "Output",
    "Processor",
    "Reading",
    "Readings",
    "Reject",
    "StoredReading",
    "Texts",
    "Timer",
    "filled",
    "read",
    "run",
]


def __getattr__(name: str) -> Any:
    """What processors need is imported when it is asked for: a node with decoders alone does without NumPy."""
    if name not in _HOME_OF:
        raise AttributeError(f"headwater.api has no {name}; it has {', '.join(__all__)}")
    import importlib

    try:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name in ("numpy",):
            raise UserError(f"processors need the package {error.name}", hint="pip install 'headwater[work]'") from None
        raise


def read(profile: str, payload: bytes, *, topic: str, arrival_ms: int = 0) -> list[Reading]:
    """What a node with this profile (its file's path) would store of a message: for tests of decoders and profiles.

    Raises `Reject` with the dead letter's reason when it is no reading, and `headwater.errors.UserError` for a mistake
    in the profile or a decoder that cannot be loaded.
    """
    [found] = read_profiles([profile if "/" in profile else f"./{profile}"])
    [result] = Decoding(found).results([Message(topic, payload, arrival_ms)])
    if isinstance(result, Undecodable):
        raise Reject(result.reason)
    return [Reading(one.fields, device=one.device, time=one.event_ms) for one in result]
