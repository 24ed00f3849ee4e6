"""The table of cells by key and start against a dictionary, while windows come and go."""

from __future__ import annotations

import random

import numpy as np
import pytest

from processors.windows import index
from processors.windows.cells import Cells, Unknown, each_once, tally

Place = tuple[int, int]


def columns(places: list[Place]) -> tuple[np.ndarray, np.ndarray]:
    keys, starts = zip(*places, strict=True) if places else ((), ())
    return np.array(keys, dtype=np.int64), np.array(starts, dtype=np.int64)


@pytest.mark.parametrize("collide", [False, True])
def test_cells_are_where_a_dictionary_has_them(monkeypatch: pytest.MonkeyPatch, *, collide: bool) -> None:
    if collide:  # all of them begin their search at the same few slots
        monkeypatch.setattr(index.Index, "_first", lambda self, keys, starts: (keys + starts // 1000) % 3)
    chance = random.Random(7)
    cells, model = Cells(300), dict[Place, int]()
    places = [(key, (step - 3) * 1000) for key in range(12) for step in range(40)]
    for _ in range(300):
        fresh = [place for place in chance.sample(places, chance.randrange(40)) if place not in model]
        keys, starts = columns(fresh)
        room = 300 - len(model)
        made = cells.make(keys, starts, starts + 1000).tolist()
        model |= {place: cell for place, cell in zip(fresh, made, strict=True) if cell >= 0}
        assert made.count(-1) == max(0, len(fresh) - room)
        gone = chance.sample(sorted(model), chance.randrange(min(len(model), 40) + 1))
        freed = np.array([model.pop(place) for place in gone], dtype=np.int64)
        cells.rest(freed)
        cells.free(freed)
        if chance.random() < 0.3:  # between, cells come, go and come again as others before anybody asks for them
            assert cells.get(*columns(places)).tolist() == [model.get(place, -1) for place in places]
        assert len(cells) == len(model) == len(set(model.values()))


def test_of_equal_places_the_first_stands_for_them() -> None:
    chance = random.Random(3)
    for _ in range(50):
        rows = [(chance.randrange(4), chance.randrange(3) * 10) for _ in range(chance.randrange(12))]
        firsts, group = each_once(*columns(rows))
        assert firsts.tolist() == [row for row, place in enumerate(rows) if place not in rows[:row]]
        assert [rows[firsts[number]] for number in group] == rows


@pytest.mark.parametrize("wide", [1, 50])
def test_a_tally_has_each_number_once_and_how_often_it_came(wide: int) -> None:
    chance = random.Random(5)
    for _ in range(50):
        numbers = [chance.randrange(12) * wide for _ in range(chance.randrange(1, 30))]
        each, counts = tally(np.array(numbers, dtype=np.int64))
        assert each.tolist() == sorted(set(numbers))
        assert counts.tolist() == [numbers.count(number) for number in each.tolist()]


def test_windows_that_begin_together_are_found_as_any_others() -> None:
    chance = random.Random(11)
    asked, told = Cells(200), Cells(200)
    for step in range(200):
        start = chance.choice([step, step, step // 2, chance.randrange(step + 1)]) // 8 * 1000  # also behind the latest
        keys = np.array([chance.randrange(9) for _ in range(chance.randrange(1, 25))], dtype=np.int64)
        found, unknown = asked.find_at(keys, start)
        wanted, same = told.find(keys, np.full(len(keys), start))
        assert found.tolist() == wanted.tolist()
        assert listed(unknown) == listed(same)
        firsts = np.zeros(0, dtype=np.int64) if unknown is None else unknown.firsts[: chance.randrange(3) or None]
        for cells in (asked, told):
            if len(firsts):
                cells.make(keys[firsts], np.full(len(firsts), start), np.full(len(firsts), start + 1000))
            if step % 7 == 6:
                gone = cells.used()[step % 3 :: 3]
                cells.rest(gone)
                cells.free(gone)


def listed(unknown: Unknown | None) -> list[list[int]] | None:
    return None if unknown is None else [column.tolist() for column in unknown]
