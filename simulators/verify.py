"""Did everything that was acknowledged arrive? A ledger against a node's log, read from outside.

Run: `headwater simulate verify --ledger FILE --kafka HOST:PORT`. It reads topics `readings` and `deadletter` with
librdkafka at `read_committed` and compares them with what the simulators remember: every acknowledged reading is
there, with the values that its device sent, and as often as it was sent; acknowledged garbage is in the dead letters.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from headwater.errors import UserError
from simulators.books import GATEWAY_DEVICE, Bits
from simulators.ledger import LedgerView
from simulators.options import make_parser, parse_duration
from simulators.verdict import LogReader

EXAMPLES_MAX = 5
ANSWER_S_MAX = 20.0
_NOT_COMPARED = frozenset({"ts", "device"})
"""The time becomes the record's own, the name its key."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Findings(msgspec.Struct, kw_only=True):
    """The result in numbers. `duplicates`: copies beyond those that a device sent itself (`repeated`)."""

    sent: int = 0
    acknowledged: int = 0
    found: int = 0
    missing: int = 0
    different: int = 0
    duplicates: int = 0
    repeated: int = 0
    garbage_acknowledged: int = 0
    garbage_missing: int = 0
    resent: int = 0
    unknown: int = 0
    """Readings of devices that the ledger does not know; nobody's fault."""

    @property
    def faults(self) -> list[str]:
        """A sentence for each promise that is broken."""
        said = [
            (self.missing, "acknowledged readings are not in the log"),
            (self.different, "readings have other values than their device sent"),
            (self.duplicates, "readings are there more often than they were sent"),
            (self.garbage_missing, "acknowledged messages that nobody can decode are not among the dead letters"),
        ]
        return [f"{count} {words}" for count, words in said if count]


class Verification:
    """Fed with records in any order; remembers a bit for each reading. `node` empty: any."""

    def __init__(self, ledger: LedgerView, node: str = "") -> None:
        self.examples: list[str] = []
        self._ledger, self._node = ledger, node
        self._devices = ledger.devices()
        self._seen: dict[str, Bits] = {}
        self._copies: dict[str, Counter[int]] = {}
        self._garbage: Counter[bytes] = Counter()
        self._different = self._unknown = 0

    def _device_of(self, key: bytes) -> str | None:
        """A device's name: the key's part behind the node, or a level of it where a topic stands for a device."""
        node, _, name = key.decode(errors="replace").partition("/")
        if self._node and node != self._node:
            return None
        if name in self._devices:
            return name
        return next((level for level in name.split("/") if level in self._devices), None)

    def reading(self, key: bytes | None, value: bytes | None) -> None:
        """One record of `readings`."""
        if (key or b"").endswith(GATEWAY_DEVICE.encode()):
            return
        device = self._device_of(key or b"")
        values = _decode(value or b"{}")
        seq = values.get("seq")
        if device is None or not isinstance(seq, int):
            self._unknown += 1
            return
        if not self._seen.setdefault(device, Bits()).add(seq):
            self._copies.setdefault(device, Counter())[seq] += 1
        sent = self._ledger.reading(device, seq)
        if sent is None or not _same(_decode(sent), values):
            self._different += 1
            self._show(f"{device} number {seq}: sent {sent!r}, in the log {value!r}")

    def dead_letter(self, value: bytes | None) -> None:
        """One record of `deadletter`."""
        self._garbage[value or b""] += 1

    def _show(self, example: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)

    def findings(self) -> Findings:
        """What the records so far amount to."""
        ledger = self._ledger
        found = Findings(
            sent=ledger.sent, different=self._different, unknown=self._unknown, resent=ledger.total("resent")
        )
        self.examples = self.examples[:EXAMPLES_MAX]
        for device in self._devices:
            seen, again = self._seen.get(device, Bits()), set(ledger.repeated(device))
            for seq in ledger.acked_seqs(device):
                found.acknowledged += 1
                if seq in seen:
                    found.found += 1
                else:
                    found.missing += 1
                    self._show(f"{device} number {seq} was acknowledged and is not there")
            found.repeated += len(again)
            for seq, copies in self._copies.get(device, Counter[int]()).items():
                found.duplicates += max(0, copies - (seq in again))
        garbage = Counter(ledger.garbage_acked())
        found.garbage_acknowledged = garbage.total()
        found.garbage_missing = (garbage - self._garbage).total()
        return found


def _same(sent: dict[str, Any], stored: dict[str, Any]) -> bool:
    return all(stored.get(name) == value for name, value in sent.items() if name not in _NOT_COMPARED)


def verify(ledger: LedgerView, address: str, *, node: str, wait_s: float) -> tuple[Findings, list[str]]:
    """Read until nothing is missing, or `wait_s` have passed. Raises `UserError` when the node does not answer."""
    verification = Verification(ledger, node)
    until_s = time.monotonic() + wait_s
    reader = LogReader(
        address,
        {
            "readings": lambda record: verification.reading(record.key(), record.value()),
            "deadletter": lambda record: verification.dead_letter(record.value()),
        },
    )
    try:
        while True:
            if not reader.read_to_end(ANSWER_S_MAX):
                hint = "Is the node running? `headwater status` names its Kafka address, which goes into --kafka."
                raise UserError(f"{address} does not answer", hint=hint)
            found = verification.findings()
            if not (found.missing or found.garbage_missing) or time.monotonic() >= until_s:
                return found, verification.examples
            time.sleep(0.5)  # what is on its way has a moment more
    finally:
        reader.close()


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring. Exit 0 all there, 1 not."""
    parser = make_parser(
        "headwater simulate verify",
        "Compare a ledger of the simulators with a node's log: is everything acknowledged there, once, as it was sent?"
        " Exit 0 yes, 1 no.",
        [
            "headwater simulate verify --ledger site.db",
            "headwater simulate verify --ledger site.db --kafka central.example:9092 --node edge-1 --wait 5m",
        ],
    )
    add = parser.add_argument
    add("--ledger", required=True, metavar="FILE", help="what `--ledger` of a simulator has written")
    add("--kafka", default="127.0.0.1:9092", metavar="HOST:PORT", help="Kafka address of the edge or the central")
    add("--node", default="", metavar="NAME", help="only readings of this node; any if left out")
    add("--wait", default="30s", metavar="TIME", help="how long to wait for what is still on its way")
    add("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    ledger = _open(options.ledger)
    try:
        found, examples = verify(ledger, options.kafka, node=options.node, wait_s=parse_duration(options.wait))
    finally:
        ledger.close()
    if options.json:
        text = msgspec.json.encode({**msgspec.structs.asdict(found), "examples": examples}).decode()
    else:
        text = "\n".join(_lines(found, examples))
    sys.stdout.write(text + "\n")
    return 1 if found.faults else 0


def _open(path: str) -> LedgerView:
    try:
        ledger = LedgerView(path)
        ledger.devices()
    except sqlite3.Error as error:  # no such file, no such table, not a database
        raise UserError(f"{path} is no ledger: {error}", hint="Name what a simulator wrote with --ledger.") from None
    return ledger


def _lines(found: Findings, examples: Iterable[str]) -> list[str]:
    lines = [
        f"acknowledged  {found.acknowledged:>9,} of {found.sent:,} sent; {found.repeated:,} sent twice on purpose",
        f"in the log    {found.found:>9,}",
        f"missing       {found.missing:>9,}",
        f"different     {found.different:>9,}",
        f"duplicates    {found.duplicates:>9,}  ({found.resent:,} were sent again by MQTT itself)",
        f"dead letters  {found.garbage_acknowledged - found.garbage_missing:>9,} of {found.garbage_acknowledged:,}",
    ]
    return [*lines, *(f"  {example}" for example in examples), *(found.faults or ["all is there"])]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
