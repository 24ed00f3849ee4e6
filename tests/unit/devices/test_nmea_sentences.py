"""NMEA 0183's usual sentences, made and read by another implementation; profile keys; fields by their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynmea2
import pytest

from devices.decoders.nmea import checksums, decode_group
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from headwater.errors import UserError

EVERYTHING = Profile(name="any", format="nmea0183")
KNOT = 1852 / 3600
NAUTICAL_MILE = 1852.0


def readings(sentence: bytes, profile: Profile | None = EVERYTHING, topic: str = "port-1") -> list[Reading]:
    [result] = decode_group(profile, [(topic, sentence)])
    assert isinstance(result, list), result
    return result


def fields(sentence: bytes, profile: Profile | None = EVERYTHING) -> dict[str, Any]:
    [reading] = readings(sentence, profile)
    return dict(reading.fields)


def reason(sentence: bytes, profile: Profile | None = EVERYTHING) -> str:
    [result] = decode_group(profile, [("port-1", sentence)])
    assert isinstance(result, Undecodable), result
    return result.reason


def made(kind: str, *cells: str, talker: str = "II") -> bytes:
    """A sentence as pynmea2 writes it, its checksum too."""
    return str(getattr(pynmea2, kind)(talker, kind, ",".join(cells).split(","))).encode()


def number(name: str, factor: float = 1.0) -> Callable[[Any], float]:
    return lambda peer: float(getattr(peer, name)) * factor


# sentence, and what pynmea2 finds in it, under our names and in our units
JUDGED: list[tuple[bytes, dict[str, Callable[[Any], object]]]] = [
    (
        made("GGA", "123519,4807.038,N,01131.324,E,1,08,0.9,545.4,M,46.9,M,3.1,0120"),
        {
            "GGA.time": lambda peer: peer.timestamp.strftime("%H:%M:%S"),
            "GGA.latitude": number("latitude"),
            "GGA.longitude": number("longitude"),
            "GGA.quality": lambda peer: peer.gps_qual,
            "GGA.satellites": lambda peer: int(peer.num_sats),
            "GGA.hdop": number("horizontal_dil"),
            "GGA.altitude": number("altitude"),
            "GGA.geoid_separation": number("geo_sep"),
            "GGA.correction_age": number("age_gps_data"),
            "GGA.station": lambda peer: peer.ref_station_id,
        },
    ),
    (
        made("RMC", "225446.5,A,3349.896,S,15112.180,W,022.4,084.4,230394,003.1,W,A"),
        {
            "RMC.time": lambda peer: peer.timestamp.strftime("%H:%M:%S.%f")[:10],
            "RMC.latitude": number("latitude"),
            "RMC.longitude": number("longitude"),
            "RMC.speed": number("spd_over_grnd", KNOT),
            "RMC.course": number("true_course"),
            "RMC.datetime": lambda peer: f"{peer.datestamp}T{peer.timestamp.strftime('%H:%M:%S.%f')[:10]}Z",
            "RMC.variation": number("mag_variation", -1),
            "RMC.mode": lambda peer: peer.mode_indicator,
        },
    ),
    (
        made("VTG", "054.7,T,034.4,M,005.5,N,010.2,K,A"),
        {
            "VTG.course": number("true_track"),
            "VTG.course_magnetic": number("mag_track"),
            "VTG.speed": number("spd_over_grnd_kts", KNOT),
            "VTG.mode": lambda peer: peer.faa_mode,
        },
    ),
    (
        made("GLL", "4916.45,N,12311.12,W,225444,A,D"),
        {
            "GLL.latitude": number("latitude"),
            "GLL.longitude": number("longitude"),
            "GLL.time": lambda peer: peer.timestamp.strftime("%H:%M:%S"),
            "GLL.mode": lambda peer: peer.faa_mode,
        },
    ),
    (
        made("ZDA", "201530,04,07,2002,-02,30"),
        {
            "ZDA.time": lambda peer: peer.timestamp.strftime("%H:%M:%S"),
            "ZDA.datetime": lambda peer: peer.datetime.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ZDA.zone_hours": lambda peer: peer.local_zone,
            "ZDA.zone_minutes": lambda peer: peer.local_zone_minutes,
        },
    ),
    (made("HDT", "123.456", "T"), {"HDT.heading": number("heading")}),
    (made("HDM", "235.3", "M"), {"HDM.heading": number("heading")}),
    (
        made("HDG", "98.3,1.5,E,12.6,W"),
        {
            "HDG.heading": number("heading"),
            "HDG.deviation": number("deviation"),
            "HDG.variation": number("variation", -1),
        },
    ),
    (
        made("VHW", "217.1,T,220.2,M,5.3,N,9.8,K"),
        {
            "VHW.heading": number("heading_true"),
            "VHW.heading_magnetic": number("heading_magnetic"),
            "VHW.speed": number("water_speed_knots", KNOT),
        },
    ),
    (
        made("VLW", "7803.2,N,0.5,N"),
        {
            "VLW.total": number("trip_distance", NAUTICAL_MILE),
            "VLW.trip": number("trip_distance_reset", NAUTICAL_MILE),
        },
    ),
    (made("DBT", "17.8,f,5.43,M,2.9,F"), {"DBT.depth": number("depth_meters")}),
    (
        made("DPT", "76.1", "-0.5", "100"),
        {"DPT.depth": number("depth"), "DPT.offset": number("offset"), "DPT.range": number("range")},
    ),
    (made("MTW", "17.9", "C"), {"MTW.temperature": number("temperature")}),
    (
        made("MWD", "302.4,T,294.6,M,13.5,N,6.9,M"),
        {
            "MWD.direction": number("direction_true"),
            "MWD.direction_magnetic": number("direction_magnetic"),
            "MWD.speed": number("wind_speed_meters"),
        },
    ),
    (
        made("MWV", "214.8,R,10.1,N,A"),
        {"MWV.R.angle": number("wind_angle"), "MWV.R.speed": number("wind_speed", KNOT)},
    ),
    (
        made("VWR", "148.0,L,02.4,N,01.2,M,04.4,K"),
        {"VWR.angle": number("deg_r", -1), "VWR.speed": number("wind_speed_ms")},
    ),
    (
        made("VWT", "030.0,R,10.1,N,05.2,M,018.7,K"),
        {"VWT.angle": number("wind_angle_vessel"), "VWT.speed": number("wind_speed_meters")},
    ),
    (
        made("MDA", "29.92,I,1.0133,B,20.5,C,18.1,C,55.2,10.3,11.2,C,120.5,T,118.4,M,10.1,N,5.2,M"),
        {
            "MDA.pressure": number("b_pressure_bar", 1000),
            "MDA.air_temperature": number("air_temp"),
            "MDA.water_temperature": number("water_temp"),
            "MDA.humidity": number("rel_humidity"),
            "MDA.absolute_humidity": number("abs_humidity"),
            "MDA.dew_point": number("dew_point"),
            "MDA.wind_direction": number("direction_true"),
            "MDA.wind_direction_magnetic": number("direction_magnetic"),
            "MDA.wind_speed": number("wind_speed_meters"),
        },
    ),
    (
        made("XDR", "C,19.52,C,TempAir,P,1.02481,B,Barometer"),
        {
            "XDR.TempAir": lambda peer: float(peer.get_transducer(0).value),
            "XDR.Barometer": lambda peer: float(peer.get_transducer(1).value) * 1000,
        },
    ),
    (made("ROT", "-35.6", "A"), {"ROT.rate": number("rate_of_turn")}),
    (
        made("RSA", "10.5,A,-0.4,A"),
        {"RSA.starboard": number("rsa_starboard"), "RSA.port": number("rsa_port")},
    ),
    (
        made("GSA", "A,3,01,20,19,13,,,,,,,,,40.4,24.4,32.2"),
        {
            "GSA.selection": lambda peer: peer.mode,
            "GSA.fix": lambda peer: int(peer.mode_fix_type),
            "GSA.pdop": number("pdop"),
            "GSA.hdop": number("hdop"),
            "GSA.vdop": number("vdop"),
        },
    ),
]


@pytest.mark.parametrize(("sentence", "wanted"), JUDGED, ids=[sentence.decode()[3:6] for sentence, _ in JUDGED])
def test_another_implementation_reads_the_same(sentence: bytes, wanted: dict[str, Callable[[Any], object]]) -> None:
    peer = pynmea2.parse(sentence.decode(), check=True)
    found = fields(sentence)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        expected = value(peer)
        assert found[name] == (pytest.approx(expected, abs=2e-6) if isinstance(expected, float) else expected), name


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (made("DBT", "17.8", "f", "", "M", "2.9", "F"), {"DBT.depth": 5.42544}),  # no metres: the feet
        (made("VWR", "148.0", "R", "", "", "", "", "3.6", "K"), {"VWR.angle": 148.0, "VWR.speed": 1.0}),
        (made("VTG", "", "T", "", "M", "", "N", "36", "K"), {"VTG.speed": 10.0}),
        (made("RSA", "10.5", "A", "", "V"), {"RSA.starboard": 10.5}),
        (made("HDG", "98.3", "", "", "", ""), {"HDG.heading": 98.3}),
        (made("DPT", "76.1"), {"DPT.depth": 76.1}),
    ],
)
def test_what_a_device_leaves_out_is_left_out(sentence: bytes, expected: dict[str, float]) -> None:
    assert fields(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (made("RMC", "123519,V,,,,,,,230394,,"), "not valid (status V)"),
        (made("RMC", "123519,A,4807.038,N,01131.0,E,1,1,230394,,,N"), "not valid (mode N)"),
        (made("GGA", "123519,,,,,0,00,,,M,,M,,"), "no fix (quality 0)"),
        (made("GGA", "123519,4867.038,N,01131.0,E,1,08,0.9,545.4,M,46.9,M,,"), "GGA.latitude"),
        (made("GGA", "123519,4807.038,E,01131.0,E,1,08,0.9,545.4,M,46.9,M,,"), "GGA.latitude"),
        (made("GLL", "9107.038,N,01131.0,E,123519,A"), "more than 90 degrees"),
        (made("GGA", "253519,4807.038,N,01131.0,E,1,08,0.9,545.4,M,46.9,M,,"), "no time of day"),
        (made("RMC", "123519,A,4807.038,N,01131.0,E,1,1,320394,,"), "is no date"),
        (made("ZDA", "201530", "04", "13", "2002", "", ""), "is no date"),
        (made("MTW", "64", "F"), "none of C"),
        (made("HDT", "nan", "T"), "no number"),
        (made("HDT", "12", "M"), "marked “M” where T stands"),
        (made("HDG", "98.3", "1", "X", "", ""), "none of E, W"),
        (made("GGA", "123519"), "9 fields or more, not 1"),
        (b"$GPGSV,3,1,11,03,03,111,00*74", "path = “GSV.1”"),
    ],
)
def test_what_is_wrong_is_said(sentence: bytes, expected: str) -> None:
    assert expected in reason(sentence.replace(b"*74", b"*%02X" % checksums([b"GPGSV,3,1,11,03,03,111,00"])[0]))


GNSS = """
name = "gnss"
format = "nmea0183"
topics = ["boats/{boat}/{device}/nmea"]
natural_key = "RMC.time"
[timestamp]
path = "datetime"
unit = "iso8601"
[fields.lat]
path = "RMC.latitude"
[fields.valid]
path = "RMC.2"
type = "text"
[fields.speed]
path = "GPRMC.speed"
unit = "kn"
scale = 1.943844
[fields.course]
path = "RMC.course"
type = "integer"
[options]
sentences = ["RMC"]
"""


def test_a_profiles_keys_are_honoured() -> None:
    sentence = made("RMC", "123519,A,4807.038,N,01131.000,E,022.4,084.0,230394,003.1,W", talker="GP")
    profile = parse_profile(GNSS, "gnss.toml")
    [reading] = readings(sentence, profile, "boats/anna/gps-2/nmea")
    assert (reading.device, reading.event_ms) == ("gps-2", 764426119000)
    assert reading.natural_key == "12:35:19"
    assert list(reading.fields) == ["lat", "valid", "speed", "course", "time", "boat"]
    assert reading.fields["boat"] == "anna"
    assert reading.fields["valid"] == "A"
    assert (reading.fields["course"], type(reading.fields["course"])) == (84, int)
    assert reading.fields["speed"] == pytest.approx(22.4, abs=1e-4)
    other = made("RMC", "123519,A,4807.038,N,01131.000,E,022.4,084.0,230394,003.1,W", talker="GL")
    [glonass] = readings(other, profile)
    assert "speed" not in glonass.fields  # GPRMC.speed is the GPS talker's alone


def test_kinds_that_a_profile_leaves_out_say_nothing() -> None:
    profile = parse_profile(GNSS, "gnss.toml")
    assert readings(b"$GPGSV,3,1,11,03,03,111,00*%02X" % checksums([b"GPGSV,3,1,11,03,03,111,00"])[0], profile) == []
    assert "the checksum is" in reason(b"$GPGSV,3,1,11*00", profile)  # a broken one is none


POSITIONS = """
name = "barometer"
format = "nmea0183"
device_path = "PASHR.8"
[fields.roll]
path = "PASHR.4"
[fields.note]
path = "PASHR.3"
type = "text"
[fields.satellites]
path = "GSV.3"
type = "integer"
[fields.snr]
path = "GPGSV.6"
"""


def test_any_sentence_is_read_by_its_fields_numbers() -> None:
    profile = parse_profile(POSITIONS, "positions.toml")
    body = b"PASHR,085335.000,224.19,T,-01.26,+00.83,+00.00,0.101,unit-7,1"
    [reading] = readings(b"$%s*%02X" % (body, checksums([body])[0]), profile)
    assert (reading.device, reading.fields) == ("unit-7", {"roll": -1.26, "note": "T"})
    broken = b"PASHR,085335.000,224.19,T,nan,+00.83,+00.00,0.101,unit-7,1"
    assert "“nan” is no number" in reason(b"$%s*%02X" % (broken, checksums([broken])[0]), profile)
    gsv = b"GPGSV,3,1,11,03,03,111"
    listed = parse_profile(POSITIONS.replace('device_path = "PASHR.8"', 'device = "d"'), "positions.toml")
    assert fields(b"$%s*%02X" % (gsv, checksums([gsv])[0]), listed) == {"satellites": 11, "snr": 111}


def test_wind_is_read_by_its_fields_numbers_too() -> None:
    paths = '[fields.angle]\npath = "MWV.1"\n[fields.speed]\npath = "MWV.speed"\n[fields.unit]\npath = "MWV.4"\n'
    profile = parse_profile(f'name = "p"\nformat = "nmea0183"\ndevice = "d"\n{paths}', "p.toml")
    wind = b"WIMWV,45.5,R,5,M,A"
    assert fields(b"$%s*%02X" % (wind, checksums([wind])[0]), profile) == {"angle": 45.5, "speed": 5.0, "unit": "M"}


def test_the_talker_may_name_the_device_and_a_message_hold_several_sentences() -> None:
    profile = Profile(name="two", format="nmea0183", device_path="talker")
    lines = b"\r\n".join([made("MTW", "17.9", "C", talker="YX"), made("HDT", "12.5", "T", talker="HE")]) + b"\r\n"
    assert [(one.device, one.fields["talker"]) if "talker" in one.fields else one.device for one in
            readings(lines, profile)] == ["YX", "HE"]  # fmt: skip
    assert reason(lines.replace(b"17.9", b"17.8"), profile).startswith("line 1: the checksum is")


def test_a_misspelt_value_is_told_with_its_line() -> None:
    with pytest.raises(
        UserError, match=r"line 10: fields\.lat\.path: no value of sentence RMC is called “latitud”"
    ) as told:
        parse_profile(GNSS.replace("RMC.latitude", "RMC.latitud"), "g.toml")
    assert told.value.hint == "Did you mean “RMC.latitude”?"


def test_checksums_of_a_group_are_those_of_each() -> None:
    bodies = [bytes((n * 37 + k) % 251 for k in range(n)) for n in (0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 200)]
    for some in (bodies, bodies[:1], [], [*bodies, b"\x55" * 301]):
        expected = [0] * len(some)
        for at, body in enumerate(some):
            for byte in body:
                expected[at] ^= byte
        assert list(checksums(some)) == expected
