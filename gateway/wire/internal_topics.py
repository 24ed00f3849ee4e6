"""The topics that are the broker's own: it writes them itself, and no client creates, grows or deletes them."""

from __future__ import annotations

TRANSACTION_TOPIC = "__transaction_state"
OFFSETS_TOPIC = "__consumer_offsets"
INTERNAL_TOPICS = frozenset({TRANSACTION_TOPIC, OFFSETS_TOPIC})
