"""`headwater new decoder|processor`: code of one's own to begin with, the file that names it, and a test of both."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from headwater.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_OTHER_CLASSES = frozenset(  # of the files below
    ("Device", "Driver", "Output", "Processor", "Reading", "State", "StoredReading", "Timer", *keyword.kwlist)
)
_TAKEN = frozenset((*keyword.kwlist, "gateway", "processors", "devices", "simulators", "headwater"))

_DECODER = '''\
"""Decodes what @NAME@ devices send: change it into what yours say."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.api import Message, Reading, Reject


def decode(message: Message) -> Iterator[Reading]:
    """Two bytes, big-endian: tenths of a degree. Yield as many readings as a message has."""
    if len(message.payload) != 2:
        raise Reject(f"{len(message.payload)} bytes where 2 are a reading")  # it becomes a dead letter
    tenths = int.from_bytes(message.payload, "big", signed=True)
    yield Reading({"temperature": tenths})
'''

_DECODER_PROFILE = """\
# What @NAME@ devices are to a node. Name this file in its configuration: profiles = ["@NAME@.toml"]

name = "@NAME@"
decoder = "./@NAME@.py:decode"
topics = ["@NAME@/{device}"]      # {device} is the device's name

[fields.temperature]            # what the decoder gives, with its unit, scale and limits
unit = "°C"
scale = 0.1
min = -40
max = 85
"""

_DECODER_TEST = '''\
"""Run it with pytest, where Headwater is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.api import Reading, Reject, read

PROFILE = str(Path(__file__).with_name("@NAME@.toml"))


def test_a_message_is_what_it_says() -> None:
    assert read(PROFILE, bytes([0x00, 0xD7]), topic="@NAME@/roof") == [Reading({"temperature": 21.5}, device="roof")]


def test_a_message_that_is_cut_short_is_rejected() -> None:
    with pytest.raises(Reject, match="1 bytes where 2 are a reading"):
        read(PROFILE, b"\\xd7", topic="@NAME@/roof")
'''


_PROCESSOR = '''\
"""Says when a device's `power` has been above a limit for a while: change it into what you want to know."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.api import Device, Processor, StoredReading, Timer


@dataclass
class State:
    """What is remembered of each device; fields have defaults, and may be added later."""

    high: bool = False


class @CLASS@(Processor[State]):
    """One object serves all devices: what it has to remember belongs into the state."""

    out = "@TOPIC@"  # the topic that it writes to
    in_order = True  # readings by event time, with timers between them
    deterministic = True  # the same readings make the same output: no clock, no chance, no network

    limit: float = 100.0  # settings, which the rule may set
    hold_s: float = 30.0

    def on_reading(self, reading: StoredReading, device: Device[State]) -> None:
        power = reading.number("power")
        if power is None or reading.late:
            return
        if power > self.limit:
            if not device.state.high and device.timer() is None:
                device.set_timer(reading.time_ms + self.hold_s * 1000)
            return
        device.cancel_timer()
        if device.state.high:
            device.state.high = False
            device.emit({"high": False, "power": power})

    def on_timer(self, timer: Timer, device: Device[State]) -> None:
        device.state.high = True
        device.emit({"high": True})
'''

_PROCESSOR_RULE = """\
# Where @NAME@.py runs. Name this file in a node's configuration, or in that of `headwater process`:
# rules = ["@NAME@.toml"]

[[processor]]
name = "@TOPIC@"
file = "@NAME@.py"
devices = ["*"]                 # patterns of device names
settings = { limit = 100.0, hold_s = 30.0 }
"""

_PROCESSOR_TEST = '''\
"""Run it with pytest, where Headwater is installed; nothing else has to run."""

from __future__ import annotations

from headwater.api import Driver, Output, Reading, run

from @NAME@ import @CLASS@


def power(second: float, watt: float) -> Reading:
    return Reading({"power": watt}, device="pump-7", time=second * 1000)


def test_it_says_so_after_the_hold_and_when_it_is_over() -> None:
    assert run(@CLASS@(hold_s=10), [power(0, 200), power(5, 200), power(12, 200), power(20, 50)]) == [
        Output({"high": True}, key="test/pump-7", time_ms=10_000, topic="@TOPIC@"),
        Output({"high": False, "power": 50.0}, key="test/pump-7", time_ms=20_000, topic="@TOPIC@"),
    ]


def test_a_short_peak_is_nothing() -> None:
    assert run(@CLASS@(hold_s=10), [power(0, 200), power(5, 50)], until=60_000) == []


def test_a_restart_changes_nothing() -> None:
    driver = Driver(@CLASS@(hold_s=10))
    driver.feed(power(0, 200))
    driver.restart()
    assert [output.value for output in driver.advance(to=10_000)] == [{"high": True}]
'''


def write_decoder(name: str, folder: str) -> None:
    """Write the three files; none that is there is touched. Raises UserError."""
    texts = (_DECODER, _DECODER_PROFILE, _DECODER_TEST)
    code, profile, test = _write("decoder", name, folder, texts, {"@NAME@": name})
    print(f"{code}: the decoder\n{profile}: its profile\n{test}: a test of both\n")
    print(f'Try it: pytest {test}\nThen name it in the node\'s file, profiles = ["{profile}"], and restart the node.')


def write_processor(name: str, folder: str) -> None:
    """Write the three files; none that is there is touched. Raises UserError."""
    from processors.user.outs import why_not

    topic = name.replace("_", "-").strip("-")
    if why := why_not(topic, "readings"):
        raise UserError(f"“{name}” cannot name a processor: it would write to topic {topic}, and that is {why}")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    class_name += "Processor" if class_name in _OTHER_CLASSES else ""
    named = {"@NAME@": name, "@TOPIC@": topic, "@CLASS@": class_name}
    texts = (_PROCESSOR, _PROCESSOR_RULE, _PROCESSOR_TEST)
    code, rule, test = _write("processor", name, folder, texts, named)
    print(f"{code}: the processor\n{rule}: its rule\n{test}: its test\n")
    print(f"Try it: pytest {test} && headwater process test {rule}")
    print(f'Then name it in the file of a node or of `headwater process`, rules = ["{rule}"], and restart that.')


def _write(kind: str, name: str, folder: str, texts: tuple[str, str, str], named: dict[str, str]) -> list[str]:
    if not _NAME.fullmatch(name):
        raise UserError(f"“{name}” cannot name a {kind}", hint="Small letters, digits and _, a letter first.")
    if name in _TAKEN or importlib.util.find_spec(name) is not None:
        raise UserError(f"“{name}” is a word or a package of Python's", hint="Its test could not import it.")
    paths: dict[Path, str] = {}
    for file, text in zip((f"{name}.py", f"{name}.toml", f"test_{name}.py"), texts, strict=True):
        for word, value in named.items():
            text = text.replace(word, value)
        paths[Path(folder) / file] = text
    for path in paths:
        if path.exists():
            raise UserError(f"{path} is there already", hint="Choose another name or --dir.")
    try:
        for path, text in paths.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}", hint="Choose another --dir.") from None
    return [str(path) for path in paths]
