"""Nodes that fell silent, told by the member that has their partition (`processors.silence`, docs/windows.md)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from gateway.log.records import Record
from processors.group.core import Source
from processors.group.waiting import MARKERS_MAX
from processors.job import PartitionWork
from processors.marks import WatermarkTracker
from processors.processor import PartitionProcessor
from processors.silence import SilenceWatch, silence_record

log = logging.getLogger(__name__)
_UNKNOWN = 1 << 62


class Silences:
    """Of one life of a member. `after_s`: 0 for never."""

    def __init__(self, after_s: float) -> None:
        self._after_ms = after_s * 1000.0
        self._watches: dict[Source, SilenceWatch] = {}

    def due(
        self, parts: Mapping[Source, PartitionWork], behind: Mapping[str, int], *, now_s: float, wall_ms: int
    ) -> list[tuple[Source, Record]]:
        """Marks to write, each into its partition. `behind`: records not read yet by `<topic>/<partition>`.

        `now_s` never steps. Who is behind knows nothing of silence: that partition is left alone.
        """
        found: list[tuple[Source, Record]] = []
        for source, part in parts.items() if self._after_ms else ():
            if not isinstance(part, PartitionProcessor) or not isinstance(part.marks, WatermarkTracker):
                continue
            watch = self._watches.setdefault(source, SilenceWatch(self._after_ms))
            if behind.get(f"{source[0]}/{source[1]}", _UNKNOWN) > MARKERS_MAX:
                continue
            for node, silent_ms in watch.look(part.marks.nodes, part, now_ms=now_s * 1000.0, wall_ms=wall_ms):
                log.warning("%s made no mark for %.0f s: marked as silent", node, silent_ms / 1000)
                found.append((source, silence_record(node, silent_ms, wall_ms)))
        return found
