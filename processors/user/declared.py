"""What a user's processor class says of its topics, read from its file without running any of it."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec

from processors.user.rule import ProcessorRule

_TOPIC = "readings"


def declared(rule: ProcessorRule) -> ProcessorRule:
    """The rule with the topics that its class declares, where it leaves them to the class.

    Unchanged where the file cannot be read or says it otherwise than with plain texts: what it does then shows when it
    is loaded.
    """
    if rule.topic and rule.out:
        return rule
    try:
        tree = ast.parse(Path(rule.file).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return rule
    classes = {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}
    found = classes.get(rule.class_) if rule.class_ else _only(classes)
    if found is None:
        return rule
    topic, out = _said(classes, found, "topic"), _said(classes, found, "out")
    if topic is None or out is None:
        return rule
    return msgspec.structs.replace(
        rule, topic=rule.topic or (topic or (_TOPIC,))[0], out=rule.out or tuple(filter(None, out)) or (rule.name,)
    )


def _only(classes: dict[str, ast.ClassDef]) -> ast.ClassDef | None:
    """The one class that is a processor; None when there are several, or none."""
    mine = [one for one in classes.values() if any("Processor" in name for name in _bases(classes, one))]
    return mine[0] if len(mine) == 1 else None


def _bases(classes: dict[str, ast.ClassDef], one: ast.ClassDef, depth: int = 0) -> list[str]:
    names = [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in one.bases]
    further = [
        name for base in names if base in classes and depth < 10 for name in _bases(classes, classes[base], depth + 1)
    ]
    return names + further


def _said(classes: dict[str, ast.ClassDef], one: ast.ClassDef, name: str) -> tuple[str, ...] | None:
    """An attribute's texts, its own or of a base in the same file; () when it is not there, None when it is no text."""
    for kind in [one, *(classes[base] for base in _bases(classes, one) if base in classes)]:
        for line in kind.body:
            if isinstance(line, ast.Assign):
                names, value = [ast.unparse(target) for target in line.targets], line.value
            elif isinstance(line, ast.AnnAssign) and line.value is not None:
                names, value = [ast.unparse(line.target)], line.value
            else:
                continue
            if name in names:
                return _texts(value)
    return ()


def _texts(value: ast.expr) -> tuple[str, ...] | None:
    try:
        found = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(found, str):
        return (found,)
    return tuple(found) if isinstance(found, (tuple, list)) and all(isinstance(one, str) for one in found) else None
