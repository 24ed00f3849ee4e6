"""Who keeps readers of committed records from reading on: the transactions that hold last stable offsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.log.store import LogStore
from gateway.wire.transactions import Transaction

_ROWS_MAX = 20


def stable_holders(store: LogStore, transactions: Mapping[str, Transaction], now_ms: int) -> list[dict[str, Any]]:
    """Per partition with a last stable offset below its end, the transaction that holds it; longest first, 20 at most.

    `transactional_id` is None where no coordinator knows of the producer. `age_ms` since its first record here.
    """
    names = {each.now.producer_id: name for name, each in transactions.items()}
    rows: list[dict[str, Any]] = []
    for topic in store.topics.values():
        for log in topic.partitions:
            if not (found := log.open_transactions()):
                continue
            producer_id, _, first_offset, started_ms = min(found, key=lambda each: each[2])
            rows.append(
                {
                    "topic": topic.name,
                    "partition": log.index,
                    "last_stable_offset": first_offset,
                    "end": log.log_end_offset,
                    "transactional_id": names.get(producer_id),
                    "producer_id": producer_id,
                    "age_ms": max(0, now_ms - started_ms),
                }
            )
    return sorted(rows, key=lambda row: -row["age_ms"])[:_ROWS_MAX]
