"""The sessions' journal on disks that fail: what memory knows is what counts, and what is lost is told."""

from __future__ import annotations

import pytest

from gateway.ingest.mqtt import session_journal
from gateway.ingest.mqtt.packets5 import NEVER_EXPIRES
from gateway.ingest.mqtt.sessions import SessionRegistry
from headwater.disk import ForgetfulDisk

PATH = "/data/node/sessions"
BOTH = (PATH, PATH + ".copy")
BROKEN = OSError(5, "Input/output error")


def registry(disk: ForgetfulDisk) -> SessionRegistry:
    return SessionRegistry(disk, PATH, tail={}, sessions_max=20, horizon_ms=5_000)


def opened(sessions: SessionRegistry, client: str) -> tuple[bool, bool]:
    """Whether its session was present, and whether the journal must be synced first."""
    return sessions.open(client, clean=False, ends={})[1:]


def known(*clients: str) -> ForgetfulDisk:
    disk = ForgetfulDisk()
    sessions = registry(disk)
    for client in clients:
        opened(sessions, client)
    sessions.prepare_sync()()
    return disk


@pytest.mark.parametrize("bad", BOTH)
def test_a_bad_sector_under_either_file_forgets_nothing(bad: str) -> None:
    disk = known("a", "b")
    disk.bad_files.add(bad)
    again = registry(disk)
    assert opened(again, "a") == opened(again, "b") == (True, False)
    assert not again.damaged
    disk.bad_files.add(next(path for path in BOTH if path != bad))
    assert "a" in registry(disk)  # that start wrote the other one anew


def test_different_damage_in_both_files_forgets_nothing() -> None:
    disk = known("a", "b")
    for path, client in zip(BOTH, (b'"a"', b'"b"'), strict=True):
        disk.replace_file(path, disk.read_file(path).replace(client, b'"c"'))
    again = registry(disk)
    assert [client in again for client in "abc"] == [True, True, False]
    assert not again.damaged


def test_the_same_damage_in_both_files_is_told() -> None:
    disk = known("a", "b")
    for path in BOTH:
        disk.replace_file(path, disk.read_file(path).replace(b'"a"', b'"c"'))
    again = registry(disk)
    assert [client in again for client in "abc"] == [False, True, False]
    assert "1 change is lost" in again.damaged
    assert not registry(disk).damaged  # told once: it was written anew


@pytest.mark.parametrize("left", [b"", b"x" * 50])
def test_both_files_without_a_beginning_are_told(left: bytes) -> None:
    disk = known("a")
    disk.bad_files.add(BOTH[0])
    disk.replace_file(BOTH[1], left)
    assert "its beginning is lost" in registry(disk).damaged


def test_a_first_start_has_nothing_to_tell() -> None:
    disk = ForgetfulDisk()
    assert not registry(disk).damaged
    assert not registry(disk).damaged


def test_a_failed_write_is_made_good_by_the_next_sync() -> None:
    disk = known("a")
    sessions = registry(disk)
    disk.fail_next["append"] = BROKEN
    assert opened(sessions, "b") == (False, True)
    behind = [sessions.behind]
    assert opened(sessions, "c") == (False, True)
    sessions.prepare_sync()()
    assert [*behind, sessions.behind] == [True, False]
    disk.power_cut()
    assert [client in registry(disk) for client in "abc"] == [True, True, True]


def test_a_file_whose_sync_failed_is_never_trusted_again() -> None:
    disk = known()
    sessions = registry(disk)
    opened(sessions, "a")
    disk.fail_next["sync"] = BROKEN
    with pytest.raises(OSError, match="Input/output"):
        sessions.prepare_sync()()
    assert opened(sessions, "a") == (True, True)  # nothing is promised: a sync of the same file would lie
    syncs = disk.syncs
    sessions.prepare_sync()()
    assert disk.syncs == syncs
    disk.power_cut()
    assert opened(registry(disk), "a") == (True, False)


def test_as_long_as_the_disk_fails_nothing_is_promised_and_nothing_forgotten() -> None:
    disk = known("a")
    sessions = registry(disk)
    disk.fail_next["append"] = BROKEN
    opened(sessions, "b")
    for _ in range(3):
        disk.fail_next["replace_file"] = BROKEN
        with pytest.raises(OSError, match="Input/output"):
            sessions.prepare_sync()()
        assert opened(sessions, "b") == (True, True)
        assert opened(sessions, "a") == (True, False)
    sessions.prepare_sync()()
    assert opened(sessions, "b") == (True, False)


def test_a_start_on_a_disk_that_takes_nothing_knows_the_sessions_and_promises_none() -> None:
    disk = known("a")
    disk.fail_next["replace_file"] = BROKEN
    sessions = registry(disk)
    assert opened(sessions, "a") == (True, True)
    sessions.prepare_sync()()
    assert opened(sessions, "a") == (True, False)


@pytest.mark.parametrize("what", ["all is well", "too much comes", "it cannot be written"])
def test_what_comes_while_the_journal_is_written_anew_follows_in_it(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be written anew at each sync, for as long as clients come and go all the time."""
    monkeypatch.setattr(session_journal, "_SINCE_MAX", 2 if what == "too much comes" else 3)
    disk = known()
    sessions = registry(disk)
    disk.fail_next["append"] = BROKEN
    opened(sessions, "a")
    replacing = sessions.prepare_sync()
    assert [opened(sessions, client) for client in "bcd"] == [(False, True)] * 3
    if what == "it cannot be written":
        disk.fail_next["append"] = BROKEN
    replacing()
    assert opened(sessions, "a") == (True, False)
    assert opened(sessions, "b") == (True, True)
    assert sessions.behind is (what != "all is well")
    syncs = disk.syncs
    sessions.prepare_sync()()
    assert disk.syncs - syncs == (2 if what == "all is well" else 0)
    disk.power_cut()
    again = registry(disk)
    assert [opened(again, client) for client in "abcd"] == [(True, False)] * 4
    assert not again.damaged


def test_what_comes_while_the_journal_is_written_anew_in_vain_is_in_the_next_one() -> None:
    disk = known()
    sessions = registry(disk)
    disk.fail_next["append"] = BROKEN
    opened(sessions, "a")
    replacing = sessions.prepare_sync()
    opened(sessions, "b")
    disk.fail_next["replace_file"] = BROKEN
    with pytest.raises(OSError, match="Input/output"):
        replacing()
    assert opened(sessions, "c") == (False, True)
    assert sessions.behind
    sessions.prepare_sync()()
    disk.power_cut()
    again = registry(disk)
    assert [opened(again, client) for client in "abc"] == [(True, False)] * 3


def test_what_comes_while_a_long_journal_is_shortened_is_not_lost_with_the_old_files() -> None:
    disk = known()
    sessions = registry(disk)
    for _ in range(41):
        opened(sessions, "a")
        sessions.open("a", clean=True, ends={})
    shortening = sessions.prepare_sync()
    assert opened(sessions, "b") == (False, True)
    shortening()
    assert opened(sessions, "b") == (True, True)
    sessions.prepare_sync()()
    assert len(disk.read_file(PATH).splitlines()) < 10
    assert "b" in registry(disk)


def test_a_long_journal_that_could_not_be_shortened_is_written_anew() -> None:
    disk = known()
    sessions = registry(disk)
    for _ in range(41):
        opened(sessions, "a")
        sessions.open("a", clean=True, ends={})
    disk.fail_next["replace_file"] = BROKEN
    with pytest.raises(OSError, match="Input/output"):
        sessions.prepare_sync()()
    assert sessions.behind  # nobody knows which of the two files is the new one


def test_a_file_of_before_the_last_rewriting_counts_no_more_and_neither_does_its_damage() -> None:
    disk = known("a")
    sessions = registry(disk)
    sessions.open("a", clean=True, ends={})
    sessions.prepare_sync()()
    stale = disk.read_file(PATH).replace(b'"-"', b'"x"')
    registry(disk)
    disk.replace_file(PATH, stale)  # as a power cut leaves it between the two files
    again = registry(disk)
    assert "a" not in again
    assert not again.damaged


@pytest.mark.parametrize("end", ['"a"', '"b"'])
def test_a_new_file_that_is_damaged_does_not_make_the_one_it_was_to_replace_worthless(end: str) -> None:
    disk = known("a", "b")
    before = disk.read_file(PATH)
    registry(disk)
    data = disk.read_file(BOTH[1])
    disk.replace_file(BOTH[1], data[: data.rindex(end.encode())])
    disk.replace_file(PATH, before)  # as a power cut leaves it between the two files
    again = registry(disk)
    assert [client in again for client in "ab"] == [True, True]
    assert "lost" in again.damaged


def test_a_state_that_is_cut_short_in_both_files_is_told() -> None:
    disk = known("a", "b")
    registry(disk)
    for path in BOTH:
        data = disk.read_file(path)
        disk.replace_file(path, data[: data.rindex(b"\n", 0, -1) + 1])
    again = registry(disk)
    assert len(again) == 1
    assert "1 change is lost" in again.damaged


def test_a_client_that_comes_back_before_the_sync_waits_for_it_too() -> None:
    sessions = registry(ForgetfulDisk())
    assert opened(sessions, "a") == (False, True)
    sync = sessions.prepare_sync()
    assert opened(sessions, "a") == (True, True)
    sync()
    assert opened(sessions, "a") == (True, False)


def test_that_a_session_is_gone_is_told_to_nobody_before_it_is_on_disk() -> None:
    sessions = registry(known("a", "b"))
    session, _, _ = sessions.open("b", clean=False, ends={})
    sessions.closed(session, expiry_s=0, ends={}, now_ms=0.0)
    for _ in range(2):  # the first connection may have ended while it waited
        assert [sessions.open(client, clean=True, ends={})[1:] for client in "ab"] == [(False, True)] * 2
    assert sessions.open("c", clean=True, ends={})[1:] == (False, False)
    sessions.prepare_sync()()
    assert [sessions.open(client, clean=True, ends={})[1:] for client in "ab"] == [(False, False)] * 2


def test_a_journal_of_before_there_were_numbers_is_read() -> None:
    disk = ForgetfulDisk()
    disk.replace_file(PATH, b'["-","b",{"readings":3}]\n["+","a",{"expiry_s":5,"user":"u"}]\n["+","c"]\n["+","torn')
    for _ in range(2):
        sessions = registry(disk)
        assert [client in sessions for client in "abc"] == [True, False, True]
        assert sessions.open("a", clean=False, ends={}, expiry_s=5, user="u")[1:] == (True, False)
        assert sessions.open("c", clean=False, ends={})[0].expiry_s == NEVER_EXPIRES
        assert not sessions.damaged
