"""Rule files: TOML to `Rules`. All mistakes are named at once, each with file, line, key and the nearest known key.

A rule file holds `[[window]]` and `[[alert]]` tables, docs/windows.md describes every key, and `[[processor]]` tables,
which docs/processors.md describes.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

import msgspec

from headwater import resources
from headwater.errors import UserError
from headwater.toml.check import convert
from headwater.toml.places import Path, show_path
from headwater.toml.source import Source
from processors.rules.checks import Finding, about_alert, about_window, about_window_of
from processors.rules.model import AlertRule, Rules, WindowRule
from processors.user.declared import declared
from processors.user.outs import circle, why_not
from processors.user.rule import ProcessorRule

PROBLEMS_MAX = 20
_AGGREGATES = (("fields",), ("every_field",))
_UNNAMED = "unnamed"
_KINDS = ("window", "alert", "processor")
_HINT = "docs/windows.md shows every key with an example."
_PROCESSORS_HINT = "docs/processors.md (“Your own processors”) shows every key with an example."


class RuleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule file says."""

    window: tuple[WindowRule, ...] = ()
    alert: tuple[AlertRule, ...] = ()
    processor: tuple[ProcessorRule, ...] = ()


def load_rules(names: Iterable[str]) -> Rules:
    """Rules from files (names that end in `.toml`) and from rule sets that ship with Headwater (any other name).

    Raises `UserError` with file, line and key of every mistake, or with the names that ship.
    """
    source = Source("rules")
    unread: list[UserError] = []
    for name in names:
        try:
            if name.endswith(".toml"):
                source.add_file(name)
            else:
                source.add_text(f"rules {name}", _shipped(name))
        except UserError as error:
            unread.append(error)
    return _rules(source, unread)


def parse_rules(texts: Iterable[tuple[str, str]]) -> Rules:
    """Rules from (text, name of the file) pairs. Raises `UserError` with file, line and key of every mistake."""
    source = Source("rules")
    unread: list[UserError] = []
    for text, file in texts:
        try:
            source.add_text(file, text)
        except UserError as error:
            unread.append(error)
    return _rules(source, unread)


def _shipped(name: str) -> str:
    try:
        return resources.read_config("rules", f"{name}.toml")
    except FileNotFoundError:
        shipped = resources.config_names("rules")
        hint = f"Write a path that ends in .toml, or one of: {', '.join(shipped) or 'none ships yet'}."
        raise UserError(f"no rules named “{name}” ship with Headwater", hint=hint) from None


def _rules(source: Source, unread: list[UserError]) -> Rules:
    if unread:  # what stands in the others may refer to what stands in these
        raise UserError("\n".join(error.what for error in unread), hint=unread[0].hint)
    for kind in _KINDS:
        if isinstance(source.table.get(kind), dict):
            source.problem((kind,), f"[{kind}] is one of several: write [[{kind}]], two brackets on either side")
            del source.table[kind]
    found = convert(source, RuleFile, {"name": _UNNAMED})
    processors: tuple[ProcessorRule, ...] = ()
    if found is not None:
        are_whole = not any(path == ("window",) or path[2:] == ("name",) for path in source.faulty)
        _check_windows(source, found.window)
        _check_alerts(source, found, are_whole=are_whole)
        processors = _check_processors(source, found.processor)
    if source.problems:
        more = len(source.problems) - PROBLEMS_MAX
        said = [*source.problems[:PROBLEMS_MAX], *([f"and {more} more"] if more > 0 else [])]
        only_processors = all(path[:1] == ("processor",) for path in source.faulty)
        raise UserError("\n".join(said), hint=_PROCESSORS_HINT if only_processors else _HINT)
    return Rules(windows=found.window, alerts=found.alert, processors=processors) if found is not None else Rules()


def _check_windows(source: Source, rules: tuple[WindowRule, ...]) -> None:
    places: dict[str, Path] = {}
    for index, rule in enumerate(rules):
        at: Path = ("window", index)
        _tell(source, at, about_window(rule, kind_is_known=(*at, "kind") not in source.faulty))
        _tell_double(source, at, rule.name, places)


def _check_alerts(source: Source, file: RuleFile, *, are_whole: bool) -> None:
    """`are_whole`: no window is missing for a mistake of its own."""
    places: dict[str, Path] = {}
    windows = {rule.name: (index, rule) for index, rule in enumerate(file.window)}
    for number, rule in enumerate(file.alert):
        at: Path = ("alert", number)
        # One whose silent_after_s is wrong is meant to be one all the same.
        is_dead_man = rule.is_dead_man or any((*at, key) in source.faulty for key in ("silent_after_s", "missed"))
        _tell(source, at, about_alert(rule, is_dead_man=is_dead_man))
        _tell_double(source, at, rule.name, places)
        if rule.window in windows:
            index, window = windows[rule.window]
            if not any(path[:2] == ("window", index) and path[2:3] in _AGGREGATES for path in source.faulty):
                _tell(source, at, about_window_of(rule, window, is_dead_man=is_dead_man))
        elif are_whole:
            near = difflib.get_close_matches(rule.window, list(windows), n=1, cutoff=0.3)
            said = f"did you mean “{near[0]}”?" if near else f"there is {', '.join(windows) or 'none at all'}"
            _tell(source, at, [(("window",), f"there is no window named “{rule.window}”; {said}")])


def _check_processors(source: Source, rules: tuple[ProcessorRule, ...]) -> tuple[ProcessorRule, ...]:
    """The same with the paths of their files made whole; none of their code is run."""
    places: dict[str, Path] = {}
    found = []
    whole = [_with_file(source, index, rule) for index, rule in enumerate(rules)]
    told = [declared(rule) for rule in whole]
    for index, rule in enumerate(whole):
        at: Path = ("processor", index)
        _tell_double(source, at, rule.name, places)
        file = rule.file
        if not file.endswith(".py"):
            _tell(source, at, [(("file",), f"“{rules[index].file}” is no Python file: its name ends in .py")])
        elif not os.path.isfile(file):
            _tell(source, at, [(("file",), f"there is no file {file}")])
        for number, topic in enumerate(rule.out):
            if why := why_not(topic, rule.topic):
                _tell(source, at, [(("out", number), f"it cannot write to “{topic}”: {why}")])
        if len(way := circle(told, index)) > 2 or (way and not rule.out):  # to itself, as it stands here, is told above
            who = "out" if rule.out else "file"
            message = f"its records would come back to it and go round for ever: {' → '.join(way)}"
            others = [one.name for one in told if one.topic in way and one.name != rule.name]
            message += f" (by way of {', '.join(others)})" if others else ""
            _tell(source, at, [((who,), message)])
        found.append(rule)
    return tuple(found)


def _with_file(source: Source, index: int, rule: ProcessorRule) -> ProcessorRule:
    """With its file's path made whole."""
    folder = os.path.dirname(os.path.abspath(source.place(("processor", index)).file))
    return msgspec.structs.replace(rule, file=os.path.normpath(os.path.join(folder, rule.file)))


def _tell(source: Source, at: Path, findings: Iterable[Finding]) -> None:
    """Findings about a rule, without those about a key that was found wrong before."""
    for key, message in findings:
        path = (*at, *key)
        if not any(len(found) > len(at) and _meet(found, path) for found in source.faulty):
            source.problem(path, f"{show_path(path)}: {message}")


def _meet(one: Path, other: Path) -> bool:
    """Whether one of two paths is the other or within it."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _tell_double(source: Source, at: Path, name: str, places: dict[str, Path]) -> None:
    first = places.setdefault(name, at)
    if first is not at:
        message = f"a second {at[0]} is named “{name}”; the first stands at {source.place(first)}"
        _tell(source, at, [(("name",), message)])
