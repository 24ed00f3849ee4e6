"""Sessions and their journal: what survives a crash, and what must not come back."""

from __future__ import annotations

from gateway.ingest.mqtt.packets5 import NEVER_EXPIRES
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
    sessions.prepare_sync()()
    assert opened(sessions, "b") == (False, True)
    disk.power_cut()
    again = registry(disk)
    assert opened(again, "a") == (True, False)
    assert opened(again, "b") == (False, True)


def test_a_torn_last_line_is_passed_over() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    opened(sessions, "a")
    sessions.prepare_sync()()
    opened(sessions, "bbbbbbbb")
    disk.power_cut(keep_tail_bytes=6)
    assert len(registry(disk)) == 1


def test_a_clean_session_ends_the_old_one_for_good() -> None:
    disk = ForgetfulDisk()
    old = {"a": {1: Use(1, "readings", 99, 0)}}
    sessions = registry(disk, tail=old)
    assert opened(sessions, "a", clean=True) == (False, True)  # not before its end is on disk
    sessions.prepare_sync()()
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
        sessions.prepare_sync()()
    assert len(disk.read_file(PATH).splitlines()) < 20
    assert len(registry(disk)) == 1


def expiring(sessions: SessionRegistry, client: str, expiry_s: int, *, now_ms: float = 0.0) -> tuple[bool, bool]:
    session, present, unsynced = sessions.open(client, clean=False, ends=ENDS, expiry_s=expiry_s, now_ms=now_ms)
    sessions.prepare_sync()()
    session.connected = True
    sessions.closed(session, expiry_s=expiry_s, ends=ENDS, now_ms=now_ms)
    return present, unsynced


def test_a_session_lasts_as_long_as_was_asked_after_its_connection() -> None:
    sessions = registry(ForgetfulDisk())
    assert expiring(sessions, "a", 10, now_ms=0) == (False, True)
    assert expiring(sessions, "a", 10, now_ms=9_999) == (True, False)
    assert expiring(sessions, "a", 10, now_ms=19_999) == (False, True)
    sessions.expire(29_998, ENDS)
    assert "a" in sessions
    sessions.expire(29_999, ENDS)
    assert "a" not in sessions


def test_no_session_ends_while_its_client_is_there() -> None:
    sessions = registry(ForgetfulDisk())
    session, _, _ = sessions.open("a", clean=False, ends=ENDS, expiry_s=1, now_ms=0)
    session.connected = True
    sessions.expire(1_000_000, ENDS)
    assert "a" in sessions
    sessions.closed(session, expiry_s=1, ends=ENDS, now_ms=1_000_000)
    sessions.expire(1_000_999, ENDS)
    assert "a" in sessions


def test_a_sessions_end_survives_a_power_cut_and_counts_from_the_start() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    expiring(sessions, "never", NEVER_EXPIRES)
    expiring(sessions, "later", 10)
    sessions.prepare_sync()()
    disk.power_cut()
    again = SessionRegistry(disk, PATH, tail={}, sessions_max=3, horizon_ms=5_000, now_ms=500_000)
    again.expire(509_999, ENDS)
    assert len(again) == 2
    again.expire(510_000, ENDS)
    assert ("never" in again, "later" in again) == (True, False)
    assert len(registry(disk)) == 1


def test_a_changed_end_is_on_disk_before_it_is_promised() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    expiring(sessions, "a", 10)
    sessions.prepare_sync()()
    assert expiring(sessions, "a", 20) == (True, True)
    sessions.prepare_sync()()
    disk.power_cut()
    again = registry(disk)
    again.expire(19_999, ENDS)
    assert "a" in again


def test_a_goodbye_may_end_or_shorten_a_session() -> None:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    for client, expiry_s in (("ends", 0), ("shorter", 5)):
        session, _, _ = sessions.open(client, clean=False, ends=ENDS, expiry_s=100, now_ms=0)
        sessions.closed(session, expiry_s=expiry_s, ends=ENDS, now_ms=0)
    assert ("ends" in sessions, "shorter" in sessions) == (False, True)
    sessions.prepare_sync()()
    again = registry(disk)
    again.expire(5_000, ENDS)
    assert len(again) == 0


def test_a_clean_start_with_an_end_makes_a_new_session() -> None:
    sessions = registry(ForgetfulDisk())
    opened(sessions, "a")
    session, present, unsynced = sessions.open("a", clean=True, ends=ENDS, expiry_s=60, now_ms=0)
    assert (session.persistent, present, unsynced) == (True, False, True)


def test_a_connection_that_was_replaced_does_not_end_its_successors_session() -> None:
    sessions = registry(ForgetfulDisk())
    old, _, _ = sessions.open("a", clean=True, ends=ENDS, expiry_s=60, now_ms=0)
    sessions.open("a", clean=True, ends=ENDS, expiry_s=60, now_ms=0)
    sessions.closed(old, expiry_s=0, ends=ENDS, now_ms=0)
    assert "a" in sessions
