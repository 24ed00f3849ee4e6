"""The small files of a data directory that `headwater log` checks: the log's own and everybody else's."""

from __future__ import annotations

import os

from gateway import users
from gateway.ingest.mqtt.session_journal import check_lines
from gateway.log.small_files import LOG_FILES, SmallFile, twice
from headwater.dashboard.token_file import read_token
from headwater.sealed import unseal, unseal_number

_LOST_SESSIONS = "what neither copy has is lost, and a start says so"
NODE_FILES = (
    *LOG_FILES,
    *twice("node/runs", "replication stops and asks where it must not guess"),
    *twice("node/central", "replication stops and asks where it must not guess"),
    *twice("node/replayed.json", "nothing is replayed until both copies are removed"),
    SmallFile("node/sessions", check_lines, _LOST_SESSIONS),
    SmallFile("node/sessions.copy", check_lines, _LOST_SESSIONS),
    SmallFile("node/producer-ids", unseal_number, "a start leaps over a million ids"),
    SmallFile("node/transaction-listing", unseal_number, "a start reads transaction state from the log's start"),
    SmallFile("node/brokers.json", unseal, "it is learnt anew", spare=True),
    SmallFile("node/intervals", unseal, "they are learnt anew", spare=True),
    SmallFile("node/users", lambda data: users.parse(os.path.join("node", "users"), data), "nobody may come in"),
    SmallFile("node/page-token", read_token, "the page is not served until it is removed"),
)
