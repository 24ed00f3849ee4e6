"""Sparkplug B (Eclipse Sparkplug 3.0) to Readings: births, data, deaths of edge nodes and their devices.

Topics are `spBv1.0/GROUP/TYPE/NODE[/DEVICE]`; the device of a reading is `GROUP/NODE` or `GROUP/NODE/DEVICE`. Metrics
of one time make one reading. A birth says `online` = true, a death `online` = false, of a node also for its devices.

Births name the metrics' aliases and types, so this decoder remembers them, per profile and edge node, within the
bounds of `options`. What cannot be read without a birth (after the gateway's own restart, for instance) is undecodable,
and the node is put down in `rebirths_wanted`. Message numbers run from 0 to 255 over a node and its devices: when some
are missing, the readings are kept, the node gets a reading with `sequence_gap` (how many), and a rebirth is wanted. A
message that comes again (QoS 1) is no gap: its readings are kept, as the disk may have lost them the first time.

Left out of a reading: values that are none (DataSet, Template, Bytes, File, arrays), `bdSeq` and `Node Control/…`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

from devices.decoders.plans import PlanCache
from devices.decoders.sparkplug_payload import NOT_SCALAR, Metric, Payload, metric_value, parse_payload
from devices.options import SparkplugOptions, read_options
from devices.profiles import Profile
from devices.protobuf import ProtobufError
from devices.reading import Reading, Undecodable
from devices.shape import Shape

DECODER = "sparkplug-b"
NAMESPACE = "spBv1.0"
_TYPES = {"NBIRTH": 4, "NDATA": 4, "NDEATH": 4, "DBIRTH": 5, "DDATA": 5, "DDEATH": 5}  # and levels of their topics
_COMMANDS = ("NCMD", "DCMD")
_WANTED_MAX = 1_000
_REPEATS_MAX = 64
"""What a client may have in flight, and so send again; far from 256, where numbers begin anew."""


class Rebirth(NamedTuple):
    """An edge node that should be asked for its births again, and why."""

    group: str
    node: str
    reason: str


def decode_group(profile: Profile | None, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
    """One result per (topic, payload), in order: readings, or why there are none."""
    return _plans.of(profile).decode(messages)


def rebirths_wanted(profile: Profile | None) -> list[Rebirth]:
    """The nodes that need a rebirth since the last call; the caller asks them, at a rate it thinks fit."""
    wanted = _plans.of(profile).wanted
    taken = [Rebirth(group, node, reason) for (group, node), reason in wanted.items()]
    wanted.clear()
    return taken


def every_rebirth_wanted() -> list[Rebirth]:
    """As `rebirths_wanted`, of all profiles that were in use."""
    return [one for profile in _plans.profiles() for one in rebirths_wanted(profile)]


class _Node:
    """What an edge node's births said."""

    __slots__ = ("bd_seq", "devices", "latest", "next_seq")

    def __init__(self) -> None:
        self.bd_seq: int | None = None
        self.next_seq: int | None = None
        self.latest: dict[int, int] = {}  # number → CRC-32 of topic and payload, of the last messages
        # device ("" is the node itself) → alias or name → (name, type)
        self.devices: dict[str, dict[int | str, tuple[str, int]]] = {}


class _Plan:
    def __init__(self, profile: Profile | None) -> None:
        self._options = read_options(SparkplugOptions, profile.options if profile is not None else {})
        self._shape = Shape(profile, DECODER)
        self._nodes: OrderedDict[tuple[str, str], _Node] = OrderedDict()
        self.wanted: dict[tuple[str, str], str] = {}

    def decode(self, messages: Sequence[tuple[str, bytes]]) -> list[list[Reading] | Undecodable]:
        results: list[list[Reading] | Undecodable] = []
        for topic, data in messages:
            try:
                results.append(self._message(topic, data))
            except ProtobufError as error:
                results.append(_undecodable(f"no Sparkplug B payload: {error}"))
            except Undecodable as error:
                results.append(error)
        return results

    def _message(self, topic: str, data: bytes) -> list[Reading]:
        group, kind, node_name, device = _parts(topic)
        if not data:
            raise _undecodable("the message is empty")
        payload = parse_payload(data)
        key = (group, node_name)
        node = self._nodes.get(key)
        if node is not None:
            self._nodes.move_to_end(key)
        readings: list[Reading] = []
        if kind == "NDEATH":
            return self._node_death(key, node, payload)
        crc = crc32(data, crc32(topic.encode()))
        if kind == "NBIRTH":
            node = self._born(key, payload, crc)
        elif (gap := self._gap(node, payload.seq, crc)) and node is not None:
            self._want(key, f"messages missing before number {payload.seq}: {gap}")
            readings.append(Reading(f"{group}/{node_name}", {"sequence_gap": gap}, payload.timestamp_ms))
        name = f"{group}/{node_name}/{device}" if device else f"{group}/{node_name}"
        if kind == "DDEATH":
            if node is not None:
                node.devices.pop(device, None)
            return [*readings, Reading(name, {"online": False}, payload.timestamp_ms)]
        if kind.endswith("BIRTH"):
            if node is None:
                self._want(key, f"device {device} was born before its node")
                node = self._known(key)
            self._learn(node, device, payload.metrics)
            readings.append(Reading(name, {"online": True}, payload.timestamp_ms))
            return readings + self._values(topic, name, node.devices[device], payload, key, is_birth=True)
        known = node.devices.get(device) if node is not None else None
        if known is None:
            self._want(key, f"data of {name} came before its birth")
        return readings + self._values(topic, name, known or {}, payload, key, is_birth=False)

    def _node_death(self, key: tuple[str, str], node: _Node | None, payload: Payload) -> list[Reading]:
        """The will that a node left (section 6.4.6): its time is that of the connection, so the arrival counts."""
        bd_seq = _bd_seq(payload)
        if node is not None and None not in (node.bd_seq, bd_seq) and bd_seq != node.bd_seq:
            raise _undecodable(f"the death of an earlier session (bdSeq {bd_seq}, the node's birth says {node.bd_seq})")
        name = "/".join(key)
        devices = [device for device in node.devices if device] if node is not None else []
        self._nodes.pop(key, None)
        return [Reading(name, {"online": False}), *(Reading(f"{name}/{one}", {"online": False}) for one in devices)]

    def _born(self, key: tuple[str, str], payload: Payload, crc: int) -> _Node:
        before = self._nodes.get(key)
        if before is not None and payload.timestamp_ms is not None and before.latest.get(payload.seq or 0) == crc:
            return before  # the same birth again; another one has another time
        self._nodes.pop(key, None)  # the births of its devices are void (section 6.4.4)
        self.wanted.pop(key, None)
        node = self._known(key)
        node.bd_seq = _bd_seq(payload)
        node.latest[payload.seq or 0] = crc
        node.next_seq = None if payload.seq is None else payload.seq + 1
        return node

    def _known(self, key: tuple[str, str]) -> _Node:
        node = self._nodes[key] = _Node()
        while len(self._nodes) > self._options.nodes_max:
            self._nodes.popitem(last=False)
        return node

    def _gap(self, node: _Node | None, seq: int | None, crc: int) -> int:
        """How many messages of this node are missing before number `seq`; none before one that came before."""
        if seq is None:
            raise _undecodable("no sequence number")
        if seq > 255:
            raise _undecodable(f"sequence number {seq} is above 255")
        if node is None or node.latest.get(seq) == crc:
            return 0
        node.latest.pop(seq, None)
        node.latest[seq] = crc
        if len(node.latest) > _REPEATS_MAX:
            del node.latest[next(iter(node.latest))]
        expected, node.next_seq = node.next_seq, seq + 1
        return 0 if expected is None else (seq - expected) % 256

    def _learn(self, node: _Node, device: str, metrics: list[Metric]) -> None:
        names: dict[int | str, tuple[str, int]] = {}
        for metric in metrics:
            if not metric.name:
                raise _undecodable("a birth with a metric that has no name")
            names[metric.name] = (metric.name, metric.datatype)
            if metric.alias is not None:
                names[metric.alias] = (metric.name, metric.datatype)
        others = sum(len(known) for other, known in node.devices.items() if other != device)
        if others + len(names) > 2 * self._options.metrics_max:
            raise _undecodable(f"more than {self._options.metrics_max} metrics of one edge node")
        node.devices[device] = names

    def _values(
        self,
        topic: str,
        name: str,
        known: dict[int | str, tuple[str, int]],
        payload: Payload,
        key: tuple[str, str],
        *,
        is_birth: bool,
    ) -> list[Reading]:
        by_time: dict[int | None, dict[str, Any]] = {}
        left_out: list[str] = []
        for metric in payload.metrics:
            metric_name, datatype = self._named(metric, known, key)
            if metric_name == "bdSeq" or metric_name.startswith("Node Control/"):
                continue
            if datatype in NOT_SCALAR or metric.field_number > 15:
                left_out.append(f"“{metric_name[:40]}” is of type {NOT_SCALAR.get(datatype, 'unknown')}")
                continue
            time_ms = payload.timestamp_ms if metric.timestamp_ms is None else metric.timestamp_ms
            by_time.setdefault(time_ms, {})[metric_name] = metric_value(metric, datatype)
        readings: list[Reading] = []
        refused: Undecodable | None = None
        for time_ms, values in by_time.items():
            try:
                readings.append(self._shape.reading(topic, values, event_ms=time_ms, device=name))
            except Undecodable as error:
                if not self._shape.listed:
                    raise
                refused = error
        if not readings and not is_birth:
            reason = refused.reason if refused is not None else ""
            raise _undecodable(reason or f"no value to store{': ' if left_out else ''}{', '.join(left_out)[:200]}")
        return readings

    def _named(self, metric: Metric, known: dict[int | str, tuple[str, int]], key: tuple[str, str]) -> tuple[str, int]:
        """The metric's name and type, from itself or from the birth."""
        born = known.get(metric.name) if metric.name else known.get(metric.alias) if metric.alias is not None else None
        if born is not None:
            return born[0], metric.datatype or born[1]
        if metric.name:
            return metric.name, metric.datatype
        if metric.alias is None:
            raise _undecodable("a metric with neither name nor alias")
        reason = f"alias {metric.alias} is not known: no birth of it was heard"
        self._want(key, reason)
        raise _undecodable(f"{reason} (a rebirth of {'/'.join(key)} is wanted)")

    def _want(self, key: tuple[str, str], reason: str) -> None:
        if len(self.wanted) < _WANTED_MAX:
            self.wanted.setdefault(key, reason)


def _parts(topic: str) -> tuple[str, str, str, str]:
    """(group, type, node, device or "")."""
    levels = topic.split("/")
    if levels[0] != NAMESPACE or len(levels) < 4:
        state = len(levels) == 3 and levels[1] == "STATE"
        raise _undecodable(
            "the state of a host, no device's message" if state else f"“{topic[:80]}” is no topic of {NAMESPACE}"
        )
    kind = levels[2]
    if kind in _COMMANDS:
        raise _undecodable(f"{kind} is a command to a node, no device's message")
    if _TYPES.get(kind) != len(levels):
        raise _undecodable(f"“{topic[:80]}” is no topic of {NAMESPACE}: type, or number of levels")
    return levels[1], kind, levels[3], levels[4] if len(levels) == 5 else ""


def _bd_seq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == "bdSeq" and metric.field_number in (10, 11):
            return int(metric.raw)
    return None


def _undecodable(reason: str) -> Undecodable:
    return Undecodable(reason, decoder=DECODER)


_plans: PlanCache[_Plan] = PlanCache(_Plan)
