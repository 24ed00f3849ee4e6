"""The states of the replicator; `gateway.replicate.core.TABLE` says what each asks for."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where the machine is."""

    SEARCH = "asking the central how far we came"
    IDLE = "waiting for records"
    GATHER = "making a transaction's bytes"
    ADD = "opening the transaction"
    PRODUCE = "sending its data"
    PROGRESS = "sending its progress record"
    COMMIT = "committing"
    BURY = "dead-lettering a refused record"
    PAUSE = "pausing"
    STOPPED = "waiting for the operator"
