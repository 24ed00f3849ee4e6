"""Which decoder reads which format. A decoder is a function over a group of messages; it keeps no state of its own.

`decode_group(profile, messages)` takes (topic, payload) pairs and gives one result per pair, in order:
a list of `Reading`s or an `Undecodable`. For a source without topics (serial) the port's name stands in their place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from devices.decoders.json_plain import PlainJson, plain_json
from devices.profiles import Profile
from devices.reading import Reading, Undecodable
from headwater.errors import UserError

DecodeGroup = Callable[[Profile | None, Sequence[tuple[str, bytes]]], "list[list[Reading] | Undecodable]"]

FORMATS = {
    "json": "devices.decoders.json_messages",
    "csv": "devices.decoders.csv_lines",
    "line-protocol": "devices.decoders.line_protocol",
    "senml+json": "devices.decoders.senml",
    "senml+cbor": "devices.decoders.senml",
    "cbor": "devices.decoders.cbor_messages",
    "sparkplug-b": "devices.decoders.sparkplug",
    "modbus": "devices.decoders.modbus",
    "nmea0183": "devices.decoders.nmea",
}


def decoder_for(format_name: str) -> DecodeGroup:
    """The decoder of a profile's `format`; loaded when first asked for. Raises `UserError`."""
    try:
        module = importlib.import_module(FORMATS[format_name])
    except KeyError:
        raise UserError(f"no decoder reads format “{format_name}”", hint=f"There are {', '.join(FORMATS)}.") from None
    decode: DecodeGroup = module.decode_group
    return decode


def plain_decoder_for(profile: Profile | None) -> PlainJson | None:
    """The fast way to the usual messages of a profile, by columns; None where there is none."""
    return plain_json(profile) if profile is None or profile.format == "json" else None
