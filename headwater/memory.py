"""How the C library gives memory back."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 256 << 10


def give_back_large_blocks() -> None:
    """Have blocks of 256 KiB and more mapped one by one, so that each goes back to the system when it is freed.

    glibc moves that threshold up to 32 MiB by itself (mallopt(3)). Then answers of megabytes lie in its heap, and any
    small object that was made after them keeps all of it: a node that 160 clients had left kept a gigabyte.
    Other C libraries have no such call and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
