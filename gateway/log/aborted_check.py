"""What the batches of a log say was aborted, to compare its transaction indexes with."""

from __future__ import annotations

from crc32c import crc32c

from gateway.log.layout import ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL
from gateway.log.replay import is_abort
from gateway.log.transactions import AbortedTransaction, decode_aborted


class AbortedCheck:
    """Fed with a log's batches in their order; `compare` asks about the segment that was read last.

    `whole`: nothing lay before the first batch or between, so that each transaction's beginning is known.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._open: dict[int, int] = {}  # producer -> first offset
        self._expected: list[AbortedTransaction] = []
        self._markers: set[tuple[int, int]] = set()  # of aborts: producer, offset
        self._gaps = False

    def begin_segment(self) -> None:
        self._expected, self._gaps = [], False
        self._markers.clear()

    def lose(self) -> None:
        """A range is gone: nobody can tell what ended or began in it."""
        self._open.clear()
        self._whole, self._gaps = False, True

    def visit(self, fields: tuple[int, ...], batch: memoryview) -> None:
        """The next batch."""
        attributes, producer, offset = fields[5], fields[9], fields[0]
        if not attributes & ATTRIBUTE_TRANSACTIONAL:
            return
        if not attributes & ATTRIBUTE_CONTROL:
            if fields[12]:  # compaction leaves batches without records, and forgets whether they were aborted
                self._open.setdefault(producer, offset)
            return
        abort = is_abort(batch)
        if abort is None:
            return
        first = self._open.pop(producer, None)
        if abort:
            self._markers.add((producer, offset))
            if first is not None:
                stable = min(self._open.values(), default=offset + 1)
                self._expected.append(AbortedTransaction(producer, first, offset, stable))

    def compare(self, index: bytes, noted: int | None, *, compacted: bool) -> None:
        """Whether the segment's index, `b""` for none, is right. `noted` is its checksum. Raises `ValueError`."""
        entries = decode_aborted(index)
        if noted is not None and crc32c(index) != noted:
            raise ValueError(f"its transaction index has the checksum {crc32c(index):08x}, noted is {noted:08x}")
        if self._whole and entries != self._expected:
            raise ValueError(f"its transaction index has {_said(entries)}, the batches say {_said(self._expected)}")
        first_of = {(entry.producer_id, entry.last_offset): entry.first_offset for entry in entries}
        for entry in self._expected:
            # It may have begun before what is left of the log.
            if first_of.get((entry.producer_id, entry.last_offset), entry.first_offset + 1) > entry.first_offset:
                raise ValueError(f"its transaction index lacks {_said([entry])}")
        if not self._gaps and not compacted:
            for entry in entries:
                if (entry.producer_id, entry.last_offset) not in self._markers:
                    raise ValueError(f"its transaction index has {_said([entry])}, and no batch says so")


def _said(entries: list[AbortedTransaction]) -> str:
    shown = [f"{entry.first_offset} to {entry.last_offset} of producer {entry.producer_id}" for entry in entries[:3]]
    return "; ".join(shown) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "") if shown else "nothing"
