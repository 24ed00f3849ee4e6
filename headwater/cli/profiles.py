"""`headwater profiles list|show|test`: what profiles there are, and what one makes of a file of messages."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from devices.limits import Limits
from devices.profile_files import profile_text, read_profiles, shipped_names
from devices.profiles import Profile
from devices.reading import FromArrival, Reading, Undecodable
from devices.topics import compile_topic
from devices.user_code import Message as UserMessage
from headwater.cli.decoding import CommandDecoding
from headwater.cli.words import count, printable
from headwater.errors import UserError

if TYPE_CHECKING:
    from headwater.cli.deadletters import DeadLetter

_GROUP = 500  # messages decoded at once, as a node decodes its commit groups
_MESSAGE_BYTES_MAX = 1 << 20
_FILE_BYTES_MAX = 64 << 20


class Message(NamedTuple):
    """One message of the file; `payload` is a sentence where the line does not hold one."""

    line: int
    topic: str
    payload: bytes | str
    arrival_ms: int = 0
    place: str = ""

    @property
    def where(self) -> str:
        """How its line of the output begins."""
        return self.place or f"line {self.line}"


def list_profiles(*, as_json: bool) -> None:
    """Print the shipped profiles."""
    profiles = read_profiles(shipped_names())
    if as_json:
        rows = [
            {"name": one.name, "format": one.format, "topics": list(one.topics), "description": one.description}
            for one in profiles
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(len(one.name) for one in profiles)
    for one in profiles:
        print(f"{one.name:{width}}  {one.format:13}  {one.description}")
        for topic in one.topics:
            print(f"{'':{width}}  {'':13}  topic {topic}")
    print('\nUse one: profiles = ["NAME"]. Start your own: headwater profiles show NAME > mine.toml')


def show_profile(name: str) -> None:
    """Print a profile's file as it is, with its comments. Raises UserError."""
    sys.stdout.write(profile_text(name)[1])


def try_profile(
    name: str, file: str, *, topic: str, with_topics: bool, encoding: str, whole: bool, as_json: bool
) -> int:
    """Print a file's messages as readings and rejects; returns 1 when something was rejected. Raises UserError."""
    [profile] = read_profiles([name])
    topic = topic or example_topic(profile)
    if not with_topics and not _takes(profile, topic):
        patterns = ", ".join(profile.topics)
        raise UserError(f"topic {topic} matches no pattern of profile {profile.name}", hint=f"They are {patterns}.")
    messages = _messages(file, topic, with_topics=with_topics, encoding=encoding, whole=whole)
    return asyncio.run(_try(profile, messages, encoding=encoding, as_json=as_json))


async def try_live(name: str, config: str | None, *, number: int, as_json: bool) -> int:
    """Print what a profile makes of a running node's last dead letters that are its own. Raises UserError."""
    from headwater.cli.deadletters import LOOK_BACK, Filter, connected, dead_letters, port_profiles
    from headwater.cli.find import find_node, need_status
    from headwater.settings.load import load_settings

    [profile] = read_profiles([name])
    ports = port_profiles(load_settings(find_node(config).config).settings)
    found: deque[Message] = deque(maxlen=number)
    async with connected(need_status(config)) as reader:
        async for one in dead_letters(reader, Filter(), back=LOOK_BACK):
            if is_tried_on(profile, one, ports):
                place = f"dead letter {one.offset}"
                found.append(Message(one.offset, one.topic, one.payload, one.arrival_ms, place))
    if not found:
        lines = "a Modbus bus" if profile.format == "modbus" else "a serial port"
        where = f"on its topics ({', '.join(profile.topics)})" if profile.topics else f"from {lines} that it would read"
        raise UserError(f"no dead letter of the last {LOOK_BACK:,} came {where}", hint="Give it a file of messages.")
    return await _try(profile, iter(found), encoding="", as_json=as_json)


def is_tried_on(profile: Profile, one: DeadLetter, ports: Mapping[str, Profile | None]) -> bool:
    """Whether the node would read this dead letter by the profile; `ports` are the profiles of serial ports and buses.

    A profile without topics reads the ports that name it. One that no port names yet may be meant for any of its kind.
    """
    from gateway.ingest.refused import DECODER as FRAMING

    if one.source.startswith(("sink:", "processor:")) or one.headers.get("decoder") == FRAMING:
        return False
    own = ports.get(one.source)
    if profile.topics:
        return own.name == profile.name if own is not None else _takes(profile, one.topic)
    if any(each is not None and each.name == profile.name for each in ports.values()):
        return own is not None and own.name == profile.name
    return one.source.startswith("modbus:" if profile.format == "modbus" else "serial:")


def _takes(profile: Profile, topic: str) -> bool:
    patterns = [compile_topic(pattern, profile.name) for pattern in profile.topics]
    return not patterns or any(pattern.fullmatch(topic) for pattern in patterns)


async def _try(profile: Profile, messages: Iterator[Message], *, encoding: str, as_json: bool) -> int:
    decoding, limits = CommandDecoding(profile), Limits(profile)
    total = readings = rejected = 0
    while group := list(islice(messages, _GROUP)):
        decodable = [UserMessage(one.topic, one.payload, one.arrival_ms) for one in group if type(one.payload) is bytes]
        results = iter(await decoding.results(decodable))
        for one in group:
            result = next(results) if isinstance(one.payload, bytes) else Undecodable(one.payload, decoder=encoding)
            total += 1
            readings += len(result) if isinstance(result, list) else 0
            rejected += not isinstance(result, list)
            for line in _json_lines(one, result, limits) if as_json else _text_lines(one, result, profile, limits):
                print(line)
    await decoding.close()
    if not as_json:
        print(f"{count(total, 'message')}: {count(readings, 'reading')}, {rejected:,} rejected")
    return 1 if rejected else 0


def example_topic(profile: Profile) -> str:
    """A topic that the profile's first pattern takes in, each placeholder by its own name; `test` without patterns."""
    if not profile.topics:
        return "test"
    topic = re.sub(r"\{([^}]*)\}", r"\1", profile.topics[0])
    return "/".join("x" if level in ("+", "#") else level for level in topic.split("/"))


def _messages(file: str, topic: str, *, with_topics: bool, encoding: str, whole: bool) -> Iterator[Message]:
    try:
        stream: IO[bytes] = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", hint="Name a file, or - for standard input.") from None
    try:
        if whole:
            data = stream.read(_FILE_BYTES_MAX + 1)
            if len(data) > _FILE_BYTES_MAX:
                raise UserError(f"{file} is larger than {_FILE_BYTES_MAX >> 20} MiB", hint="Give it in pieces.")
            yield _message(1, data, topic, with_topics=with_topics, encoding=encoding)
            return
        for number, line in enumerate(_lines(stream), start=1):
            if line.strip():
                yield _message(number, line.rstrip(b"\r\n"), topic, with_topics=with_topics, encoding=encoding)
    finally:
        if file != "-":
            stream.close()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(_MESSAGE_BYTES_MAX + 1):
        if len(line) > _MESSAGE_BYTES_MAX:
            raise UserError(
                f"a line of more than {_MESSAGE_BYTES_MAX >> 20} MiB", hint="One message a line; or --whole."
            )
        yield line


def _message(number: int, line: bytes, topic: str, *, with_topics: bool, encoding: str) -> Message:
    if with_topics:
        name, _, line = line.partition(b" ")
        topic = name.decode("utf-8", "backslashreplace")
    if encoding == "text":
        return Message(number, topic, line)
    try:
        if encoding == "hex":
            return Message(number, topic, bytes.fromhex(line.decode("ascii")))
        return Message(number, topic, base64.b64decode(line.strip(), validate=True))
    except (ValueError, binascii.Error):
        return Message(number, topic, f"the line is no {encoding}")


def _text_lines(
    message: Message, result: list[Reading] | Undecodable, profile: Profile, limits: Limits
) -> Iterable[str]:
    where = f"{message.where}:"
    if isinstance(result, Undecodable):
        yield printable(f"{where} REJECTED by {result.decoder}: {result.reason}")
        return
    if not result:
        yield f"{where} left out: nothing in it that the profile wants"
    for reading in result:
        when = "arrival" if reading.event_ms is None else time_text(reading.event_ms)
        if isinstance(reading.event_ms, FromArrival):
            when = f"arrival {reading.event_ms / 1000:+g} s"
        fields = []
        for name, value in reading.fields.items():
            spec = profile.fields.get(name)
            unit = f" {spec.unit}" if spec is not None and spec.unit and value is not None else ""
            fields.append(f"{name}={json.dumps(value, ensure_ascii=False)}{unit}")
        quality = f"  [{found}]" if (found := limits.quality(reading.fields)) else ""
        yield printable(f"{where} {reading.device}  {when}  {'  '.join(fields)}{quality}")


def _json_lines(message: Message, result: list[Reading] | Undecodable, limits: Limits) -> Iterable[str]:
    rows: list[dict[str, Any]]
    if isinstance(result, Undecodable):
        rows = [{"line": message.line, "topic": message.topic, "rejected": result.reason, "decoder": result.decoder}]
    else:
        rows = [
            {
                "line": message.line,
                "device": reading.device,
                "time_ms": None if isinstance(reading.event_ms, FromArrival) else reading.event_ms,
                "fields": reading.fields,
                "natural_key": reading.natural_key,
                "quality": limits.quality(reading.fields) or None,
            }
            for reading in result
        ]
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def time_text(ms: int) -> str:
    """A time for people: UTC; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
    except (OverflowError, OSError, ValueError):
        return f"{ms} ms"
