"""The pipeline and time: what a device may claim, what comes late, and the marks that windows wait for."""

from __future__ import annotations

import errno

import msgspec

from devices.profile_text import parse_profile
from gateway.ingest.messages import Messages
from tests.support.ingest import TURBINE, Edge, plain, turbine


def test_copies_that_a_broker_kept_are_flagged_and_never_new() -> None:
    edge = Edge(profiles=[TURBINE])
    source = edge.attach("c1")
    now_ms = edge.clock.wall_ms()
    dated = turbine(edge, 1, ts=now_ms - 60_000)
    copies = Messages([dated, turbine(edge, 2, ts=now_ms + 3_600_000), plain(7, packet_id=3)])
    copies.copies = True
    done: list[bool] = []
    edge.ingest.take(source, copies, done.append)
    edge.take(source, turbine(edge, 3, packet_id=4))
    edge.sync()
    kept, live = edge.readings()
    assert (kept.timestamp, kept.value["seq"], kept.headers["hw-q"]) == (now_ms - 60_000, 1, b"retained")
    assert (live.timestamp, live.value["seq"], "hw-q" in live.headers) == (now_ms, 3, False)
    assert done == [True]  # the others are settled too: the broker need not send them again
    status = edge.ingest.status()
    assert (status["stored"], status["undated_copies"], status["dead_letters"]) == (2, 2, 0)
    edge.ingest.take(source, copies, done.append)  # the next connection brings them again
    edge.sync()
    assert (len(edge.readings()), edge.ingest.status()["repeats_natural_key"]) == (2, 1)


def test_no_window_waits_for_a_copy_that_a_broker_kept() -> None:
    edge = Edge(profiles=[TURBINE])
    source = edge.attach("c1")
    copies = Messages([turbine(edge, 1, ts=edge.clock.wall_ms() - 60_000)])
    copies.copies = True
    edge.ingest.take(source, copies, lambda stored: None)
    edge.sync()
    assert source.mark.newest_ms is None
    assert edge.readings()[0].headers["hw-q"] == b"retained"
    edge.take(source, turbine(edge, 2))
    edge.sync()
    assert source.mark.newest_ms == edge.clock.wall_ms()


def test_the_device_may_claim_its_time_within_reason() -> None:
    edge = Edge([TURBINE])
    now = edge.clock.wall_ms()
    source = edge.attach("c1")
    claims = [now - 5_000, now + 3_600_000, now - 40 * 86_400_000]
    edge.take(source, *[turbine(edge, seq, ts=claim) for seq, claim in enumerate(claims)])
    edge.sync()
    records = edge.readings()
    assert [record.timestamp for record in records] == [now - 5_000, now, now]
    assert [record.headers.get("hw-t") for record in records] == [None, b"%d" % claims[1], b"%d" % claims[2]]
    assert records[0].value == {"seq": 0, "power": 812.5}
    status = edge.ingest.status()
    assert status["untrusted_times"] == 2
    assert "clock is off" in status["sources"][0]["note"]


def test_repeats_and_clocks_that_are_off_count_for_their_own_source() -> None:
    edge = Edge([TURBINE])
    sources = [edge.attach(f"c{n}") for n in range(4)]
    now = edge.clock.wall_ms()
    edge.take(sources[0], turbine(edge, 1, packet_id=1), turbine(edge, 2, packet_id=2))
    edge.take(sources[1], turbine(edge, 2, packet_id=1), turbine(edge, 3, packet_id=2), turbine(edge, 1, packet_id=3))
    edge.take(sources[2], turbine(edge, 3, packet_id=1))
    edge.take(sources[3], turbine(edge, 4, packet_id=1), turbine(edge, 5, packet_id=2))
    edge.sync()
    assert [record.value["seq"] for record in edge.readings()] == [1, 2, 3, 4, 5]
    assert [source.readings for source in sources] == [2, 1, 0, 2]
    edge.take(sources[0], turbine(edge, 6, ts=now + 10))
    edge.take(sources[1], turbine(edge, 7, ts=now + 3_600_000), turbine(edge, 8, ts=now + 20))
    edge.take(sources[2], turbine(edge, 9, ts=now + 30))
    edge.sync()
    assert [record.timestamp - now for record in edge.readings()][5:] == [10, 0, 20, 30]
    assert [source.mark.newest_ms for source in sources[:3]] == [now + 10, now + 20, now + 30]
    assert edge.ingest.status()["repeats_natural_key"] == 3


def test_marks_ride_on_the_first_group_and_on_health_when_nothing_comes() -> None:
    edge = Edge()
    source = edge.attach("c1")
    edge.take(source, plain(1, 1))
    edge.sync()
    edge.clock.advance(1_000)
    edge.take(source, plain(2, 2), plain(3, 3))
    edge.sync()
    edge.ingest.tick()
    edge.clock.advance(1_100)
    edge.ingest.tick()
    edge.clock.advance(100)
    edge.ingest.tick()
    edge.ingest.tick()
    edge.sync()
    records = edge.readings()
    assert [(record.key, "hw-mark" in record.headers) for record in records] == [
        ("edge/pump", False),
        ("edge/pump", False),
        ("edge/pump", True),
        ("edge/$gateway", True),
    ]
    assert records[-1].value == {"temperature": 41.5}
    marks = [msgspec.json.decode(record.headers["hw-mark"]) for record in records[2:]]
    assert [mark["n"] for mark in marks] == [1, 2]
    assert marks[0]["src"] == {"mqtt:c1": ["connected", edge.clock.wall_ms() - 1_200 - 2_000]}


def test_marks_go_on_after_a_power_cut() -> None:
    edge = Edge([TURBINE])
    edge.clock.advance(5_000)
    edge.take(edge.attach("c1"), turbine(edge, 1))
    edge.sync()
    before = msgspec.json.decode(edge.readings()[-1].headers["hw-mark"])
    edge.power_cut()
    edge.clock.advance(1_500)
    edge.ingest.tick()
    edge.sync()
    after = msgspec.json.decode(edge.readings()[-1].headers["hw-mark"])
    assert (after["n"], after["live"]) == (before["n"] + 1, before["live"])


def test_a_reading_below_t_is_kept_and_counted() -> None:
    edge = Edge([TURBINE])
    edge.clock.advance(5_000)
    source = edge.attach("c1")
    edge.take(source, turbine(edge, 1))
    edge.sync()
    edge.take(
        source, turbine(edge, 2, ts=edge.clock.wall_ms() - 2_001), turbine(edge, 3, ts=edge.clock.wall_ms() - 2_000)
    )
    edge.sync()
    assert len(edge.readings()) == 3
    assert edge.ingest.status()["late"] == 1


def test_t_goes_back_with_what_the_disk_lost() -> None:
    edge = Edge([TURBINE])
    source = edge.attach("c1")
    edge.take(source, turbine(edge, 1))
    edge.sync()
    edge.clock.advance(60_000)
    edge.take(source, turbine(edge, 2))
    edge.loop.step()  # its mark says T = now − 2 s, and is lost
    edge.disk.fail_next["sync"] = OSError(errno.EIO, "Input/output error")
    edge.store.flush_now()
    edge.clock.advance(1_000)
    for seq, age_ms in ((2, 30_000), (3, 29_000)):
        edge.take(source, turbine(edge, seq, ts=edge.clock.wall_ms() - age_ms))
        edge.sync()
    assert edge.ingest.status()["late"] == 0


def test_senml_times_relative_to_now_count_from_each_messages_arrival() -> None:
    edge = Edge([parse_profile('name = "s"\nformat = "senml+json"\ntopics = ["s"]\n', "s.toml")])
    began_ms = edge.clock.wall_ms()
    pack = b'[{"n":"a","v":1,"t":-60},{"n":"a","v":2}]'
    for source in (edge.attach("a"), edge.attach("b")):
        edge.take(source, ("s", pack, 0, 0))
        edge.clock.advance(5_000)
    edge.sync()
    assert [(one.timestamp - began_ms, one.value) for one in edge.readings()] == [
        (-60_000, {"a": 1}),
        (0, {"a": 2}),
        (-55_000, {"a": 1}),
        (5_000, {"a": 2}),
    ]
