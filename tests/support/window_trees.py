"""Readings of a window in the order in which they are added up, and the naive aggregates over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Tree = list[Any]
"""Readings in the order in which they are added up; a list among them is added up by itself first."""


def flat(tree: Tree) -> list[Any]:
    return [one for item in tree for one in (flat(item) if isinstance(item, list) else [item])]


def total(tree: Tree, of: Callable[[Any], float]) -> float:
    found = 0.0
    for item in tree:
        found += total(item, of) if isinstance(item, list) else of(item)
    return found


def is_number(value: Any) -> bool:
    return type(value) in (int, float, bool)


def counts(value: Any, *, texts: bool) -> bool:
    return is_number(value) or (texts and isinstance(value, str))


def with_field(tree: Tree, name: str) -> Tree:
    found = []
    for item in tree:
        if isinstance(item, list):
            found.append(with_field(item, name))
        elif is_number(item.fields.get(name)):
            found.append(item.fields[name])
    return found


def aggregate(name: str, tree: Tree) -> Any:
    numbers = flat(tree)
    match name:
        case "count":
            return len(numbers)
        case "min":
            return float(min(numbers))
        case "max":
            return float(max(numbers))
        case "mean":
            return total(tree, float) / len(numbers)
    sines = total(tree, lambda number: math.sin(math.radians(number)))
    cosines = total(tree, lambda number: math.cos(math.radians(number)))
    if math.hypot(sines, cosines) <= 1e-9 * len(numbers):
        return None
    degrees = math.degrees(math.atan2(sines, cosines)) % 360
    return degrees if degrees < 360 else 0.0
