"""Numbers as people read them."""

from __future__ import annotations

from headwater.printable import printable as printable


def count(number: int, one: str, many: str = "") -> str:
    """`1 record`, `1,234 records`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """`512 B`, `1.5 MB`: powers of 1,000, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(ms: float) -> str:
    """`3 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0, int(ms // 1000))
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def ago(then_ms: int | None, now_ms: int) -> str:
    """`3 s ago`, `never`; a time ahead of this clock is `just now`."""
    if not then_ms:
        return "never"
    return "just now" if now_ms - then_ms < 1000 else f"{duration(now_ms - then_ms)} ago"
