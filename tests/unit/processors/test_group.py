"""The group's decisions: what a member says over any number of owners equals what one processor says."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.consume.fetching import LostPlaceError
from gateway.consume.reader import Block
from headwater.errors import UserError
from processors.group.changelog import CHUNK_BYTES, ChangelogError, ChangelogView, Snapshot, encode_snapshot
from processors.group.core import Member, _part
from processors.group.driver import GroupProcessor
from processors.group.settings import GroupSettings
from processors.processor import Output, PartitionProcessor
from processors.rules.model import Rules
from tests.support import river
from tests.support.river import Row

SOURCE = ("readings", 0)
RULES = Rules(windows=(river.window(), river.window(name="long", size_s=30)), alerts=(river.alert(),))


def story() -> Block:
    rows = []
    for second in range(120):
        hot = 90.0 if 20 <= second % 70 < 50 else 60.0
        rows.append(Row("a", second * 1000, {"t": hot + second / 7}))
        rows.append(Row("b", second * 1000 + 500, {"t": 50.0, "x": second}, river.mark("n1", second * 1000 - 2000)))
        if second % 40 == 39:
            rows.append(Row("b", second * 1000 - 25_000, {"t": 51.5}))
    return river.block(rows)


WHOLE = story()
END = len(WHOLE.offsets)


def undisturbed(rules: Rules = RULES) -> list[Output]:
    return PartitionProcessor(rules, *SOURCE, place="central").process(WHOLE)


class Cluster:
    """What is committed: outputs, the group's offset, the changelog."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.offset: int | None = None
        self.changelog = ChangelogView()

    def member(self, rules: Rules = RULES, partitions: int = 1, start: int = 0) -> Member:
        member = Member(rules, place="central")
        snapshot = self.changelog.snapshot("readings/0")
        self.begun = member.begin(SOURCE, snapshot, partitions=partitions, committed=self.offset, start=start)
        return member

    def commit(self, member: Member, outputs: list[Output], *, save: bool) -> None:
        snapshots = member.snapshots({"readings": 1}, None if save else member.unsaved)
        for key, value in snapshots.get(SOURCE, ()):
            self.changelog.take(key, value)
        self.offset = member.positions().get(SOURCE, self.offset)
        self.outputs += outputs
        member.committed()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_lives_and_deaths_change_no_output(seed: int) -> None:
    random, cluster = Random(seed), Cluster()
    while cluster.offset is None or cluster.offset < END:
        member = cluster.member()
        at, pending = cluster.begun.offset, []
        for _ in range(random.randrange(1, 30)):
            end = min(END, at + random.randrange(1, 25))
            pending += member.process(_part(WHOLE, at, end))
            at = end
            if random.random() < 0.4:
                cluster.commit(member, pending, save=random.random() < 0.3)
                pending = []
            if at == END:
                cluster.commit(member, pending, save=False)
                break
        # here it dies: what is pending is aborted
    assert [output.record for output in cluster.outputs] == [output.record for output in undisturbed()]


def test_the_first_positions_bring_a_snapshot_with_them() -> None:
    cluster = Cluster()
    member = cluster.member()
    cluster.commit(member, member.process(_part(WHOLE, 0, 50)), save=False)
    snapshot = cluster.changelog.snapshot("readings/0")
    assert snapshot is not None
    assert snapshot.offset == cluster.offset == 50


def test_a_rule_that_is_new_says_also_what_lies_between_snapshot_and_commit() -> None:
    cluster = Cluster()
    before = Rules(windows=RULES.windows[:1], alerts=())
    member = cluster.member(before)
    cluster.commit(member, member.process(_part(WHOLE, 0, 50)), save=True)
    cluster.commit(member, member.process(_part(WHOLE, 50, END)), save=False)
    member = cluster.member(Rules(windows=RULES.windows, alerts=()))
    assert cluster.begun.offset == 50
    made = member.process(_part(WHOLE, 50, END))
    assert {output.version.partition("@")[0] for output in made} == {"long"}


def test_another_number_of_partitions_is_refused() -> None:
    cluster = Cluster()
    member = cluster.member()
    cluster.commit(member, member.process(WHOLE), save=True)
    with pytest.raises(UserError, match="readings has 2 partitions, and this group's state was made with 1") as caught:
        cluster.member(partitions=2)
    assert "--rebuild" in caught.value.hint


def test_a_log_that_ends_before_what_was_committed_is_refused_also_where_the_snapshot_lies_below() -> None:
    cluster = Cluster()
    member = cluster.member()
    cluster.commit(member, member.process(_part(WHOLE, 0, 50)), save=True)
    cluster.commit(member, member.process(_part(WHOLE, 50, 80)), save=False)
    snapshot = cluster.changelog.snapshot("readings/0")
    fresh = Member(RULES, place="central")
    with pytest.raises(UserError, match="readings/0 ends at offset 60, and this group has read up to 80") as caught:
        fresh.begin(SOURCE, snapshot, partitions=1, committed=80, start=0, end=60)
    assert "--rebuild" in caught.value.hint
    assert fresh.begin(SOURCE, snapshot, partitions=1, committed=80, start=0, end=80).offset == 50


def test_what_expired_unread_is_counted() -> None:
    cluster = Cluster()
    member = cluster.member()
    cluster.commit(member, member.process(_part(WHOLE, 0, 50)), save=True)
    cluster.member(start=80)
    assert (cluster.begun.offset, cluster.begun.expired) == (80, 30)


@pytest.mark.parametrize(("end", "lost"), [(49, True), (50, False), (70, False)])
def test_a_log_that_was_cut_stops_a_member_only_below_what_is_committed(end: int, lost: bool) -> None:
    cluster = Cluster()
    driver = GroupProcessor(GroupSettings(name="g", bootstrap_servers="127.0.0.1:1", rules=()), RULES, instance="a")
    driver._member = member = cluster.member()
    cluster.commit(member, member.process(_part(WHOLE, 0, 50)), save=True)
    member.process(_part(WHOLE, 50, 80))
    cut = LostPlaceError(SOURCE, 100, end)  # fetched up to 100, processed up to 80
    if lost:
        with pytest.raises(UserError, match="readings/0 ends at offset 49, and this group has read up to 50") as caught:
            driver._check_place(cut)
        assert "--rebuild" in caught.value.hint
    else:
        driver._check_place(cut)  # the caller begins again from what is committed
        assert cluster.member().process(_part(WHOLE, 50, END)) != []


def test_a_snapshot_goes_with_its_position_even_where_that_is_committed() -> None:
    cluster = Cluster()
    member = cluster.member()
    cluster.commit(member, member.process(WHOLE), save=True)
    assert member.positions() == {}
    assert member.positions({SOURCE}) == {SOURCE: WHOLE.next_offset}


def test_records_of_a_partition_that_is_gone_say_nothing() -> None:
    cluster = Cluster()
    member = cluster.member()
    member.end(SOURCE)
    assert member.process(WHOLE) == []
    assert member.positions() == {}


def test_a_long_snapshot_is_cut_and_its_rest_removed_when_it_shrinks() -> None:
    view = ChangelogView()
    noise = Random(1).randbytes(2 * CHUNK_BYTES + 17)
    for key, value in encode_snapshot("readings/0", 7, 4, {"noise": noise}):
        view.take(key, value)
    snapshot = view.snapshot("readings/0")
    assert snapshot == Snapshot(7, 4, {"noise": noise}, 3)
    shorter = encode_snapshot("readings/0", 9, 4, {"noise": b""}, chunks_before=3)
    assert [key for key, value in shorter if value is None] == [b"readings/0/1", b"readings/0/2"]
    for key, value in shorter:
        view.take(key, value)
    assert view.snapshot("readings/0") == Snapshot(9, 4, {"noise": b""}, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"readings/0/0", b"other"), (b"readings/0/0", None), (b"readings/0", b"{}"), (b"readings/0", b"\xff")],
)
def test_a_damaged_snapshot_is_told(key: bytes, value: bytes | None) -> None:
    view = ChangelogView()
    for good_key, good in encode_snapshot("readings/0", 7, 4, {"a": 1}):
        view.take(good_key, good)
    view.take(key, value)
    with pytest.raises(ChangelogError):
        view.snapshot("readings/0")


def test_a_snapshot_of_another_format_is_told() -> None:
    view = ChangelogView()
    view.take(b"readings/0", b'{"v":2,"offset":1,"partitions":1,"chunks":0,"bytes":0,"crc":0}')
    with pytest.raises(ChangelogError, match="format 2"):
        view.snapshot("readings/0")


@pytest.mark.parametrize(
    ("took_s", "behind", "pause_s", "of_slow_s"),
    [(0.005, True, 0.1, 10), (0.04, True, 0.36, 10), (0.04, False, 0.1, 10), (5, True, 1.0, 15), (5, False, 0.1, 10)],
)
def test_commits_take_a_tenth_of_the_time_while_there_is_a_lot_to_catch_up_with(
    *, took_s: float, behind: bool, pause_s: float, of_slow_s: float
) -> None:
    usual = GroupSettings(name="farm", bootstrap_servers="kafka", rules=())
    assert usual.commit_pause_s(took_s, behind=behind) == pytest.approx(pause_s)
    slow = GroupSettings(name="farm", bootstrap_servers="kafka", rules=(), commit_every_ms=10_000)
    assert slow.commit_pause_s(took_s, behind=behind) == of_slow_s  # well before its transaction times out
