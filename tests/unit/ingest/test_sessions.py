"""Sessions and their journal: what survives a crash, and what must not come back."""

from __future__ import annotations

from gateway.ingest.mqtt.sessions import SessionRegistry, Tail, Use
from headwater.disk import ForgetfulDisk

PATH = "/data/node/sessions"
ENDS = {"readings": 100, "deadletter": 10}


def registry(disk: ForgetfulDisk, *, tail: Tail | None = None, sessions_max: int = 3) -> SessionRegistry:
    return SessionRegistry(disk, PATH, tail=tail or {}, sessions_max=sessions_max, horizon_ms=5_000)


def opened(sessions: SessionRegistry, client: str, *, clean: bool = False) -> tuple[bool, bool]:
    session, present, unsynced = sessions.open(client, clean=clean, ends=ENDS)
    assert (session.memory is None) == clean
    return present, unsynced


def test_a_synced_session_survives_a_power_cut_though_it_never_published() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    assert opened(sessions, "a") == (False, True)
    sessions.sync()
    assert opened(sessions, "b") == (False, True)
    disk.power_cut()
    again = registry(disk)
    assert opened(again, "a") == (True, False)
    assert opened(again, "b") == (False, True)


def test_a_torn_last_line_is_passed_over() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    opened(sessions, "a")
    sessions.sync()
    opened(sessions, "bbbbbbbb")
    disk.power_cut(keep_tail_bytes=6)
    assert len(registry(disk)) == 1


def test_a_clean_session_ends_the_old_one_for_good() -> None:
    disk = ForgetfulDisk()
    old = {"a": {1: Use(1, "readings", 99, 0)}}
    sessions = registry(disk, tail=old)
    assert opened(sessions, "a", clean=True) == (False, False)
    sessions.sync()
    assert "a" not in registry(disk, tail=old)  # the log's tail still holds its old messages
    assert "a" not in registry(disk, tail=old)  # and does so at the start after that
    assert "a" in registry(disk, tail={"a": {2: Use(1, "readings", 100, 0)}})


def test_the_tail_knows_sessions_and_their_latest_uses() -> None:
    tail = {
        "a": {1: Use(11, "readings", 5, 1_000), 2: Use(22, "readings", 50, 20_000), 3: Use(33, "deadletter", 1, 14_000)}
    }
    session, present, _ = registry(ForgetfulDisk(), tail=tail).open("a", clean=False, ends=ENDS)
    assert present
    assert session.memory is not None
    assert session.memory.is_repeat(2, 22)
    assert session.memory.is_repeat(3, 33)
    assert not session.memory.is_repeat(1, 11)  # settled long before the client was last heard


def test_the_session_unused_longest_makes_room_but_never_a_connected_one() -> None:
    sessions = registry(ForgetfulDisk())
    for client in ("a", "b", "c"):
        session, _, _ = sessions.open(client, clean=False, ends=ENDS)
        session.connected = client == "a"
    opened(sessions, "d")
    assert [client in sessions for client in "abcd"] == [True, False, True, True]


def test_the_journal_does_not_grow_without_bound() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    for _ in range(100):
        opened(sessions, "a", clean=True)
        opened(sessions, "a")
    assert len(disk.read_file(PATH).splitlines()) < 20
    assert len(registry(disk)) == 1
