"""The node's small files: who writes each, and what a start knows from it; for damage as in `tests.torture.damage`."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

from devices.profile_text import parse_profile
from devices.user_settings import DecoderSettings
from gateway import scram, users
from gateway.ingest.interval_file import IntervalFile
from gateway.ingest.marks import MarkMaker, MarkSettings
from gateway.ingest.mqtt.sessions import SessionRegistry, Use
from gateway.ingest.mqtt_client.memo import SessionMemo
from gateway.ingest.replays import Replays
from gateway.log.arrivals import Arrivals
from gateway.log.expiries import Expired, Expiries
from gateway.replicate.journal import Remembered, RunJournal
from gateway.wire.producer_ids import ProducerIds
from gateway.wire.transaction_log import TransactionLog
from gateway.wire.transactions import Snapshot, State
from headwater.app.decoders import Decoder
from headwater.app.replaying import Replayer
from headwater.clock import ManualClock
from headwater.dashboard.auth import load_token
from headwater.disk import Disk
from headwater.errors import UserError
from headwater.sealed import write_sealed
from processors.checkpoint import Checkpoint, InputState, Writer, encode_checkpoint
from processors.inline import Processors
from processors.rules.model import Rules
from processors.settings import ProcessorSettings
from processors.sinks.positions import Positions
from tests.torture.damage import DATA, NOW_MS, open_store
from tests.torture.ledger import Violation
from tests.torture.simulated_os import SimulatedOs

NODE, WORK = f"{DATA}/node", f"{DATA}/work"


class Keeper(NamedTuple):
    """`write` makes the files, as a node's life does; `read` is a start, and gives what it knows from them.

    `refuses`: it may raise `UserError`, which then stops what it is for, and never the node.
    """

    write: Callable[[Disk], None]
    read: Callable[[Disk], Any]
    refuses: bool = False


# -- MQTT sessions


def _sessions(disk: Disk) -> SessionRegistry:
    tail = {client: {1: Use(7, "readings", offset, NOW_MS)} for client, offset in (("left", 3), ("stays", 5))}
    return SessionRegistry(disk, f"{NODE}/sessions", tail=tail, sessions_max=20, horizon_ms=1_000)


def _write_sessions(disk: Disk) -> None:
    sessions = _sessions(disk)
    sessions.open("pump", clean=False, ends={})
    sessions.open("meter", clean=False, ends={}, expiry_s=60, user="u1")
    sessions.prepare_sync()()
    sessions.open("left", clean=True, ends={"readings": 4})
    sessions.open("meter", clean=False, ends={}, expiry_s=90, user="u1")
    sessions.open("gone", clean=False, ends={})
    sessions.open("gone", clean=True, ends={"readings": 9})
    sessions.prepare_sync()()


def _read_sessions(disk: Disk) -> Any:
    sessions = _sessions(disk)
    if sessions.damaged:
        logging.getLogger(__name__).error("%s", sessions.damaged)
    return sorted((each.client_id, each.expiry_s, each.user) for each in sessions._sessions.values())


# -- the uplink's journal


def _write_runs(disk: Disk) -> None:
    for seed in range(2):
        journal = RunJournal.begin(
            disk, DATA, first={"readings/0": 7 * seed}, random=Random(seed), boot_id="b", wall_ms=NOW_MS, monotonic_ms=1
        )
    journal.raise_epoch({"readings/0": 3}, 5)
    journal.remember(Remembered(cluster="c", topic_id="i", partition=0, offset=42, txn=9, run=journal.run))


def _read_runs(disk: Disk) -> Any:
    journal = RunJournal(disk, NODE)
    for said in journal.damaged:
        logging.getLogger(__name__).error("%s", said)
    return journal.runs, journal.remembered, journal.raised


# -- upkeep's books


def _expiries(disk: Disk) -> Expiries:
    return Expiries(disk, f"{NODE}/expired.json", lambda *_, **__: None, lambda done, _: done())


def _write_expiries(disk: Disk) -> None:
    books = _expiries(disk)
    for first in (0, 10):
        books.note(
            Expired(
                topic="readings", partition=0, first=first, end=first + 10, bytes=900, from_ms=NOW_MS, to_ms=NOW_MS + 9,
                cause="age", at_ms=NOW_MS, owed_from=first + 3,
            )
        )  # fmt: skip
    books.save(books.encode())


def _write_arrivals(disk: Disk) -> None:
    arrivals = Arrivals(disk, f"{NODE}/arrivals")
    for size, bases in enumerate(([0], [0, 40], [0, 40, 90])):
        arrivals.observe(("readings", 0), [(base, 100 + size) for base in bases], NOW_MS + size)
    arrivals.save(arrivals.encode())


def _read_arrivals(disk: Disk) -> Any:
    arrivals = Arrivals(disk, f"{NODE}/arrivals")
    return [arrivals.of(("readings", 0), base) for base in (0, 40)]


# -- numbers


def _write_ids(disk: Disk) -> None:
    ids = ProducerIds(disk, f"{NODE}/producer-ids")
    assert ids.next() < ids.next()


def _read_ids(disk: Disk) -> bool:
    """Whether a new id is one that was given."""
    given = ProducerIds(SimulatedOs().disk(), f"{NODE}/producer-ids")._next + 1
    return ProducerIds(disk, f"{NODE}/producer-ids", fresh=False).next() <= given


def _transactions(disk: Disk) -> tuple[Any, TransactionLog]:
    store = open_store(disk)
    return store, TransactionLog(store, ManualClock(wall_ms=NOW_MS), disk, f"{NODE}/transaction-listing")


def _write_transactions(disk: Disk) -> None:
    store, log = _transactions(disk)
    known = {name: Snapshot(1 << 40, 3, 60_000, State.EMPTY) for name in ("a", "b")}
    for name, snapshot in known.items():
        log.append(name, snapshot, lambda: None)
    log.list_all(known)
    log.append("c", Snapshot(2 << 40, 0, 60_000, State.EMPTY), lambda: None)
    store.flush_now()
    store.close()


def _read_transactions(disk: Disk) -> Any:
    store, log = _transactions(disk)
    found = log.load()
    store.close()
    return found


# -- what ingest remembers


def _marks() -> MarkMaker:
    marks = MarkMaker(MarkSettings(), node="edge-1", started_ms=0)
    marks.source("mqtt:slow")
    return marks


def _write_intervals(disk: Disk) -> None:
    marks = _marks()
    marks.source("mqtt:slow").remember(15_000)
    marks.source("mqtt:quick").remember(1_000)
    IntervalFile(disk, DATA, marks).close()


def _read_intervals(disk: Disk) -> Any:
    marks = _marks()
    IntervalFile(disk, DATA, marks)
    return marks.intervals()


def _write_memo(disk: Disk) -> None:
    memo = SessionMemo(disk, DATA)
    memo.keep("plant", "10.0.0.5:1883", "headwater", ["a/#", "b/+"])
    memo.write()


def _write_replays(disk: Disk) -> None:
    replays = Replays()
    replays.begun([3, 4, 9], 100)
    replays.finished([3, 4, 9])
    replays.begun([12], 140)
    write_sealed(disk, f"{NODE}/replayed.json", replays.members())


# -- the work process


def _processors(disk: Disk) -> Processors:
    connect: Any = None
    return Processors(
        ProcessorSettings(), Rules(), connect=connect, clock=ManualClock(wall_ms=NOW_MS), data_dir=DATA, disk=disk
    )


def _write_checkpoint(disk: Disk) -> None:
    state = InputState(12, {"w": [1]}, Writer((1, 0), {"0": 3}))
    disk.replace_file(f"{WORK}/processors.checkpoint", encode_checkpoint(Checkpoint({"readings/0": state}, {"a/0": 2})))


def _decoder(disk: Disk) -> Decoder:
    connect: Any = None
    profile = parse_profile('name = "lab"\ntopics = ["lab"]\ndecoder = "lab.py:decode"\n', "lab.toml")
    clock = ManualClock(wall_ms=NOW_MS)
    return Decoder(profile, DecoderSettings(), connect=connect, clock=clock, data_dir=DATA, disk=disk)


def _write_decoder(disk: Disk) -> None:
    decoder = _decoder(disk)
    decoder._position = 123_456
    decoder._save()


def _positions(disk: Disk) -> Positions:
    return Positions(disk, WORK, "influx", "http://db o/b")


def _write_positions(disk: Disk) -> None:
    positions = _positions(disk)
    positions.settle({("aggregates", 0): 1_234, ("alerts", 0): 56})
    positions.save()


def _read_positions(disk: Disk) -> Any:
    positions = _positions(disk)
    if why := positions.load():
        logging.getLogger(__name__).warning("%s", why)
    return positions.offsets


# -- who may come in


def _write_token(disk: Disk) -> None:
    load_token(f"{NODE}/page-token", disk)


def _read_token(disk: Disk) -> str:
    token, made = load_token(f"{NODE}/page-token", disk)
    if made:
        logging.getLogger(__name__).warning("the page's token, kept in page-token")  # as the page itself does
    return token


def _write_users(disk: Disk) -> None:
    secret = scram.Secret("SCRAM-SHA-256", 4_096, b"s" * 16, b"k" * 32, b"v" * 32)
    made = {
        name: users.User(name, frozenset(purposes), 1 << 14, 8, 1, b"t" * 16, b"d" * 32, known)
        for name, purposes, known in (("pump", ["mqtt"], ()), ("hub", ["kafka", "mqtt"], (secret,)))
    }
    with tempfile.TemporaryDirectory() as folder:
        users._write(f"{folder}/users", users.Users(made, b"abc123"))
        disk.replace_file(f"{NODE}/users", Path(folder, "users").read_bytes())


def _read_users(disk: Disk) -> Any:
    handle = os.memfd_create("users")
    try:
        os.write(handle, disk.read_file(f"{NODE}/users"))
        os.fchmod(handle, 0o600)
        os.lseek(handle, 0, os.SEEK_SET)
        with patch("gateway.users.os.open", lambda *_: os.dup(handle)):
            return users.read_file(f"{NODE}/users")
    except OSError as error:
        raise UserError(f"{NODE}/users: {error}") from None
    finally:
        os.close(handle)


def _replayer(disk: Disk) -> Any:
    ingest: Any = None
    return Replayer(ingest, disk, DATA)._load().members()


KEEPERS: dict[str, Keeper] = {
    "sessions": Keeper(_write_sessions, _read_sessions),
    "runs": Keeper(_write_runs, _read_runs),
    "expired": Keeper(_write_expiries, lambda disk: _expiries(disk).status()),
    "arrivals": Keeper(_write_arrivals, _read_arrivals),
    "producer ids": Keeper(_write_ids, _read_ids),
    "transactions": Keeper(_write_transactions, _read_transactions),
    "intervals": Keeper(_write_intervals, _read_intervals),
    "brokers": Keeper(_write_memo, lambda disk: SessionMemo(disk, DATA).recall("plant", "10.0.0.5:1883", "headwater")),
    "replayed": Keeper(_write_replays, _replayer, refuses=True),
    "checkpoint": Keeper(_write_checkpoint, lambda disk: _processors(disk)._load()),
    "decoder": Keeper(_write_decoder, lambda disk: _decoder(disk)._load()),
    "positions": Keeper(_write_positions, _read_positions),
    "token": Keeper(_write_token, _read_token, refuses=True),
    "users": Keeper(_write_users, _read_users, refuses=True),
}
SET_ASIDE = (
    "/log/",
    *(f"/node/{name}" for name in ("aborted", "chain", "clean-stop", "identity", "reserve", "rewritten", "topics")),
)
"""Of what a keeper's writing leaves, these belong to the log and are damaged there."""


class Small(NamedTuple):
    """A keeper's files by path, those of them that are its own, and what a start knows from them."""

    files: dict[str, bytes]
    own: list[str]
    known: Any


def build(keeper: Keeper) -> Small:
    simulated = SimulatedOs()
    disk = simulated.disk()
    for folder in (NODE, WORK):
        disk.make_directory(folder)
    keeper.write(disk)
    files = simulated.files()
    own = [path for path in files if not any(part in path for part in SET_ASIDE)]
    with heard() as said:
        known = keeper.read(disk)
    assert not said, said
    return Small(files, own, known)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """What is logged at WARNING or above meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield said
    finally:
        root.removeHandler(handler)


def judge(keeper: Keeper, small: Small, simulated: SimulatedOs, where: str) -> None:
    """Starts on damaged files: what is known is what was known before, or the damage is told. Raises `Violation`."""
    disk = simulated.disk()
    with heard() as said:
        try:
            known = keeper.read(disk)
        except UserError as error:
            if not keeper.refuses:
                raise Violation(f"{where}: refused: {error!r}") from error
            return
        except Exception as error:
            raise Violation(f"{where}: {error!r}") from error
    if known != small.known and not any(path.rpartition("/")[2] in " ".join(said) for path in small.own):
        raise Violation(f"{where}: {known} instead of {small.known}, and nothing is told but {said}")
    try:
        with heard():
            again = keeper.read(disk)
    except Exception as error:
        raise Violation(f"{where}: the second start: {error!r}") from error
    if again != known:
        raise Violation(f"{where}: the second start knows {again}, the first knew {known}")
    if simulated.open_handles:
        raise Violation(f"{where}: left open {simulated.open_handles}")
