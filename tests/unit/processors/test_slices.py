"""Where a hopping rule's panes are, as its marks ask for them, against the table of cells itself."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np

from processors.windows.cells import Cells
from processors.windows.slices import Slices

PANE_MS, COUNT = 10, 6


def test_what_is_kept_of_panes_is_what_is_there_while_they_come_and_go() -> None:
    chance = random.Random(2)
    cells = Cells(2_000)
    slices = Slices(cells, PANE_MS)
    node_of = np.array([key % 2 for key in range(12)], dtype=np.int64)
    answers = 0
    for step in range(3, 150):
        come(cells, slices, node_of[: 8 if step < 70 else 12], step, chance)
        if step % 17 == 0:
            go(cells, slices, node_of, (step - chance.choice([2, 30])) * PANE_MS)
        if step % 61 == 0:
            slices.forget()
        node, until = step % 2, (step - 1) * PANE_MS
        keys = np.flatnonzero(node_of[: 8 if step < 70 else 12] == node)
        first = max(0, until - chance.choice([COUNT, COUNT + 3]) * PANE_MS)
        times = range(first, until, PANE_MS)
        found = slices.of_node(node, keys, first, until)
        assert found.tolist() == [[at(cells, key, time) for key in keys.tolist()] for time in times], step
        for wanted in (keys, keys[chance.randrange(len(keys)) :], np.arange(3)):
            starts = np.array([first + chance.choice([0, 0, 20]) for _ in wanted], dtype=np.int64)
            panes = slices.at_hand(wanted, starts, 3).reshape(3, -1)
            assert panes.T.tolist() == [
                [at(cells, key, start + turn * PANE_MS) for turn in range(3)]
                for key, start in zip(wanted.tolist(), starts.tolist(), strict=True)
            ]
            answers += int((panes >= 0).sum())
        slices.let_go()
    assert answers > 2_000


def test_a_device_far_ahead_of_the_others_takes_no_room_for_them() -> None:
    cells = Cells(100_000)
    slices = Slices(cells, PANE_MS)
    keys, later = np.arange(1_000), np.arange(10_000, dtype=np.int64) * PANE_MS + 3 * PANE_MS
    for time in range(0, 3 * PANE_MS, PANE_MS):
        starts = np.full(len(keys), time)
        cells.make(keys, starts, starts + PANE_MS)
    assert (slices.of_node(0, keys, 0, 3 * PANE_MS) >= 0).all()
    first = np.zeros(len(later), dtype=np.int64)
    made = cells.make(first, later, later + PANE_MS)
    tracemalloc.start()
    slices.came(made, first, first, later)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 << 20
    found = slices.of_node(0, keys, 2 * PANE_MS, 5 * PANE_MS)
    assert found[1:, 0].tolist() == made[:2].tolist()
    assert (found[1:, 1:] == -1).all()


def come(cells: Cells, slices: Slices, node_of: np.ndarray, step: int, chance: random.Random) -> None:
    """New panes, most of them of the latest time."""
    times = [step * PANE_MS] * 9 + [max(0, step - chance.randrange(9)) * PANE_MS for _ in range(chance.choice([0, 2]))]
    places = {(chance.randrange(len(node_of)), time) for time in times}
    fresh = sorted(place for place in places if at(cells, *place) < 0)
    if fresh:
        keys, starts = (np.array(column, dtype=np.int64) for column in zip(*fresh, strict=True))
        made = cells.make(keys, starts, starts + PANE_MS)
        slices.came(made, node_of[keys], keys, starts)


def go(cells: Cells, slices: Slices, node_of: np.ndarray, until: int) -> None:
    used = cells.used()
    gone = used[cells.start[used] < until]
    if len(gone):
        slices.went(node_of[cells.key[gone]], cells.start[gone])
        cells.rest(gone)
        cells.free(gone)


def at(cells: Cells, key: int, start: int) -> int:
    return int(cells.get(np.array([key]), np.array([start]))[0])
