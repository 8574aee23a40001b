"""Proposes random drafts of given lengths in turn, inside vLLM, and measures the steps that verify them."""

from statistics import median

import numpy as np
from numpy.typing import NDArray

_SEED = 1


class Probe:
    """One measurement of steps with `rows` rows: drafts of each of `lengths` in turn, `rounds` times."""

    def __init__(self, rows: int, lengths: list[int], rounds: int, vocabulary: int) -> None:
        self._rows = rows
        self._lengths = lengths * rounds
        self._random = np.random.default_rng(_SEED)
        self._vocabulary = vocabulary
        self._last: int | None = None
        self._seconds: dict[int, list[float]] = {length: [] for length in lengths}

    def drafts(self, rows: int, seconds: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Returns the next drafts: tokens int32 [rows, length], and lengths int32 [rows]. `seconds`: duration of the
        step that verified the last drafts; 0 if unknown."""
        if self._last is not None and seconds and rows == self._rows:
            self._seconds[self._last].append(seconds)
        self._last = self._lengths.pop() if self._lengths and rows == self._rows else None
        length = self._last or 0
        tokens = self._random.integers(0, self._vocabulary, (rows, length), np.int32)
        return tokens, np.full(rows, length, np.int32)

    def medians(self) -> list[tuple[int, float]]:
        """Returns (draft tokens per row, median seconds of a step) for each measured length."""
        return [(length, median(found)) for length, found in self._seconds.items() if found]
