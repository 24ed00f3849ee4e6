"""devices-decode: bytes from devices to readings, readings per second and format, in groups as ingest has them.

Every contestant turns the same messages into values by name: ours by the decoder that ingest uses, with fields, times
and devices as a profile says; the peer, where there is one, as its documentation's first example does, message by
message, and knows neither profile nor time nor device. A peer that is not installed is left out.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import msgspec

from benchmarks.harness import RESULTS, Contestant, Run, compare
from devices.decoders.registry import decoder_for, plain_decoder_for
from devices.profile_files import read_profiles
from devices.profile_text import parse_profile
from devices.profiles import Profile
from devices.protobuf import field

GROUP = 500
MESSAGES = 20_000
TOPIC = "farm/turbine-01/telemetry"
_MODBUS = """
name = "meter"
format = "modbus"
[fields.voltage]
register = { address = 0, encoding = "float32" }
[fields.current]
register = { address = 2, encoding = "float32" }
[fields.energy]
register = { address = 4, encoding = "uint32" }
[fields.state]
register = { address = 6 }
"""


class Format(NamedTuple):
    """One row: `decode` takes a group of payloads and gives how many readings it made of them."""

    name: str
    payloads: list[bytes]
    decode: Callable[[Sequence[bytes]], int]
    peers: dict[str, Callable[[bytes], object]]


def formats(messages: int) -> list[Format]:
    """All rows, with their messages."""
    [turbine] = read_profiles(["wind-turbine"])
    objects = [
        {"ts": 1_735_689_600_123 + n, "seq": n, "wind_speed": 7 + n % 30 / 10, "power": 1000.5 + n, "rotor_rpm": 12.1}
        for n in range(messages)
    ]
    rows = [",".join(str(value) for value in each.values()).encode() for each in objects]
    columns = {"columns": list(objects[0]), "null": [""]}
    csv_profile = Profile(name="csv", format="csv", options=columns, timestamp=turbine.timestamp, natural_key="seq")
    lines = [
        f"wind,turbine=t1 seq={each['seq']}i,wind_speed={each['wind_speed']},power={each['power']} {each['ts']}000000"
        for each in objects
    ]
    json_payloads = [msgspec.json.encode(each) for each in objects]
    return [
        Format(
            "json, profile", json_payloads, plain(turbine), {"msgspec": msgspec.json.decode, **peer("orjson", "loads")}
        ),
        Format("json, no profile", json_payloads, plain(None), {"msgspec": msgspec.json.decode}),
        Format("json, scaled", json_payloads, general(_scaled()), {}),
        Format("csv", rows, general(csv_profile), {"csv": read_csv}),
        Format("line-protocol", [line.encode() for line in lines], general(_named("line-protocol")), {}),
        Format("senml+json", [senml(n) for n in range(messages)], general(_named("senml+json")), {}),
        Format("cbor", [cbor_map(each) for each in objects], general(_named("cbor")), peer("cbor2", "loads")),
        Format("sparkplug-b", sparkplug(messages), sparkplug_decoder(), {}),
        Format("nmea0183", [nmea(n) for n in range(messages)], general(_named("nmea0183")), nmea_peer()),
        Format(
            "modbus", [modbus(n) for n in range(messages)], general(parse_profile(_MODBUS, "modbus")), modbus_peer()
        ),
    ]


# --- ours


def general(profile: Profile, topic: str = TOPIC) -> Callable[[Sequence[bytes]], int]:
    """A decoder by its registry's name, every message made a list of readings."""
    decode = decoder_for(profile.format)
    return lambda payloads: sum(
        [
            len(result)
            for result in decode(profile, [(topic, payload) for payload in payloads])
            if isinstance(result, list)
        ]
    )


def plain(profile: Profile | None) -> Callable[[Sequence[bytes]], int]:
    """What ingest does with the usual JSON."""
    decoder = plain_decoder_for(profile)
    assert decoder is not None

    def decode(payloads: Sequence[bytes]) -> int:
        found = decoder.decode(payloads)
        return len(found.fields) if found is not None else 0

    return decode


def _named(name: str) -> Profile:
    return Profile(name=name, format=name)


def _scaled() -> Profile:
    return parse_profile('name = "s"\n[timestamp]\npath = "ts"\n[fields.kw]\npath = "power"\nscale = 0.001\n', "s.toml")


def sparkplug_decoder() -> Callable[[Sequence[bytes]], int]:
    """A session that has had its births, and goes round its sequence numbers."""
    profile = _named("sparkplug-b")
    decode = decoder_for("sparkplug-b")
    metric = field(1, b"power") + field(2, 1) + field(3, 1_735_689_600_000) + field(4, 10) + b"\x69" + pack("<d", 1.5)
    death = field(1, b"bdSeq") + field(4, 8) + field(8, 0)
    births = [
        ("spBv1.0/g/NBIRTH/n", field(1, 1_735_689_600_000) + field(2, death) + field(3, 0)),
        ("spBv1.0/g/DBIRTH/n/d", field(1, 1_735_689_600_000) + field(2, metric) + field(3, 1)),
    ]
    born = [result for result in decode(profile, births) if not isinstance(result, list)]
    if born:
        raise SystemExit(f"a birth is none: {born[0]}")
    return general(profile, "spBv1.0/g/DDATA/n/d")


# --- messages


def senml(n: int) -> bytes:
    return msgspec.json.encode(
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "bt": 1735689600 + n, "n": "voltage", "v": 120.1},
            {"n": "current", "v": 1.2},
        ]
    )


def cbor_map(values: dict[str, Any]) -> bytes:
    """Just enough of RFC 8949 for a flat map of texts, whole numbers and doubles."""
    parts = [bytes((0xA0 | len(values),))]
    for key, value in values.items():
        parts.append(bytes((0x60 | len(key),)) + key.encode())
        parts.append(b"\xfb" + pack(">d", value) if isinstance(value, float) else b"\x1b" + pack(">Q", value))
    return b"".join(parts)


def sparkplug(messages: int) -> list[bytes]:
    """DDATA of one metric by its alias; the births had the first two sequence numbers."""
    metric = field(2, 1) + field(3, 1_735_689_600_000) + field(4, 10) + b"\x69" + pack("<d", 900.5)
    head = field(1, 1_735_689_600_000) + field(2, metric)
    return [head + field(3, (n + 2) % 256) for n in range(messages)]


def nmea(n: int) -> bytes:
    body = f"WIMWV,{n % 360:03d},R,{n % 30 / 2:05.2f},M,A"
    return f"${body}*{reduce(lambda total, char: total ^ ord(char), body, 0):02X}".encode()


def modbus(n: int) -> bytes:
    return pack(">ffIH", 230.5, n % 16, n, n % 4)


# --- peers


def peer(module: str, name: str) -> dict[str, Callable[[bytes], object]]:
    """A library's function, where it is installed."""
    try:
        return {module: getattr(import_module(module), name)}
    except ImportError:
        return {}


def read_csv(payload: bytes) -> object:
    return [[float(cell) for cell in row] for row in csv.reader(io.StringIO(payload.decode()))]


def nmea_peer() -> dict[str, Callable[[bytes], object]]:
    found = peer("pynmea2", "parse")
    return {name: partial(_of_text, parse) for name, parse in found.items()}


def _of_text(parse: Callable[[Any], object], sentence: bytes) -> object:
    return parse(sentence.decode())


def modbus_peer() -> dict[str, Callable[[bytes], object]]:
    try:
        mixin = import_module("pymodbus.client.mixin").ModbusClientMixin
    except ImportError:
        return {}
    kinds, convert = mixin.DATATYPE, mixin.convert_from_registers

    def decode(payload: bytes) -> object:
        registers = [payload[at] << 8 | payload[at + 1] for at in range(0, len(payload), 2)]
        return (
            convert(registers[:2], kinds.FLOAT32),
            convert(registers[2:4], kinds.FLOAT32),
            convert(registers[4:6], kinds.UINT32),
            convert(registers[6:], kinds.UINT16),
        )

    return {"pymodbus": decode}


# --- runs


def ours(row: Format) -> Run:
    groups = [row.payloads[start : start + GROUP] for start in range(0, len(row.payloads), GROUP)]
    began_s = time.process_time()
    readings = sum([row.decode(group) for group in groups])
    taken_s = time.process_time() - began_s
    if readings < len(row.payloads):
        raise SystemExit(f"{row.name}: {readings} readings of {len(row.payloads)} messages")
    return Run(readings / taken_s, {"us": taken_s / readings * 1e6})


def theirs(decode: Callable[[bytes], object], payloads: Sequence[bytes]) -> Run:
    began_s = time.process_time()
    for payload in payloads:
        decode(payload)
    taken_s = time.process_time() - began_s
    return Run(len(payloads) / taken_s, {"us": taken_s / len(payloads) * 1e6})


def main(*, messages: int = MESSAGES, rounds: int = 3, results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Run all formats; their reports by name."""
    found = {}
    for row in formats(messages):
        name = "devices-decode-" + row.name.replace(", ", "-").replace(" ", "-")
        peers: dict[str, Contestant] = {
            who: lambda decode=decode, row=row: theirs(decode, row.payloads)  # type: ignore[misc]  # bound now, not at the call
            for who, decode in row.peers.items()
        }
        found[name] = compare(
            name,
            unit="readings/s",
            better="higher",
            ours=lambda row=row: ours(row),  # type: ignore[misc]  # as above
            peers=peers,
            parameters={"messages": messages, "group": GROUP, "bytes": len(row.payloads[0]), "rounds": rounds},
            rounds=rounds,
            results=results,
        )
    return found
