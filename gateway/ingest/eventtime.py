"""Which time a record carries (design §4): the device's claim when it can be true, else the arrival.

A claim outside [arrival − past, arrival + 5 min] is kept beside the record (header hw-t), never as its timestamp:
one date in the far future would close every window, and Kafka 4 refuses timestamps more than an hour ahead,
with the whole batch that they are in.
"""

from __future__ import annotations

FUTURE_MAX_MS = 5 * 60_000


def record_time(claim_ms: int | None, arrival_ms: int, past_max_ms: int) -> tuple[int, int | None]:
    """(the record's timestamp, the claim that is not trusted or None)."""
    if claim_ms is None:
        return arrival_ms, None
    if arrival_ms - past_max_ms <= claim_ms <= arrival_ms + FUTURE_MAX_MS:
        return claim_ms, None
    return arrival_ms, claim_ms
