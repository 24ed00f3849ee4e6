"""`headwater deadletter list|show|replay`: what could not be decoded, why, and what a mended profile makes of it."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from headwater.cli import words
from headwater.cli.deadletters import LOOK_BACK, DeadLetter, Filter, connected, dead_letters, port_profiles
from headwater.cli.export import iso
from headwater.cli.find import find_node, need_status
from headwater.errors import UserError

if TYPE_CHECKING:
    from devices.reading import Reading, Undecodable
    from gateway.ingest.outcome import Outcome
    from headwater.app.outcomes import OutcomeLink
    from headwater.cli.decoding import CommandDecoding
    from headwater.settings.model import Settings

BATCH = 100
BATCH_BYTES = 1 << 20
_REASON_SHOWN = 100
_OF_RECORDS = ("sink:", "processor:")
"""Sources of dead letters that are records of a topic, and no messages which a mended profile could read."""
_REPLAY = " headwater deadletter replay: after a profile is mended."
_OFFSETS_SHOWN = 10
_ROW_BYTES = 16


async def show_list(config: str | None, wanted: Filter, *, number: int, as_json: bool) -> None:
    """Print the last ones. Raises UserError."""
    done = await _replayed(config)
    found: deque[DeadLetter] = deque(maxlen=number)
    async with connected(need_status(config)) as reader:
        async for one in dead_letters(reader, wanted, back=LOOK_BACK):
            found.append(one)
    if as_json:
        for one in found:
            sys.stdout.write(json.dumps(_as_json(one, done), ensure_ascii=False) + "\n")
        return
    if not found:
        print("no dead letters" if wanted == Filter() else "no dead letters of that kind")
        return
    for one in found:
        note = "  (replayed)" if _is_in(one.offset, done) else ""
        source, reason = words.printable(one.source), words.printable(one.reason[:_REASON_SHOWN])
        print(f"{one.offset:>8}  {iso(one.arrival_ms)}  {source}  {len(one.payload)} B  {reason}{note}")
    print(f"\n{what_next(found)}")


def what_next(found: Iterable[DeadLetter]) -> str:
    """Commands for these: no mended profile reads what a sink or a processor has given up."""
    messages = any(not one.source.startswith(_OF_RECORDS) for one in found)
    return f"headwater deadletter show OFFSET: all of one.{_REPLAY if messages else ''}"


async def show_one(config: str | None, offset: int, *, as_json: bool) -> None:
    """Print one whole. Raises UserError."""
    done = await _replayed(config)
    async with connected(need_status(config)) as reader:
        found = [one async for one in dead_letters(reader, Filter(first=offset, end=offset + 1))]
    if not found:
        raise UserError(f"there is no dead letter {offset}", hint="`headwater deadletter list` shows the last ones.")
    for one in found:
        if as_json:
            sys.stdout.write(json.dumps(_as_json(one, done), ensure_ascii=False, indent=2) + "\n")
            continue
        told = {"arrived": iso(one.arrival_ms), **one.headers, "bytes": f"{len(one.payload):,}"}
        told.pop("time", None)
        if _is_in(one.offset, done):
            told["replayed"] = "yes"
        width = max(len(name) for name in told)
        print("\n".join(f"{name:{width}}  {words.printable(text)}" for name, text in told.items()))
        print("\n".join(["", *_dump(one.payload)]))


def _dump(data: bytes) -> Iterable[str]:
    """Offset, hexadecimal, text: as hexdump -C prints them."""
    for at in range(0, len(data), _ROW_BYTES):
        row = data[at : at + _ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {row.hex(' '):{_ROW_BYTES * 3}} {text}"


def _as_json(one: DeadLetter, done: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {
        "offset": one.offset,
        "time_ms": one.arrival_ms,
        "source": one.source,
        "topic": one.topic,
        "reason": one.reason,
        "payload_hex": one.payload.hex(),
        "headers": one.headers,
        "replayed": _is_in(one.offset, done),
    }


async def _replayed(config: str | None) -> Sequence[tuple[int, int]]:
    """Ranges of what was replayed; nothing where this user may not ask the node."""
    from headwater.app.outcomes import OutcomeLink

    try:
        link = await OutcomeLink.connect(find_node(config).data_dir)
    except OSError:
        return ()
    try:
        return await link.replayed()
    finally:
        link.close()


def _is_in(offset: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= offset < end for first, end in ranges)


class Replay:
    """One run over dead letters: which profile reads which, what comes of it."""

    def __init__(self, settings: Settings, done: Sequence[tuple[int, int]]) -> None:
        """Reads the profiles that the node's file names, as they are now. Raises UserError."""
        from devices.profile_files import read_profiles
        from devices.topics import TopicMatcher

        self._matcher = TopicMatcher(read_profiles(settings.profiles))
        self._ports = port_profiles(settings)
        self._node = settings.node
        self._limits = settings.decoders
        self._unknown, self._sections = settings.devices.unknown, settings.device
        self._done = done
        self._decodings: dict[int, CommandDecoding] = {}
        self.replayed = self.readings = self.before = self.foreign = 0
        self.still: dict[str, list[int]] = {}
        self.offsets: Counter[str] = Counter()

    def is_ours(self, one: DeadLetter) -> bool:
        """Whether it is a message that this node took in and that no replay has settled."""
        if one.source.startswith(_OF_RECORDS) or "hw" in one.headers or not one.key.startswith(f"{self._node}/"):
            self.foreign += 1
            return False
        if _is_in(one.offset, self._done):
            self.before += 1
            return False
        return True

    async def decode(self, batch: Sequence[DeadLetter]) -> list[tuple[CommandDecoding, list[Outcome]]]:
        """By profile, what the mended ones make of them; what is still bad is noted."""
        from devices.user_code import Message
        from gateway.ingest.outcome import Outcome
        from gateway.ingest.refused import DECODER as FRAMING

        made: dict[int, tuple[CommandDecoding, list[Outcome]]] = {}
        for one in batch:
            if one.headers.get("decoder") == FRAMING:  # garbled: no profile makes a message of it
                self.still.setdefault(one.reason, []).append(one.offset)
                continue
            decoding = self._decoding(one)
            [result] = await decoding.results([Message(one.topic, one.payload, one.arrival_ms, one.source)])
            if isinstance(result, list):
                result = self._screened(result)
            if not isinstance(result, list):
                self.still.setdefault(result.reason, []).append(one.offset)
                continue
            outcome = Outcome(one.offset, one.source, one.arrival_ms, one.topic, result, payload=one.payload)
            made.setdefault(id(decoding), (decoding, []))[1].append(outcome)
        return list(made.values())

    def _screened(self, readings: list[Reading]) -> list[Reading] | Undecodable:
        """As the node does with devices that nobody named."""
        from devices.description import section_of
        from devices.reading import Undecodable

        if not readings:
            return Undecodable("nothing in it is worth a reading")
        if self._unknown != "accept":
            for reading in readings:
                if section_of(reading.device, self._sections) is None:
                    return Undecodable(f"unknown device “{reading.device[:80]}”: no [[device]] names it")
        return readings

    def _decoding(self, one: DeadLetter) -> CommandDecoding:

        from headwater.cli.decoding import CommandDecoding

        profile = self._ports.get(one.source) or self._matcher.match(one.topic)[0]
        found = self._decodings.get(id(profile))
        if found is None:
            found = self._decodings[id(profile)] = CommandDecoding(profile, self._limits)
        return found

    async def close(self) -> None:
        """End what decodes."""
        for decoding in self._decodings.values():
            await decoding.close()

    def lines(self, *, dry: bool) -> Iterable[str]:
        """The result for people."""
        would = "would become" if dry else "became"
        yield f"{words.count(self.replayed, 'dead letter')} {would} {words.count(self.readings, 'reading')}"
        if self.before:
            yield f"{self.before:,} had been replayed before"
        if self.foreign:
            yield f"{self.foreign:,} are not this node's own messages (a sink's, or another node's)"
        for reason, offsets in sorted(self.still.items(), key=lambda item: -len(item[1])):
            shown = ", ".join(map(str, offsets[:_OFFSETS_SHOWN])) + (", …" if len(offsets) > _OFFSETS_SHOWN else "")
            yield f"{len(offsets):,} still rejected: {words.printable(reason)} (offsets {shown})"
        if self.replayed and not dry:
            yield "New messages are read by the mended profile once the node is restarted."


async def replay(config: str | None, wanted: Filter, *, dry: bool, as_json: bool) -> int:
    """Decode dead letters again and store what is good now; 1 when some are still bad. Raises UserError."""
    from headwater.app.outcomes import OutcomeLink
    from headwater.settings.load import load_settings

    status, ref = need_status(config), find_node(config)
    if status.get("ingest") is None:
        raise UserError(
            f"node {ref.node} takes no messages in", hint="Replay on the node whose dead letters these are."
        )
    try:
        link = await OutcomeLink.connect(ref.data_dir)
    except OSError as error:
        raise UserError(
            f"this user may not command the node in {ref.data_dir}: {error}", hint="Run it as the user of the node."
        ) from None
    run: Replay | None = None
    try:
        run = Replay(load_settings(ref.config).settings, await link.replayed())
        async with connected(status) as reader:
            batch: list[DeadLetter] = []
            size_bytes = 0
            async for one in dead_letters(reader, wanted):
                if run.is_ours(one):
                    batch.append(one)
                    size_bytes += len(one.payload)
                if len(batch) >= BATCH or size_bytes >= BATCH_BYTES:
                    await _send(run, batch, link, dry=dry)
                    batch, size_bytes = [], 0
            await _send(run, batch, link, dry=dry)
    finally:
        link.close()
        if run is not None:
            await run.close()
    if as_json:
        told = {"replayed": run.replayed, "readings": run.readings, "before": run.before, "foreign": run.foreign}
        sys.stdout.write(json.dumps({**told, "still_rejected": run.still}, ensure_ascii=False) + "\n")
    else:
        print("\n".join(run.lines(dry=dry)))
    return 1 if run.still else 0


async def _send(run: Replay, batch: Sequence[DeadLetter], link: OutcomeLink, *, dry: bool) -> None:
    from headwater.app.decoder_rows import parts_of

    for decoding, outcomes in await run.decode(batch):
        run.readings += sum(len(outcome.readings) for outcome in outcomes)
        if dry:
            run.replayed += len(outcomes)
            continue
        for part in parts_of(outcomes):
            done = await link.replay(decoding.profile, part)
            run.replayed += done
            run.before += len(part) - done
