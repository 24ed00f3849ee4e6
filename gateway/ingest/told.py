"""What the log says of dead letters: a line at a source's first, then one for each power of ten, never one each."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.ingest.sources import Entry, Source
from gateway.log.records import Record, decode_headers

_log = logging.getLogger("headwater.ingest")

LINES_MAX = 20
"""Lines until `lines_left` is set again (every minute): a crowd of new client ids must not fill the log."""


class DeadLetterLines:
    """Counts each source's dead letters and says what is new."""

    def __init__(self) -> None:
        self.lines_left = LINES_MAX

    def tell(self, dead: Sequence[Record], entries: Sequence[Entry]) -> None:
        """The dead letters of one commit group, and the entries that they came from."""
        rows = {entry.source.key: entry.source.row for entry in entries}
        fresh: dict[bytes | None, list[Record]] = {}
        for record in dead:
            fresh.setdefault(record[1], []).append(record)
        for key, records in fresh.items():
            if key is not None and (row := rows.get(key)) is not None:
                before, row.dead_letters = row.dead_letters, row.dead_letters + len(records)
                self._say(row, before, records[0])

    def _say(self, row: Source, before: int, record: Record) -> None:
        if (before and len(str(row.dead_letters)) == len(str(before))) or not self.lines_left:
            return
        self.lines_left -= 1
        reason = dict(decode_headers(bytes(record[3]))).get("reason") or b""
        why = reason.decode("utf-8", "replace")
        if not before:
            _log.warning("%s: a message that cannot be decoded, kept in topic deadletter: %.300s", row.id, why)
        else:
            count = 10 ** (len(str(row.dead_letters)) - 1)
            _log.warning("%s: %d messages that cannot be decoded by now, the last: %.300s", row.id, count, why)
