"""What a device said, whatever it said it in: one `Reading`, or the reason why its bytes are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Scalar = float | int | str | bool | None

HEALTH_DEVICE = "$gateway"
"""The device as which a node speaks of itself: the readings that bear marks when no device has sent any."""


def is_reserved(device: str) -> bool:
    """Whether no device may be called so: `$…` is the node's own, and readers know its health by the key's end."""
    return device[:1] == "$" or device.endswith(f"/{HEALTH_DEVICE}")


class FromArrival(int):
    """An `event_ms` that counts from the message's arrival, which no decoder knows; `resolve` makes a time of it."""


class Reading(NamedTuple):
    """One set of fields that a device measured together.

    `event_ms` is the device's own claim in milliseconds since the epoch (None: it claims none);
    `natural_key` is what tells this reading from the device's other ones (a sequence number or a
    name; None: nothing does).
    """

    device: str
    fields: dict[str, Scalar]
    event_ms: int | None = None
    natural_key: int | str | None = None


class Undecodable(Exception):  # noqa: N818 - it is a value in a list as often as it is raised
    """Bytes that are no reading; `reason` is one sentence for the dead letter, `decoder` who says so."""

    def __init__(self, reason: str, *, decoder: str = "json") -> None:
        super().__init__(reason)
        self.reason = reason
        self.decoder = decoder


def refuse_reserved(results: list[list[Reading] | Undecodable]) -> None:
    """Turn away, in place, the messages that say to be the node's own, whatever named their device."""
    for index, result in enumerate(results):
        if type(result) is list:
            for reading in result:
                if is_reserved(reading.device):
                    reason = f"no device may be called “{reading.device[:80]}”: $ begins the node's own names"
                    results[index] = Undecodable(reason, decoder="ingest")
                    break


def resolve(results: list[list[Reading] | Undecodable], arrival_ms: int | None) -> None:
    """Times that count from the arrival of these messages, in place. None: nobody knows when they were sent."""
    for result in results:
        if type(result) is list:
            for index, reading in enumerate(result):
                if type(reading.event_ms) is FromArrival:
                    event_ms = None if arrival_ms is None else arrival_ms + int(reading.event_ms)
                    result[index] = reading._replace(event_ms=event_ms)


def one_by_one(
    decode: Callable[[str, bytes], list[Reading]], messages: Sequence[tuple[str, bytes]]
) -> list[list[Reading] | Undecodable]:
    """The results of a group whose messages have nothing to gain from each other, aligned with `messages`."""
    results: list[list[Reading] | Undecodable] = []
    for topic, payload in messages:
        try:
            results.append(decode(topic, payload))
        except Undecodable as error:
            results.append(error)
    return results
