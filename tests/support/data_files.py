"""Every kind of file that a node keeps below its data directory, and who damages it in the tests.

A new kind belongs here, and into a reference set of the damage parts (tests/torture) where it is read again.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

DAMAGED = "every prefix, tail and bit"
KINDS: dict[str, str] = {
    **dict.fromkeys(
        (
            *("log/.kafka_cleanshutdown", "log/meta.properties", "log/cleaner-offset-checkpoint"),
            *("log/log-start-offset-checkpoint", "log/recovery-point-offset-checkpoint"),
            *("log/replication-offset-checkpoint", "log/…/leader-epoch-checkpoint", "log/…/partition.metadata"),
            *("log/…/.log", "log/…/.index", "log/…/.timeindex", "log/…/.txnindex", "log/…/.snapshot"),
            *("log/…/.log.swap", "log/…/.index.swap", "log/…/.timeindex.swap", "log/…/.txnindex.swap"),
            *("node/identity.json", "node/identity.copy.json", "node/topics.json", "node/topics.copy.json"),
            *("node/aborted/…", "node/chain/…", "node/rewritten/…", "node/clean-stop", "node/arrivals"),
            *("node/expired.json", "node/expired.copy.json", "node/runs", "node/runs.copy.json"),
            *("node/central", "node/central.copy.json", "node/sessions", "node/sessions.copy"),
            *("node/producer-ids", "node/transaction-listing", "node/intervals", "node/brokers.json"),
            *("node/replayed.json", "node/replayed.copy.json", "node/users", "node/page-token"),
            *("work/….checkpoint", "work/….positions", "work/….positions.copy.json", "work/decoder-….json"),
        ),
        DAMAGED,
    ),
    "work/history.db": "tests/torture/test_history_damage.py",
    "work/history.db-wal": "the same",
    "work/history.db-shm": "SQLite's, beside it; made again at each start",
    **dict.fromkeys(
        (
            "log/…/.log.cleaned",
            *(f"log/…/.{name}.deleted" for name in ("log", "index", "timeindex", "txnindex", "snapshot")),
        ),
        "a start removes it unread",
    ),
    "node/lock": "nothing is in it",
    "node/reserve": "bytes to give up; nobody reads them",
    "node/reserve.start": "bytes to give up; nobody reads them",
    "node/quarantine/…": "damage, for people to look at",
}
_BY_NAME = (
    (re.compile(r"log/[^/]+-[0-9]+/[0-9]{20}(\..+)"), r"log/…/\1"),
    (re.compile(r"log/[^/]+-[0-9]+/(.+)"), r"log/…/\1"),
    (re.compile(r"node/(aborted|chain|quarantine|rewritten)/.+"), r"node/\1/…"),
    (re.compile(r"work/decoder-.+\.json"), "work/decoder-….json"),
    (re.compile(r"work/.+\.(checkpoint|positions(\.copy\.json)?)"), r"work/….\1"),
)
_NEVER_READ = re.compile(
    r".*\.(tmp|damaged|damaged-wal|damaged-shm)|node/users\.[0-9]+\.new"
    r"|log/(\.lock|bootstrap\.checkpoint|__cluster_metadata-0/.*)"  # a broker's own, in a directory that was its
)


def kind_of(relative: str) -> str:
    """The kind of a file, by its path below the data directory."""
    for pattern, kind in _BY_NAME:
        if match := pattern.fullmatch(relative):
            return match.expand(kind)
    return relative


def is_known(relative: str) -> bool:
    """Whether tests damage files of this kind, or there is a reason why none does."""
    return _NEVER_READ.fullmatch(relative) is not None or kind_of(relative) in KINDS


def unknown_files(data: Path) -> Iterator[str]:
    """Paths below a data directory of files that are of no kind."""
    for part in sorted(os.listdir(data)):
        if part in ("log", "node", "work"):  # beside them users may keep their configuration
            for folder, _, names in os.walk(data / part):
                for path in [Path(folder, name) for name in names]:
                    relative = str(path.relative_to(data))
                    if not is_known(relative) and not stat.S_ISSOCK(path.lstat().st_mode):
                        yield relative


def data_directories(below: Path) -> Iterator[Path]:
    """Where nodes have kept their data."""
    for identity in below.rglob("node/identity.json"):
        yield identity.parents[1]
