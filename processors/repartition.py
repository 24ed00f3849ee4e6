"""Windows over groups of devices: readings go to a topic by their group's name, and all marks to all of its partitions.

First stage (`Relay`, within the processor of an input partition): what a rule takes of its readings, filtered and
computed, is written to the rule's relay topic under the key `<labels>/<values>`, in the partition murmur2(key) mod n.
Each mark goes to every partition, behind the readings before it. Second stage: a processor of the relay topic, to
which the group is a device; `MergedMarks` is how far all nodes together have come. ADR 0021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from gateway.log.records import decode_headers
from gateway.replicate.partitioner import murmur2
from headwater.errors import PeerError
from processors.aggregates.texts import are_texts, codes_of
from processors.columns import Columns, Floats, Ints, KeyTable, Records
from processors.documents import FieldColumn, Texts
from processors.marks import CENTRAL, Mark, NodeMarks, WatermarkTracker
from processors.results import NEVER
from processors.rules.derive import Derivation
from processors.rules.model import WindowRule
from processors.windows.admission import any_match
from processors.windows.kinds import window_state

MARK_DEVICE = "$mark"
"""The device under which a mark goes on: a name that no rule over `*` takes."""
BYTES_MAX = 512 << 20
_COPY = b"\x04hw"
_EVER = 1 << 53
_MATCHES_MAX = 50_000  # names looked up, of some 200 bytes each; what is there can always be found out again
_ENCODER = msgspec.json.Encoder()
Headers = list[tuple[str, bytes | None]]
Piece = tuple[int, int, bytes, bytes, Headers]  # partition of the relay topic; time, key, value, headers but the number


def relay_topic(job: str, rule: WindowRule) -> str:
    """The topic between the two stages of a rule of a job."""
    return f"{job}-{rule.name}-repartition"


def second_stage(rule: WindowRule) -> WindowRule:
    """The rule as the relay topic has it, where the first stage has chosen and computed."""
    return msgspec.structs.replace(rule, devices=("*",), nodes=("*",), where="", compute={})


def partition_of(group: bytes, partitions: int) -> int:
    """The partition of a relay topic that has all of a group."""
    return (murmur2(group) & 0x7FFFFFFF) % partitions


def group_node(rule: WindowRule) -> str:
    """What stands before a group's name where otherwise the node stands, such as `site` or `site+type`."""
    return "+".join(rule.group_by)


class Relay:
    """The first stage of one rule over one input partition. `partitions`: how many its relay topic has."""

    def __init__(self, rule: WindowRule, topic: str, partitions: int) -> None:
        self.rule = rule
        self.topic = topic
        self.partitions = partitions
        self.begin = NEVER
        self._names = tuple(label if label == "node" else f"device.{label}" for label in rule.group_by)
        self.derive = Derivation(rule.where, rule.compute, self._names)
        self._matches: dict[str, bool] = {}
        self._keys: dict[tuple[str, ...], tuple[bytes, int]] = {}

    def version(self, target: int) -> str:
        """What is written to one partition of the relay topic is numbered by itself."""
        return f"{self.rule.relay_version}>{target}"

    @property
    def versions(self) -> list[str]:
        return [self.version(target) for target in range(self.partitions)]

    def begin_after(self, newest: int) -> None:
        """As `WindowState.begin_after`; the second stage hears of it from the marks."""
        if newest != NEVER:
            state = window_state(self.rule, KeyTable())
            state.begin_after(newest)
            self.begin = max(self.begin, state.begin)

    def readings(self, columns: Columns, keys: KeyTable, records: Records, begin: int, end: int) -> Iterator[Piece]:
        """Rows [begin, end) of a block that belong to a group; `columns` as `derive` made them."""
        key = columns.key[begin:end]
        used, turn = np.unique(key, return_inverse=True)
        wanted = np.array([one >= 0 and self._match(keys.names[one]) for one in used.tolist()], dtype=np.bool_)
        rows = np.flatnonzero(wanted[turn] & (columns.time[begin:end] >= self.begin)) + begin
        if not len(rows):
            return
        groups = self._groups(columns.texts, rows)
        found_in = columns.of_rule(self.rule.text_fields)
        fields = {
            name: _listed(column, rows, len(columns))
            for name, column in sorted(found_in.items())
            if self.rule.aggregates_of(name)
        }
        names, numbers = list(fields), list(zip(*fields.values(), strict=True)) or [()] * len(rows)
        for row, found, values in zip(rows.tolist(), groups, numbers, strict=True):
            if found is None:
                continue
            group, target = found
            value = {name: number for name, number in zip(names, values, strict=True) if number == number}
            yield target, int(columns.time[row]), group, _ENCODER.encode(value), _place_of(records.headers[row])

    def takes(self, key: bytes) -> bool:
        """Whether the rule names the device `<node>/<device>`."""
        name = key.decode(errors="replace")
        node, slash, device = name.partition("/")
        return bool(node and slash and device) and self._match(name)

    def groups_of(self, texts: Mapping[str, Texts], rows: Ints) -> list[bytes | None]:
        """The group of each of these rows; None where a label is not known."""
        return [found[0] if found is not None else None for found in self._groups(texts, rows)]

    def _groups(self, texts: Mapping[str, Texts], rows: Ints) -> Iterator[tuple[bytes, int] | None]:
        for labels in zip(*(texts[name][rows].tolist() for name in self._names), strict=True):
            yield None if None in labels else self._keys.get(labels) or self._key(labels)

    def mark(self, mark: Mark, time: int, source: int) -> Iterator[Piece]:
        """A mark of input partition `source`, for every partition."""
        if not any_match(self.rule.nodes, mark.node):
            return
        told = {name: value for name, value in msgspec.to_builtins(mark).items() if value is not None}
        told.pop("clock", None)
        told["input"] = source
        if self.begin != NEVER:
            told["begin"] = self.begin
        headers: Headers = [("hw-mark", _ENCODER.encode({"v": 1, **told}))]
        for target in range(self.partitions):
            yield target, time, f"{mark.node}/{MARK_DEVICE}".encode(), b"{}", headers

    def _match(self, name: str) -> bool:
        found = self._matches.get(name)
        if found is None:
            if len(self._matches) >= _MATCHES_MAX:
                self._matches.clear()
            node, _, device = name.partition("/")
            found = any_match(self.rule.nodes, node) and any_match(self.rule.devices, device)
            self._matches[name] = found
        return found

    def _key(self, texts: tuple[str, ...]) -> tuple[bytes, int]:
        if len(self._keys) >= _MATCHES_MAX:
            self._keys.clear()
        values = "/".join(text.replace("%", "%25").replace("/", "%2F") for text in texts)
        key = f"{group_node(self.rule)}/{values}".encode()
        found = self._keys[texts] = (key, partition_of(key, self.partitions))
        return found


class MergedMarks:
    """How far all nodes of a relay topic's partition have come together: what a window over them waits for.

    The least watermark of the nodes, the intervals owed to any, those lost to any; no watermark while an input
    partition that has more to read has not been heard of (`unread`). While some nodes are silent (a mark by the central
    says so), windows that wait for nobody else are told once, incomplete.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tracker = WatermarkTracker()
        self._silent: dict[str, int] = {}  # node -> until when its windows wait no longer
        self._heard: set[int] = set()  # input partitions of which marks have come
        self._unread: tuple[int, ...] = ()
        self.begin: int | None = None

    @property
    def nodes(self) -> dict[str, NodeMarks]:
        """The one that all of them are."""
        return {self._name: self._merged()}

    @property
    def unread(self) -> list[int]:
        """Input partitions that it waits for though no node of theirs was heard of."""
        return [source for source in self._unread if source not in self._heard]

    def steps(self, mark: Mark, *, copied: bool) -> list[tuple[Mark, NodeMarks]]:
        """What a mark of one of the nodes says of all of them."""
        if mark.unread is not None:
            return self._wait_for(mark.unread)
        if mark.input is not None:
            self._heard.add(mark.input)
        if self._tracker.apply(mark, copied=True) is None:
            return []
        if mark.begin is not None:
            self.begin = mark.begin if self.begin is None else max(self.begin, mark.begin)
        merged = self._merged()
        if mark.by is not None:
            self._silent[mark.node] = _EVER if mark.live is None else mark.live
        else:
            self._silent.pop(mark.node, None)
        found = [(Mark(node=self._name, live=merged.watermark, n=mark.n), merged)] if mark.by is None else []
        if self._silent and not self.unread:
            pending = min(self._pending(name, node) for name, node in self._tracker.nodes.items())
            if pending > (NEVER if merged.watermark is None else merged.watermark):
                found.append((Mark(node=self._name, live=pending, by=CENTRAL), merged))
        return found

    def _wait_for(self, unread: tuple[int, ...]) -> list[tuple[Mark, NodeMarks]]:
        """The driver's list of unread inputs; when nobody is waited for any more, what has been held is let go."""
        held, self._unread = bool(self.unread), unread
        merged = self._merged()
        return [(Mark(node=self._name, live=merged.watermark), merged)] if held and not self.unread else []

    def watermark(self, node: str) -> int | None:
        """The least of all nodes' watermarks; None while one of them has said nothing."""
        return self._merged().watermark

    def waits_for(self) -> dict[str, int | None]:
        """All nodes that it waits for, and how far each is; None: not heard of yet."""
        return {name: node.watermark for name, node in self._tracker.nodes.items()}

    def _pending(self, name: str, node: NodeMarks) -> int:
        come = NEVER if node.watermark is None else node.watermark
        return max(come, self._silent.get(name, NEVER))

    def _merged(self) -> NodeMarks:
        nodes = list(self._tracker.nodes.values())
        times = [node.watermark for node in nodes]
        known = [time for time in times if time is not None]
        whole = known and len(known) == len(times) and not self.unread
        return NodeMarks(
            parts={0: min(known) if whole else None},
            open_of=dict(enumerate(node.open for node in nodes)),
            lost=sorted({interval for node in nodes for interval in node.lost}),
        )

    def snapshot(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        more = {"heard": sorted(self._heard), "unread": list(self._unread)}
        return {"tracker": self._tracker.snapshot(), "silent": self._silent, "begin": self.begin, **more}

    def restore(self, data: dict[str, Any]) -> None:
        self._tracker.restore(data["tracker"])
        self._silent, self.begin = dict(data["silent"]), data["begin"]
        self._heard, self._unread = set(data.get("heard", ())), tuple(data.get("unread", ()))


def _place_of(section: bytes) -> Headers:
    """The header that says whether a reading is backfill, and nothing else."""
    if _COPY not in section:
        return []
    try:
        return [(name, value) for name, value in decode_headers(section) if name == "hw"][:1]
    except PeerError:
        return []


def _listed(column: FieldColumn, rows: Ints, count: int) -> list[Any]:
    """Numbers and texts of these rows; NaN where there is neither."""
    values = _dense(column, count)[rows]
    found: list[Any] = values.tolist()
    if column.texts:
        for row in np.flatnonzero(are_texts(values)).tolist():
            found[row] = column.texts[int(codes_of(values[row : row + 1])[0])]
    return found


def _dense(column: FieldColumn, count: int) -> Floats:
    if column.rows is None:
        return column.values
    found = np.full(count, np.nan)
    found[column.rows] = column.values
    return found
