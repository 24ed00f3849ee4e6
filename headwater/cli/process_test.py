"""`headwater process test`: one processor, the same readings, twice: whole and in pieces. Any difference fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec

from headwater.app.processor_trial import Told, Trial
from headwater.app.processor_watch import new_trace, read_trace
from headwater.cli import words
from headwater.cli.readings_file import read_readings
from headwater.errors import UserError
from processors.rules.files import load_rules
from processors.user.host import DEADLETTER
from processors.user.rule import ProcessorRule

TIME_MAX_MS = 5_000
RUN_S_MAX = 600.0
CUTS = 200
SHOWN = 5


def run_test(file: str, readings: str | None, *, name: str, count: int, seed: int, show: bool) -> int:
    """Print what is found; 0 when both runs say the same. Raises `UserError` for what cannot be run."""
    rule = _rule(file, name)
    rows = read_readings(readings) if readings is not None else []
    trial = Trial(
        rule=rule, rows=rows, count=0 if rows else count, seed=seed, cuts=0, time_max_ms=TIME_MAX_MS, trace=-1
    )
    with ThreadPoolExecutor(2) as pool:  # most of their time goes into starting Python
        in_pieces = pool.submit(_trial, msgspec.structs.replace(trial, cuts=CUTS), hash_seed="2")
        first = _trial(trial, hash_seed="1")
        second = in_pieces.result()
    if not rows:
        asked = ", ".join(first.asked) or "no field"
        print(f"no file of readings given: {count:,} are made up (seed {seed}), with what it asks for: {asked}")
    for value, key, time_ms, topic in first.outputs[: SHOWN if show else 0]:
        print(f"  {topic}  {key}  {time_ms}  {value.decode()}")
    letters = Counter(one[3] for one in first.outputs)
    out = ", ".join(f"{count:,} to {topic}" for topic, count in letters.items()) or "nothing"
    print(f"{words.count(first.readings, 'reading')}: {out}")
    if letters[DEADLETTER]:
        print(f"  dead letters: it raises for {words.count(letters[DEADLETTER], 'reading')}; the first:")
        letter = msgspec.json.decode(next(value for value, _, _, topic in first.outputs if topic == DEADLETTER))
        reading = msgspec.json.encode(letter["reading"]).decode()
        print(f"  {letter['reason']}; the reading: {reading[:300]}")
    difference = _difference(first, second)
    if difference:
        print(f"NOT THE SAME when the readings come in pieces, with restarts between them:\n{difference}")
        print("What decides must be in the readings, the state or the timers: no clock, chance, global or attribute.")
        return 1
    print(f"the same whole and in {CUTS + 1} pieces, with a restart between each two")
    if letters[DEADLETTER] >= max(first.readings, 1):
        print("FAILED: not one reading was taken, each is a dead letter")
        return 1
    return 0


def _rule(file: str, name: str) -> ProcessorRule:
    if not file.endswith(".toml"):
        return ProcessorRule(name="test", file=os.path.abspath(file), class_=name)
    found = load_rules([file]).processors
    chosen = [rule for rule in found if not name or rule.name == name]
    if len(chosen) != 1:
        names = ", ".join(rule.name for rule in found)
        raise UserError(f"{file} has {names or 'no processor'}", hint="Choose one with --name." if names else "")
    return chosen[0]


def _trial(trial: Trial, *, hash_seed: str) -> Told:
    trace = new_trace()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "headwater.app.processor_trial"],
            input=msgspec.msgpack.encode(msgspec.structs.replace(trial, trace=trace)),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            pass_fds=(trace,),
            timeout=RUN_S_MAX,
            check=False,
        )
        if not done.stdout:
            place = read_trace(trace, trial.rule.file)
            what = f"{place}still at it after {TIME_MAX_MS / 1000:g} s" if place else f"it ended with {done.returncode}"
            raise UserError(f"{trial.rule.file}: {what}", hint="A call of a processor must come to an end.")
    finally:
        os.close(trace)
    told = msgspec.msgpack.decode(done.stdout, type=Told)
    if told.error:
        raise UserError(told.error, hint=told.hint)
    return told


def _difference(first: Told, second: Told) -> str:
    for number, (one, other) in enumerate(zip(first.outputs, second.outputs, strict=False), 1):
        if one != other:
            return f"  output {number}: {_shown(one)}\n  in pieces: {_shown(other)}"
    if len(first.outputs) == len(second.outputs):
        return ""
    longer, which = (first, "only whole") if len(first.outputs) > len(second.outputs) else (second, "only in pieces")
    number = min(len(first.outputs), len(second.outputs))
    return f"  output {number + 1}, {which}: {_shown(longer.outputs[number])}"


def _shown(output: tuple[bytes, str, int, str]) -> str:
    value, key, time_ms, topic = output
    return f"{topic}  {key}  {time_ms}  {value.decode()[:300]}"
