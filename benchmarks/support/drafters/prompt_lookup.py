"""vLLM's method `ngram` in plain Python: a draft is the continuation of an earlier occurrence of the last tokens."""

import numpy as np
from numpy.typing import NDArray

from support.drafters.replay import Draft, Row

Tokens = NDArray[np.int32]


class PromptLookup:
    """Searches the last `longest` to `shortest` tokens of a request in its own prompt and response. The longest match
    counts, and the first one of several, as in vLLM."""

    def __init__(self, most_tokens: int = 8, shortest: int = 2, longest: int = 5) -> None:
        self.clock: list[float] = []
        self._most, self._sizes = most_tokens, range(longest, shortest - 1, -1)

    def know(self, group: int, index: int, prompt: Tokens, response: Tokens) -> None:
        """Does nothing, since other requests are not used."""

    def open(self, row: Row) -> None:
        """It keeps nothing."""

    def close(self, row: Row) -> None:
        """It keeps nothing."""

    def step(self, rows: list[Row], seconds: float) -> list[Draft]:
        return [Draft(self._draft(row.tokens[: row.known])) for row in rows]

    def _draft(self, text: Tokens) -> list[int]:
        whole = text.astype(np.int32).tobytes()
        for size in self._sizes:
            if len(text) <= size:
                continue
            at = whole.find(whole[-4 * size :], 0, len(whole) - 4)
            while at >= 0 and at % 4:
                at = whole.find(whole[-4 * size :], at + 1, len(whole) - 4)
            if at >= 0:
                return text[at // 4 + size :][: self._most].tolist()
        return []
