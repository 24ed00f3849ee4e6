"""Sparkplug B: a session written by Eclipse Tahu, its numbers, aliases, times, births and deaths, and hostile bytes."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.decoders.registry import decoder_for
from devices.decoders.sparkplug import Rebirth, rebirths_wanted
from devices.decoders.sparkplug_payload import rebirth_request
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.protobuf import field
from devices.reading import Reading, Scalar, Undecodable

decode_group = decoder_for("sparkplug-b")
T = 1735689600000
# written by Eclipse Tahu's Python library (core/sparkplug_b.py): one session of node n with device d, in this order
TAHU = {
    "NDEATH": bytes.fromhex("12120a0562645365711880f8a5f9c13220045800"),
    "NBIRTH": bytes.fromhex(
        "0880f8a5f9c13212120a0562645365711880f8a5f9c1322004580012210a144e6f646520436f6e74726f6c2f526562697274"
        "681880f8a5f9c132200b7000121e0a06757074696d6510011880f8a5f9c1322008588580808080808080800112190a046e61"
        "6d6510021880f8a5f9c132200c7a06476572c3a4741800"
    ),
    "DBIRTH": bytes.fromhex(
        "0881f8a5f9c13212120a026938100a1881f8a5f9c132200150ff0112140a03693136100b1881f8a5f9c132200250d4fd0312"
        "160a03693332100c1881f8a5f9c13220035090ddfbff0f121b0a03693634100d1881f8a5f9c1322004588080fec0ec908ff7"
        "ff0112120a027538100e1881f8a5f9c132200550ff0112160a03753332100f1881f8a5f9c13220075080d0acf30e121b0a05"
        "706f77657210101881f8a5f9c132200a69000000000062894012160a0474656d7010111881f8a5f9c1322009650000ac4112"
        "110a026f6e10121881f8a5f9c132200b700112180a047768656e10131881f8a5f9c132200d5880f8a5f9c13212150a047465"
        "787410141881f8a5f9c132200e7a026f6b12150a0372617710151881f8a5f9c1322011820102010212130a04676f6e651017"
        "1881f8a5f9c1322009380112220a057461626c6510181881f8a5f9c13220108a010d0801120161180122040a0208071801"
    ),
    "DDATA": bytes.fromhex(
        "08d087a6f9c1321214101018e8ffa5f9c132200a690000000000248c401210101118e8ffa5f9c1322009650000b241121410"
        "1018d087a6f9c132200a6900000000002c8c401210100a18f8d0a5f9c1322001280150fe011802"
    ),
    "NDATA": bytes.fromhex("08b88fa6f9c132120d100118b88fa6f9c132200858061803"),
    "DDATA after a gap": bytes.fromhex("08a097a6f9c13212190a05706f77657218a097a6f9c132200a69000000000000f03f1809"),
    "DDEATH": bytes.fromhex("08889fa6f9c132180a"),
    "NCMD": bytes.fromhex("08f0a6a6f9c13212210a144e6f646520436f6e74726f6c2f5265626972746818f0a6a6f9c132200b7001"),
}
TOPICS = {name: f"spBv1.0/g/{name.split()[0]}/n{'/d' if name[0] == 'D' else ''}" for name in TAHU}
_names = count()


def fresh(**keys: object) -> Profile:
    """A profile of its own: what the decoder remembers is kept per profile."""
    return Profile(name=f"sp{next(_names)}", format="sparkplug-b", **keys)  # type: ignore[arg-type]


def say(profile: Profile, *names: str) -> list[list[Reading] | Undecodable]:
    return decode_group(profile, [(TOPICS[name], TAHU[name]) for name in names])


def reason(result: list[Reading] | Undecodable) -> str:
    assert isinstance(result, Undecodable), result
    assert result.decoder == "sparkplug-b"
    return result.reason


BIRTH: dict[str, Scalar] = {
    "i8": -1,
    "i16": -300,
    "i32": -70000,
    "i64": -5 * 10**15,
    "u8": 255,
    "u32": 4000000000,
    "power": 812.25,
    "temp": 21.5,
    "on": True,
    "when": T,
    "text": "ok",
    "gone": None,
}


def test_a_session_of_tahu() -> None:
    profile = fresh()
    born, device_born, data, node_data = say(profile, "NBIRTH", "DBIRTH", "DDATA", "NDATA")
    assert born == [Reading("g/n", {"online": True}, T), Reading("g/n", {"uptime": 2**63 + 5, "name": "Gerät"}, T)]
    assert device_born == [Reading("g/n/d", {"online": True}, T + 1), Reading("g/n/d", BIRTH, T + 1)]
    # one message, three times: two new ones and one that is historical
    assert data == [
        Reading("g/n/d", {"power": 900.5, "temp": 22.25}, T + 1000),
        Reading("g/n/d", {"power": 901.5}, T + 2000),
        Reading("g/n/d", {"i8": -2}, T - 5000),
    ]
    assert node_data == [Reading("g/n", {"uptime": 6}, T + 3000)]
    assert rebirths_wanted(profile) == []


def test_missing_numbers_are_counted_and_a_rebirth_is_wanted() -> None:
    profile = fresh()
    *_, after_gap, dead = say(profile, "NBIRTH", "DBIRTH", "DDATA", "NDATA", "DDATA after a gap", "DDEATH")
    assert after_gap == [
        Reading("g/n", {"sequence_gap": 5}, T + 4000),
        Reading("g/n/d", {"power": 1.0}, T + 4000),
    ]
    assert dead == [Reading("g/n/d", {"online": False}, T + 5000)]
    assert rebirths_wanted(profile) == [Rebirth("g", "n", "messages missing before number 9: 5")]
    assert rebirths_wanted(profile) == []


def test_numbers_run_from_255_to_0() -> None:
    profile = fresh()
    born = field(1, T) + field(3, 254)
    messages = [("NBIRTH", born), *(("NDATA", numbered(seq, seq)) for seq in (255, 0, 1))]
    results = decode_group(profile, [(f"spBv1.0/g/{kind}/n", data) for kind, data in messages])
    assert results[1:] == [[Reading("g/n", {"a": seq}, T)] for seq in (255, 0, 1)]
    assert rebirths_wanted(profile) == []


def numbered(seq: int, value: int) -> bytes:
    return field(1, T) + field(2, field(1, b"a") + field(4, 7) + field(10, value)) + field(3, seq)


def test_what_comes_again_is_no_gap_and_its_readings_are_kept() -> None:
    """A client that sends at QoS 1 sends what was not acknowledged again, in order, after it has reconnected."""
    profile = fresh()
    sent = [(0, 0), (1, 1), (2, 2), (2, 2), (3, 3), (1, 1), (2, 2), (3, 3), (4, 4)]
    messages = [("NBIRTH", field(1, T) + field(3, 255)), *(("NDATA", numbered(*one)) for one in sent)]
    results = decode_group(profile, [(f"spBv1.0/g/{kind}/n", data) for kind, data in messages])
    assert results[1:] == [[Reading("g/n", {"a": value}, T)] for _, value in sent]
    assert rebirths_wanted(profile) == []
    [other] = decode_group(profile, [("spBv1.0/g/NDATA/n", numbered(4, 9))])  # the number again, and not the message
    assert other == [Reading("g/n", {"sequence_gap": 255}, T), Reading("g/n", {"a": 9}, T)]
    rebirths_wanted(profile)
    many = [("spBv1.0/g/NDATA/n", numbered(seq % 256, 7)) for seq in range(5, 5 + 256 + 1)]
    assert [result for result in decode_group(profile, many) if result != [Reading("g/n", {"a": 7}, T)]] == []
    [lost] = decode_group(profile, [("spBv1.0/g/NDATA/n", numbered(5 + 100, 7))])  # an old number is a gap in time
    assert isinstance(lost, list)
    assert lost[0].fields == {"sequence_gap": 99}


def test_a_birth_that_comes_again_is_no_gap_and_no_new_session() -> None:
    profile = fresh()
    birth = field(1, T) + field(3, 0)
    messages = [("NBIRTH", birth), *(("NDATA", numbered(seq, seq)) for seq in (1, 2)), ("NBIRTH", birth)]
    results = decode_group(profile, [(f"spBv1.0/g/{kind}/n", data) for kind, data in messages])
    assert results[0] == results[3] == [Reading("g/n", {"online": True}, T)]
    [later] = decode_group(profile, [("spBv1.0/g/NDATA/n", numbered(3, 3))])
    assert later == [Reading("g/n", {"a": 3}, T)]
    assert rebirths_wanted(profile) == []
    again = [("NBIRTH", field(1, T + 1) + field(3, 0)), ("NDATA", numbered(1, 1))]  # another one begins anew
    results = decode_group(profile, [(f"spBv1.0/g/{kind}/n", data) for kind, data in again])
    assert results[1] == [Reading("g/n", {"a": 1}, T)]


def test_a_nodes_death_is_its_devices_death_and_the_will_of_an_older_session_is_not() -> None:
    profile = fresh()
    *_, dead = say(profile, "NBIRTH", "DBIRTH", "NDEATH")
    assert dead == [Reading("g/n", {"online": False}), Reading("g/n/d", {"online": False})]
    bd_seq_7 = field(2, field(1, b"bdSeq") + field(4, 4) + field(11, 7))
    _, old = decode_group(profile, [(TOPICS["NBIRTH"], TAHU["NBIRTH"]), (TOPICS["NDEATH"], bd_seq_7)])
    assert "the death of an earlier session (bdSeq 7, the node's birth says 0)" in reason(old)
    assert isinstance(say(profile, "NDATA")[0], list)


def test_after_a_death_aliases_are_unknown_until_the_next_birth() -> None:
    profile = fresh()
    results = say(profile, "NBIRTH", "DBIRTH", "NDEATH", "DDATA")
    assert "alias 16 is not known: no birth of it was heard (a rebirth of g/n is wanted)" in reason(results[-1])
    # a node's birth, unless it is the same again, voids the births of its devices
    say(profile, "NBIRTH", "DBIRTH")
    decode_group(profile, [(TOPICS["NBIRTH"], TAHU["NBIRTH"] + field(1, T + 1))])
    results = say(profile, "DDATA")
    assert "alias 16 is not known" in reason(results[-1])
    [wanted] = rebirths_wanted(profile)
    assert wanted == ("g", "n", "messages missing before number 2: 1")


def test_a_type_may_be_said_at_birth_alone() -> None:
    profile = fresh()
    data = field(1, T) + field(2, field(2, 10) + field(10, 254)) + field(3, 2)
    assert decode_group(
        profile, [(TOPICS[name], TAHU[name]) for name in ("NBIRTH", "DBIRTH")] + [(TOPICS["DDATA"], data)]
    )[2] == [Reading("g/n/d", {"i8": -2}, T)]


def test_data_before_any_birth() -> None:
    profile = fresh()
    named, aliased = say(profile, "DDATA after a gap", "DDATA")
    assert named == [Reading("g/n/d", {"power": 1.0}, T + 4000)]
    assert "alias 16 is not known" in reason(aliased)
    assert rebirths_wanted(profile) == [Rebirth("g", "n", "data of g/n/d came before its birth")]


def test_a_rebirth_is_asked_for_as_tahu_asks() -> None:
    topic, payload = rebirth_request("g", "n", T + 6000)
    assert (topic, payload) == (TOPICS["NCMD"], TAHU["NCMD"])


def test_a_profile_picks_fields_and_keeps_births_and_deaths() -> None:
    text = 'name = "picks"\nformat = "sparkplug-b"\n[fields.kw]\npath = "power"\nscale = 0.5\n'
    profile = parse_profile(text, "picks.toml")
    born, device_born, data, node_data, dead = say(profile, "NBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH")
    assert born == [Reading("g/n", {"online": True}, T)]
    assert device_born == [Reading("g/n/d", {"online": True}, T + 1), Reading("g/n/d", {"kw": 406.125}, T + 1)]
    assert data == [Reading("g/n/d", {"kw": 450.25}, T + 1000), Reading("g/n/d", {"kw": 450.75}, T + 2000)]
    assert "none of the profile's fields (it holds uptime)" in reason(node_data)
    assert dead == [Reading("g/n", {"online": False}), Reading("g/n/d", {"online": False})]


def test_what_is_remembered_is_bounded() -> None:
    profile = fresh(options={"nodes_max": 2, "metrics_max": 3})
    birth = b"".join(field(2, field(1, b"m%d" % n) + field(2, n + 1) + field(4, 7) + field(10, n)) for n in range(3))
    data = field(2, field(2, 1) + field(10, 9)) + field(3, 1)
    births = [(f"spBv1.0/g/NBIRTH/n{n}", birth + field(3, 0)) for n in range(3)]
    results = decode_group(profile, [*births, ("spBv1.0/g/NDATA/n0", data), ("spBv1.0/g/NDATA/n2", data)])
    assert "alias 1 is not known" in reason(results[3])
    assert results[4] == [Reading("g/n2", {"m0": 9})]
    # whoever was heard of longest ago goes first
    again = [
        ("spBv1.0/g/NDATA/n1", data),
        births[0],
        ("spBv1.0/g/NDATA/n1", field(2, field(2, 2) + field(10, 8)) + field(3, 2)),
    ]
    assert decode_group(profile, again)[2] == [Reading("g/n1", {"m1": 8})]
    [again_n2] = decode_group(profile, births[2:])
    assert isinstance(again_n2, list)
    more = birth + field(2, field(1, b"m9") + field(2, 9) + field(4, 7) + field(10, 9)) + field(3, 2)
    [refused] = decode_group(profile, [("spBv1.0/g/DBIRTH/n2/d", more)])
    assert "more than 3 metrics of one edge node" in reason(refused)


@pytest.mark.parametrize(
    ("topic", "payload", "said"),
    [
        ("t", b"\0", "“t” is no topic of spBv1.0"),
        ("spBv1.0/STATE/host", b"{}", "the state of a host"),
        ("spBv1.0/g/NCMD/n", b"\0", "NCMD is a command to a node"),
        ("spBv1.0/g/NDATA/n/d", b"\0", "number of levels"),
        ("spBv1.0/g/DDATA/n", b"\0", "number of levels"),
        ("spBv1.0/g/NDATA/n", b"", "the message is empty"),
        ("spBv1.0/g/NDATA/n", b"\x08", "it ends in the middle of a number"),
        ("spBv1.0/g/NDATA/n", b"\x12\x05a", "it ends in the middle of field 2"),
        ("spBv1.0/g/NDATA/n", b"\x0b", "wire type 3 is unknown"),
        ("spBv1.0/g/NDATA/n", b"\x00\x00", "field number 0"),
        ("spBv1.0/g/NDATA/n", b"\x08" + b"\xff" * 10, "byte 1: an endless number"),
        ("spBv1.0/g/NDATA/n", b"\x0a\x00", "field 1 of the payload has wire type 2"),
        ("spBv1.0/g/NDATA/n", field(2, 1), "a metric has wire type 0"),
        ("spBv1.0/g/NDATA/n", field(2, field(12, 1)), "field 12 of a metric has wire type 0"),
        ("spBv1.0/g/NDATA/n", field(1, 2**60) + field(3, 0), "timestamp 1152921504606846976 is none"),
        ("spBv1.0/g/NDATA/n", field(1, T), "no sequence number"),
        ("spBv1.0/g/NDATA/n", field(3, 1), "no value to store"),
        ("spBv1.0/g/NDATA/n", field(2, field(10, 1)) + field(3, 1), "a metric with neither name nor alias"),
        ("spBv1.0/g/NDATA/n", field(2, field(1, b"a")) + field(3, 1), "has no value and is not marked as null"),
        ("spBv1.0/g/NDATA/n", field(2, field(1, b"\xff")) + field(3, 1), "a text that is not UTF-8"),
        (
            "spBv1.0/g/NDATA/n",
            field(2, field(1, b"a") + field(4, 5) + field(10, 256)) + field(3, 1),
            "256 does not fit UInt8",
        ),
        (
            "spBv1.0/g/NDATA/n",
            field(2, field(1, b"a") + field(4, 17) + field(16, b"x")) + field(3, 1),
            "no value to store: “a” is of type Bytes",
        ),
        ("spBv1.0/g/NBIRTH/n", field(2, field(2, 1) + field(10, 1)) + field(3, 0), "a metric that has no name"),
    ],
)
def test_what_is_wrong_is_said(topic: str, payload: bytes, said: str) -> None:
    [result] = decode_group(fresh(), [(topic, payload)])
    assert said in reason(result)


@given(st.lists(st.tuples(st.sampled_from(sorted(TOPICS)), st.binary(max_size=40)), max_size=4), st.data())
def test_hostile_bytes_raise_nothing(noise: list[tuple[str, bytes]], data: st.DataObject) -> None:
    profile = fresh()
    for name, payload in noise:
        whole = TAHU[name]
        at = data.draw(st.integers(0, len(whole)))
        for sent in (payload, whole[:at] + payload + whole[at:], whole[:at]):
            [result] = decode_group(profile, [(TOPICS[name], sent)])
            assert isinstance(result, list | Undecodable)
