"""One suffix automaton, with the queries of the tests."""

# Functions that numba compiled have no types.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence

import numpy as np

from openseer_draft import arena as memory
from openseer_draft.arena import COUNT, GROUP_COLUMNS, LENGTH, LINK, ROOT, TARGET, TOKEN
from openseer_draft.automaton import append, target


class Automaton:
    """A single group in an arena of its own."""

    def __init__(self, memory_bytes: int = 8 * 2**20) -> None:
        self._arena = memory.new_arena(memory_bytes)
        self._groups = np.zeros((1, GROUP_COLUMNS), np.int32)
        self._open()

    def _open(self) -> None:
        assert memory.new_group(self._arena, self._groups, 0)
        self._ends: dict[int, int] = {}

    @property
    def _root(self) -> int:
        return int(self._groups[0, ROOT])

    def append(self, number: int, tokens: Sequence[int]) -> int:
        """Appends to text `number`; returns the number of appended tokens."""
        text = np.array(tokens, np.int32)
        last = self._ends.get(number, self._root)
        end, done = append(self._arena, self._groups, 0, number + 1, np.int32(last), text, 0, len(text))
        self._ends[number] = int(end)
        return int(done)

    def free(self) -> None:
        """Frees all texts, and begins an empty group."""
        memory.free_group(self._arena, self._groups, 0)
        empty = memory.used_bytes(self._arena)
        assert empty == 0
        self._open()

    def used_bytes(self) -> int:
        """The bytes of the texts, without the root."""
        return memory.used_bytes(self._arena) - memory.STATE_BYTES

    def _state(self, tokens: Sequence[int]) -> int:
        state = self._root
        for token in tokens:
            state = int(target(self._arena, state, token)) if state else 0
        return state

    def count(self, tokens: Sequence[int]) -> int:
        """The number of occurrences of the tokens."""
        return int(self._arena.states[self._state(tokens), COUNT])

    def best_next(self, tokens: Sequence[int]) -> int | None:
        """The most frequent token after them, if any."""
        row = self._arena.states[self._state(tokens)]
        return int(row[TOKEN]) if row[TARGET] else None

    def longest_match(self, number: int) -> int:
        """Length of the longest suffix of a text that occurs more often than the text."""
        states = self._arena.states
        return int(states[states[self._ends[number], LINK], LENGTH])
