"""What each of Kafka's error codes means for a transaction of ours. Everything that is not listed starts over.

Starting over drops the cursor in memory, asks for the cluster again, re-initialises the producer with the id and
epoch that it had, and reads the progress record: the one way that is right whatever had happened.
"""

from __future__ import annotations

from enum import Enum

from gateway.wire.errors import ErrorCode


class Remedy(Enum):
    """What to do about an error code."""

    START_OVER = "start over"
    SAME_AGAIN = "the same request again, shortly"
    PLAIN_INIT = "init_transactions without the old producer id"
    FENCED = "somebody bumped our epoch: init_transactions once, then read who it was"
    BISECT = "the content is refused: find the record"
    OPERATOR = "only a person can mend it: try again seldom"


REMEDIES: dict[int, Remedy] = {
    ErrorCode.CONCURRENT_TRANSACTIONS: Remedy.SAME_AGAIN,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS: Remedy.SAME_AGAIN,
    ErrorCode.COORDINATOR_NOT_AVAILABLE: Remedy.SAME_AGAIN,
    ErrorCode.LEADER_NOT_AVAILABLE: Remedy.SAME_AGAIN,
    ErrorCode.PRODUCER_FENCED: Remedy.FENCED,
    ErrorCode.INVALID_PRODUCER_EPOCH: Remedy.FENCED,
    ErrorCode.INVALID_PRODUCER_ID_MAPPING: Remedy.PLAIN_INIT,
    ErrorCode.UNKNOWN_PRODUCER_ID: Remedy.PLAIN_INIT,
    ErrorCode.MESSAGE_TOO_LARGE: Remedy.BISECT,
    ErrorCode.RECORD_LIST_TOO_LARGE: Remedy.BISECT,
    ErrorCode.INVALID_RECORD: Remedy.BISECT,
    ErrorCode.INVALID_TIMESTAMP: Remedy.BISECT,
    ErrorCode.CORRUPT_MESSAGE: Remedy.BISECT,
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: Remedy.OPERATOR,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: Remedy.OPERATOR,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Remedy.OPERATOR,
    ErrorCode.INVALID_TRANSACTION_TIMEOUT: Remedy.OPERATOR,
    ErrorCode.INVALID_REPLICATION_FACTOR: Remedy.OPERATOR,
    ErrorCode.INVALID_CONFIG: Remedy.OPERATOR,
    ErrorCode.INVALID_TOPIC_EXCEPTION: Remedy.OPERATOR,
    ErrorCode.POLICY_VIOLATION: Remedy.OPERATOR,
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE: Remedy.OPERATOR,
    ErrorCode.SASL_AUTHENTICATION_FAILED: Remedy.OPERATOR,
}


def remedy_for(code: int) -> Remedy:
    """The remedy for an error code."""
    return REMEDIES.get(code, Remedy.START_OVER)
