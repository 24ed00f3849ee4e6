"""What an operator may set about the sink to InfluxDB (section `[influx]`)."""

from __future__ import annotations

import string
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

PositiveMs = Annotated[int, msgspec.Meta(ge=1)]

_OWN = {"readings": ("node", "device"), "aggregates": ("node", "device", "rule")}
_NAMES = _OWN | {"aggregates": (*_OWN["aggregates"], "shift")}
"""What measurement and tags may hold; of a result that has no shift, that is empty."""


class InfluxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings and aggregates to InfluxDB 2, or to what speaks its write API. Without this section nothing is sent."""

    url: str
    """Where it listens, for example `http://127.0.0.1:8086`."""
    bucket: str
    """The bucket that is written to; it must be there."""
    org: str = ""
    """The bucket's organisation, by name or id."""
    token: str = ""
    """A token that may write to the bucket; better `token_file`, a file that holds it."""
    topics: tuple[Literal["readings", "aggregates"], ...] = ("readings", "aggregates")
    """What is sent."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a partition begins at the first start: all that the log still holds, or what comes from now on."""
    numbers: Literal["float", "typed"] = "float"
    """`float`: every number is one, so that a device may send 7 and 7.5. `typed`: JSON's whole numbers are integers."""
    readings_measurement: str = "readings"
    """Measurement of a reading; may hold {node} and {device}."""
    readings_tags: dict[str, str] = msgspec.field(default_factory=lambda: _tags("readings"))
    """Tags of a reading, name = text with {node} and {device}; node and device when left out."""
    readings_field: str = "{field}"
    """Field of a reading's member {field}."""
    aggregates_measurement: str = "aggregates"
    """Measurement of a window's result; may hold {node}, {device}, {rule} and {shift}."""
    aggregates_tags: dict[str, str] = msgspec.field(default_factory=lambda: _tags("aggregates"))
    """Tags of a window's result, name = text with {node}, {device}, {rule} and {shift}; these four when left out."""
    aggregates_field: str = "{field}_{aggregate}"
    """Field of the {aggregate} of a reading's {field}."""
    aggregates_time: Literal["start", "end"] = "start"
    """Which end of the window is the point's time."""
    batch_lines: Annotated[int, msgspec.Meta(ge=1, le=50_000)] = 5_000
    """The most lines in one request."""
    batch_bytes: Annotated[int, msgspec.Meta(ge=1024, le=32 << 20)] = 1 << 20
    """About the most bytes in one request, before compression."""
    interval_ms: PositiveMs = 1_000
    """A batch that is not full is sent after this long."""
    queue_batches: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Batches that may wait while one is being written; then reading pauses."""
    gzip: bool = True
    """Whether requests are compressed."""
    ca_file: str = ""
    """Certificates (PEM) to trust for https instead of the usual authorities."""
    connect_timeout_ms: PositiveMs = 3_000
    """The longest wait for a connection."""
    request_timeout_ms: PositiveMs = 10_000
    """The longest wait for an answer; then the request is sent again."""
    backoff_min_ms: PositiveMs = 500
    """The first pause after a failure; pauses double, with jitter. A longer `Retry-After` is obeyed."""
    backoff_max_ms: PositiveMs = 30_000
    """The longest pause of one's own accord."""

    def __post_init__(self) -> None:
        """Raise ValueError, which settings report with file and line, for what types cannot say."""
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(f"url = “{self.url}” is no address; write for example http://127.0.0.1:8086")
        if not self.bucket:
            raise ValueError("bucket is empty; name the bucket to write to")
        if not self.topics:
            raise ValueError("topics is empty; leave it out, or leave the section out")
        for topic, own in _OWN.items():
            measurement = getattr(self, f"{topic}_measurement")
            tags: dict[str, str] = getattr(self, f"{topic}_tags")
            if not measurement or not all(tags):
                raise ValueError(f"{topic}_measurement and the names in {topic}_tags must not be empty")
            used = set().union(*(_holders(text, _NAMES[topic]) for text in (measurement, *tags.values())))
            if missing := [f"{{{name}}}" for name in own if name not in used]:
                told = " and ".join(missing)
                raise ValueError(f"neither {topic}_measurement nor {topic}_tags holds {told}: points would collide")
        _need(self.readings_field, "readings_field", ("field",))
        _need(self.aggregates_field, "aggregates_field", ("field", "aggregate"))


def _tags(topic: str) -> dict[str, str]:
    return {name: f"{{{name}}}" for name in _NAMES[topic]}


def _holders(text: str, known: tuple[str, ...]) -> set[str]:
    """The names in braces; raises ValueError for others than `known`."""
    try:
        parts = [(name, form, change) for _, name, form, change in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"“{text}”: {error}") from None
    for name, form, change in parts:
        if name not in known or form or change:
            allowed = ", ".join(f"{{{one}}}" for one in known)
            raise ValueError(f"“{text}” holds {{{name}}}; it may hold {allowed}")
    return {name for name, _, _ in parts}


def _need(text: str, key: str, needed: tuple[str, ...]) -> None:
    if missing := [f"{{{name}}}" for name in needed if name not in _holders(text, needed)]:
        raise ValueError(f"{key} must hold {' and '.join(missing)}: fields would collide")
