"""What became of messages and readings, in numbers."""

from __future__ import annotations


class Counts:
    """What became of messages and readings since the node's start."""

    __slots__ = (
        "dead_letters",
        "dup_repeats",
        "late",
        "natural_repeats",
        "raw",
        "received",
        "refused",
        "replayed",
        "stored",
        "suppressed",
        "undated_copies",
        "untrusted_times",
    )

    def __init__(self) -> None:
        self.received = self.stored = self.dead_letters = 0
        self.dup_repeats = self.natural_repeats = self.suppressed = 0
        self.late = self.untrusted_times = self.refused = self.raw = self.replayed = self.undated_copies = 0

    def as_dict(self) -> dict[str, int]:
        return {
            "received": self.received,
            "stored": self.stored,
            "repeats": self.dup_repeats + self.natural_repeats,
            "repeats_dup": self.dup_repeats,
            "repeats_natural_key": self.natural_repeats,
            "refused_messages": self.refused,
            "raw": self.raw,
            "replayed": self.replayed,
            "suppressed": self.suppressed,
            "dead_letters": self.dead_letters,
            "late": self.late,
            "undated_copies": self.undated_copies,
            "untrusted_times": self.untrusted_times,
        }
