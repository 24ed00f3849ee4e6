"""A serial line without hardware: a pseudo-terminal pair, its far end found through a symbolic link."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import tty

from headwater.errors import UserError

UNREAD_BYTES_MAX = 1024


class SerialLine:
    """The two ends of a pseudo-terminal; ours is written, the other is found through `link`."""

    def __init__(self, link: str) -> None:
        """Raises `UserError` when the link cannot be made."""
        # Our own open handle on the far end keeps the line up while no gateway has it open.
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self.path = os.ttyname(self._far)
        self.link = link
        temporary = f"{link}.{os.getpid()}"
        try:
            os.symlink(self.path, temporary)
            os.replace(temporary, link)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            os.close(self._near)
            os.close(self._far)
            hint = "Name a path in a folder that you may write to, such as /tmp/mast; the gateway opens it as its port."
            raise UserError(f"--link {link}: {error.strerror}", hint=hint) from None

    def unread_bytes(self) -> int:
        """How much of what was said nobody has read yet."""
        return int(struct.unpack("i", fcntl.ioctl(self._far, termios.FIONREAD, b"\0" * 4))[0])

    def write(self, data: bytes) -> bool:
        """Say one whole sentence; False when nobody listens and what had gathered was thrown away instead."""
        heard = self.unread_bytes() <= UNREAD_BYTES_MAX
        if not heard:
            termios.tcflush(self._far, termios.TCIFLUSH)
        with contextlib.suppress(BlockingIOError):
            os.write(self._near, data)
        return heard

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.link)
        os.close(self._near)
        os.close(self._far)
