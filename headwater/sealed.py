"""A small JSON file that checks itself and lies on the disk twice: `name.json` and `name.copy.json`.

The member `crc` is the CRC-32C of the others, in the order of their names and without spaces. Without it a file is
taken as it is: it was written before there was one. Where one of the two is missing, damaged or on a bad sector, the
other counts; the copy is written first, so the file itself is never behind it. What can be had again at little cost
lies there once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from crc32c import crc32c

from headwater.disk import Disk, read_or_none
from headwater.errors import UNREADABLE

T = TypeVar("T")


def copy_of(path: str) -> str:
    """Where the second copy of `name.json` lies."""
    return path.removesuffix(".json") + ".copy.json"


def seal(fields: dict[str, Any]) -> bytes:
    """The bytes of a file with these members, for people to read, and its checksum."""
    return msgspec.json.format(msgspec.json.encode({**fields, "crc": _sum(fields)})) + b"\n"


def unseal(data: bytes) -> dict[str, Any]:
    """The members. Raises one of `UNREADABLE` when the file is damaged."""
    fields = msgspec.json.decode(data, type=dict[str, Any])
    noted = fields.pop("crc", None)
    if noted is not None and noted != _sum(fields):
        raise ValueError("the checksum is wrong")
    return fields


def _sum(fields: dict[str, Any]) -> str:
    return f"{crc32c(msgspec.json.encode(fields, order='sorted')):08x}"


def read_sealed(disk: Disk, path: str, convert: Callable[[dict[str, Any]], T]) -> T | None:
    """What the file or its copy holds, `convert`ed; None when neither can be had (see `is_there`).

    `convert` may raise `UNREADABLE`.
    """
    for each in (path, copy_of(path)):
        try:
            return convert(unseal(read_or_none(disk, each) or b""))
        except UNREADABLE:
            continue
    return None


def is_there(disk: Disk, path: str) -> bool:
    """Whether there is a file, or its copy, and be it damaged."""
    return disk.exists(path) or disk.exists(copy_of(path))


def write_sealed(disk: Disk, path: str, fields: dict[str, Any]) -> None:
    """Replace both. Raises `OSError`, and what `read_sealed` gives is as before then."""
    write_copies(disk, path, seal(fields))


def write_copies(disk: Disk, path: str, data: bytes) -> None:
    """The same, of what `seal` gave."""
    disk.replace_file(copy_of(path), data)
    disk.replace_file(path, data)


def mend_sealed(disk: Disk, path: str, fields: dict[str, Any]) -> None:
    """Write again whichever of the two is not as it should be. Raises `OSError`."""
    data = seal(fields)
    for each in (copy_of(path), path):
        if read_or_none(disk, each) != data:
            disk.replace_file(each, data)


def seal_number(number: int) -> bytes:
    """A file that is one number, with its checksum: a line of text."""
    return b"%d %08x\n" % (number, crc32c(b"%d" % number))


def unseal_number(data: bytes) -> int:
    """The number. A line without a checksum was written before there was one. Raises `ValueError`."""
    text, _, noted = data.removesuffix(b"\n").partition(b" ")
    if not (data.endswith(b"\n") and text.isdigit() and len(text) < 20):
        raise ValueError("no number")
    if data != text + b"\n" and noted != b"%08x" % crc32c(text):
        raise ValueError("the checksum is wrong")
    return int(text)
