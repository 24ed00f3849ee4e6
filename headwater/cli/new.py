"""`headwater new decoder`: a decoder of one's own to begin with, its profile, and a test of both."""

from __future__ import annotations

import re
from pathlib import Path

from headwater.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")

_CODE = '''\
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

_PROFILE = """\
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

_TEST = '''\
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


def write_decoder(name: str, folder: str) -> None:
    """Write the three files; none that is there is touched. Raises UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"“{name}” cannot name a decoder", hint="Small letters, digits and _, a letter first.")
    files = {f"{name}.py": _CODE, f"{name}.toml": _PROFILE, f"test_{name}.py": _TEST}
    paths = {Path(folder) / file: text.replace("@NAME@", name) for file, text in files.items()}
    for path in paths:
        if path.exists():
            raise UserError(f"{path} is there already", hint="Choose another name or --dir.")
    try:
        for path, text in paths.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}", hint="Choose another --dir.") from None
    code, profile, test = (str(path) for path in paths)
    print(f"{code}: the decoder\n{profile}: its profile\n{test}: a test of both\n")
    print(f'Try it: pytest {test}\nThen name it in the node\'s file, profiles = ["{profile}"], and restart the node.')
