"""Numbers of keys by their bytes, of all rows of a block together: a hash table, and every byte compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from processors.pieces import WORD, Ints, Pieces
from processors.windows.index import Index

KEY_BYTES_MAX = 64
"""Longer ones are not found here."""
_BY = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(29)


class KeyIndex:
    """Keys in the order in which they were given. Two whose hashes are the same cannot both be found."""

    def __init__(self) -> None:
        self._slots = Index()
        self._known = 0
        self._hashes: Ints = np.zeros(0, dtype=np.int64)
        self._lengths: Ints = np.zeros(0, dtype=np.int64)
        self._words: list[npt.NDArray[np.uint64]] = []  # the first eight bytes of all, the next eight of all, …

    def learn(self, names: Sequence[str]) -> None:
        """All keys there are; those that were given before are not looked at."""
        if self._known == len(names):
            return
        fresh = Pieces.of([name.encode() for name in names[self._known :]])
        words, hashes = _hashed(fresh)
        first = np.zeros(len(fresh), dtype=np.bool_)
        first[np.unique(hashes, return_index=True)[1]] = True
        known = self._found(hashes, fresh.lengths) >= 0
        cells = np.flatnonzero(first & ~known & (fresh.lengths <= KEY_BYTES_MAX)) + self._known
        self._hashes = np.concatenate([self._hashes, hashes])
        self._lengths = np.concatenate([self._lengths, fresh.lengths])
        none = np.zeros(self._known, dtype=np.uint64)
        while len(self._words) < len(words):
            self._words.append(none)
        for place, old in enumerate(self._words):
            new = words[place] if place < len(words) else np.zeros(len(fresh), dtype=np.uint64)
            self._words[place] = np.concatenate([old, new])
        self._slots.add(cells, self._hashes, self._lengths)
        self._known = len(names)

    def find(self, keys: Pieces) -> Ints:
        """The number of each; -1 where it is not known here."""
        words, hashes = _hashed(keys)
        found = self._found(hashes, keys.lengths)
        same = found >= 0
        for place, theirs in enumerate(words):
            if place < len(self._words):
                same &= self._words[place][found] == theirs
        # What is longer than all that are known is equal to none in its length.
        return np.where(same, found, -1)

    def _found(self, hashes: Ints, lengths: Ints) -> Ints:
        if not self._known:
            return np.full(len(hashes), -1, dtype=np.int64)
        return self._slots.find(hashes, lengths, self._hashes, self._lengths)


def _hashed(keys: Pieces) -> tuple[list[npt.NDArray[np.uint64]], Ints]:
    words = []
    mixed = np.zeros(len(keys), dtype=np.uint64)
    for begin in range(0, min(int(keys.lengths.max(initial=0)), KEY_BYTES_MAX), WORD):
        word = keys.word(keys.begins + begin, np.clip(keys.lengths - begin, 0, WORD))
        words.append(word)
        mixed = (mixed ^ word) * _BY
        mixed ^= mixed >> _FOLD
    return words, mixed.view(np.int64)
