"""A proposer inside vLLM that proposes drafts of given lengths or from given texts.

The product's drafter does all its work in each step, so that a step's time includes it. Its drafts are discarded: their
lengths depend on texts and device, and the bench has to choose the lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openseer_draft.drafter import Drafter, Drafts
from openseer_worker.vllm.drafting.proposer import GroupProposer

_SEED = 1
_WRONG_EVERY = 5

Texts = dict[tuple[int, ...], list[list[int]]]
"""Possible responses to each prompt, the likeliest first."""


@dataclass
class Given:
    """The drafts to propose. Without `texts`: `length` random tokens for each request; otherwise the rest of a text
    that begins with the request's response so far. `spoiled`: every fifth token of a text is replaced by another."""

    length: int = 0
    texts: Texts = field(default_factory=Texts)
    spoiled: bool = False

    def rest(self, tokens: NDArray[np.int32], most: int) -> list[int]:
        """Returns the continuation of `tokens` (prompt and response) in the first text that has one, at most `most`
        tokens."""
        whole = tuple(tokens.tolist())
        for prompt, texts in self.texts.items():
            if whole[: len(prompt)] != prompt:
                continue
            done = whole[len(prompt) :]
            for text in texts:
                if tuple(text[: len(done)]) == done:
                    return self._spoil(text, len(done), most)
        return []

    def _spoil(self, text: list[int], begin: int, most: int) -> list[int]:
        rest = text[begin : begin + most]
        if not self.spoiled:
            return rest
        other = text[0]
        return [other if (begin + at) % _WRONG_EVERY == 0 else token for at, token in enumerate(rest)]


GIVEN = Given()
"""Global, because the bench's engines run in the process that steps them, and vLLM creates the proposer."""


class FixedDrafter(Drafter):
    """Searches for drafts as the product does, and proposes the drafts of GIVEN."""

    def __init__(self, slots: int, max_tokens: int, memory_bytes: int, vocabulary: int) -> None:
        # Not adaptive: an adaptive drafter would stop its search, because its drafts are never accepted.
        super().__init__(slots=slots, max_tokens=max_tokens, memory_bytes=memory_bytes, adaptive=False)
        self._most, self._vocabulary = max_tokens, vocabulary
        self._random = np.random.default_rng(_SEED)

    def step(
        self,
        slots: NDArray[np.int32],
        token_ids: NDArray[np.int32],
        rows: NDArray[np.int32],
        ends: NDArray[np.int32],
        seconds: float = 0.0,
    ) -> Drafts:
        super().step(slots, token_ids, rows, ends, seconds)
        if not GIVEN.texts:
            length = min(GIVEN.length, self._most)
            tokens = self._random.integers(0, self._vocabulary, (len(ends), length), np.int32)
            return Drafts(tokens, np.full(len(ends), length, np.int32))
        pairs = zip(rows.tolist(), ends.tolist(), strict=True)
        return _padded([GIVEN.rest(token_ids[row, :end], self._most) for row, end in pairs])


class FixedProposer(GroupProposer):
    """The proposer that vLLM creates instead of the product's proposer."""

    def attach(self, runner: Any) -> None:
        super().attach(runner)
        if self._drafter is not None:
            self._drafter = FixedDrafter(self._capacity, self._most, self._memory, self._vocabulary)


def _padded(found: Sequence[list[int]]) -> Drafts:
    lengths = np.array([len(draft) for draft in found], np.int32)
    longest = int(lengths.max(initial=0))
    tokens = np.array([[*draft, *[0] * (longest - len(draft))] for draft in found], np.int32)
    return Drafts(tokens.reshape(len(found), longest), lengths)
