"""What stands in the page's token file; see `headwater.dashboard.auth`."""

from __future__ import annotations

from crc32c import crc32c

_MADE_LENGTH = 40
_LENGTH_MIN = 16


def read_token(data: bytes) -> str:
    """The token, "" when there is none. Raises `ValueError` for anything but one line of text."""
    data = data.rstrip(b"\0")
    if not data.strip():
        return ""
    if not data.endswith(b"\n"):
        raise ValueError("no line break ends it, as if it were cut short")
    token = data[:-1].removesuffix(b"\r").decode("ascii")
    if not token.isprintable() or token != token.strip():
        raise ValueError("it is more than a word or a line of text")
    if len(token) < _LENGTH_MIN:
        raise ValueError(f"it is shorter than {_LENGTH_MIN} characters")
    if len(token) == _MADE_LENGTH and token[-8:] != f"{crc32c(token[:-8].encode()):08x}":
        raise ValueError("it is not as it was made, for its last 8 characters are no checksum of the others")
    return token
