"""The process in which `headwater process test` runs a processor once: `python -P -m headwater.app.processor_trial`.

One frame on stdin (`Trial`), one on stdout (`Told`). A process of its own, with a hash seed of its own, so that what
depends on the order of sets, on module globals or on the clock shows; and an endless loop ends.
"""

from __future__ import annotations

import os
import sys
from random import Random
from typing import Any

import msgspec

from headwater.app.no_fork import refuse_forks
from headwater.app.processor_watch import ProcessWatches
from headwater.errors import UserError
from processors.user.generated import generated, names_asked, with_marks
from processors.user.loading import load
from processors.user.partition import Watch
from processors.user.rule import ProcessorRule
from processors.user.trying import whole


class Trial(msgspec.Struct, kw_only=True):
    """`rows` to run, or `count` that are made up; cut into blocks by `cuts`, with a restart between them, or whole."""

    rule: ProcessorRule
    rows: list[tuple[str, int, dict[str, Any]]]
    count: int
    seed: int
    cuts: int
    time_max_ms: int
    trace: int


class Told(msgspec.Struct, kw_only=True):
    """What came of it; `error`: it could not be run. An output is (value, key, time, topic)."""

    error: str = ""
    hint: str = ""
    asked: list[str] = []
    readings: int = 0
    outputs: list[tuple[bytes, str, int, str]] = []


def main() -> int:
    """One trial."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    trial = msgspec.msgpack.decode(requests.read(), type=Trial)
    watches = ProcessWatches(trial.trace, trial.time_max_ms / 1000)
    watches.alarm(30.0)
    refuse_forks()
    try:
        told = _run(trial, watches.of(0))
    except UserError as error:
        told = Told(error=error.what, hint=error.hint)
    answers.write(msgspec.msgpack.encode(told))
    answers.close()
    return 0


def _run(trial: Trial, watch: Watch) -> Told:
    loaded = load(trial.rule)
    asked: list[str] = []
    if trial.count:
        random = Random(trial.seed)  # noqa: S311 - the same each time is what is wanted
        asked = names_asked(loaded, random, watch)
        rows = generated(loaded.rule, asked, trial.count, random)
    else:
        rows = with_marks(trial.rows)
    places = Random(trial.cuts)  # noqa: S311 - as above
    cuts = sorted(places.sample(range(1, len(rows)), min(len(rows) - 1, trial.cuts)))
    made = whole(loaded, rows, cuts, restarts=trial.cuts > 0, watch=watch)
    outputs = [(msgspec.json.encode(one.value), one.key, one.time_ms, one.topic) for one in made]
    return Told(asked=asked, readings=trial.count or len(trial.rows), outputs=outputs)


if __name__ == "__main__":
    sys.exit(main())
