"""Synthetic groups of long responses that are as similar to each other as the paper's.

The acceptance lengths with 0, 1, 5 and 15 siblings are near those of its table (1.70, 2.04, 2.32 and 2.53 tokens per
step).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
VOCABULARY = 32_000
"""Token ids are drawn by Zipf's law, as words are."""


@dataclass(frozen=True)
class Style:
    """Parameters of a group's texts: phrases and their successors, preferences of responses, new tokens."""

    phrases: int = 2000
    phrase_tokens: float = 4.0
    """Mean number of tokens in a phrase."""
    followers: int = 4
    """Number of usual successors of a phrase."""
    jump: float = 0.15
    """Probability of another phrase in place of a usual successor."""
    news: float = 0.07
    """Probability of a few new tokens after a phrase."""
    repeat: float = 0.22
    """Probability that a response repeats a part of its own earlier text."""
    repeat_tokens: float = 14.0
    slip: float = 0.03
    """Share of a phrase's tokens that are replaced, followed by another token, or left out."""
    habit: float = 0.35
    """Share of the phrases that a response prefers."""


def synthetic_group(responses: int, tokens: int, seed: int, style: Style | None = None) -> list[Tokens]:
    """The responses to one prompt, by number and length in tokens."""
    chance = np.random.default_rng(seed)
    language = _Language(style or Style(), chance)
    return [language.response(tokens) for _ in range(responses)]


class _Language:
    """The phrases of one group and their successors."""

    def __init__(self, style: Style, chance: np.random.Generator) -> None:
        self._style, self._chance = style, chance
        self._words = np.cumsum(_zipf(VOCABULARY, 1.05))
        self._popular = np.cumsum(_zipf(style.phrases, 0.7))
        self._next = np.cumsum(_zipf(style.followers, 1.2))
        lengths = 2 + np.minimum(20, chance.geometric(1.0 / (style.phrase_tokens - 1), style.phrases))
        self._phrases = [self._fresh(int(length)) for length in lengths]
        self._followers = chance.integers(0, style.phrases, (style.phrases, style.followers))

    def response(self, tokens: int) -> Tokens:
        """One response, with its own preferred phrases."""
        style, chance = self._style, self._chance
        preferred = chance.random(style.phrases) < style.habit
        written: list[int] = []
        phrase = self._popular_phrase()
        while len(written) < tokens:
            if chance.random() < style.news:
                written += self._fresh(int(chance.integers(2, 10)))
            if chance.random() < style.repeat and len(written) > 100:
                start = max(0, len(written) - 1 - int(chance.exponential(2000)))
                length = int(chance.geometric(1.0 / style.repeat_tokens))
                written += self._slipped(written[start : start + length])
                continue
            written += self._slipped(self._phrases[phrase])
            phrase = self._after(phrase, preferred)
        return np.array(written[:tokens], np.int32)

    def _after(self, phrase: int, preferred: NDArray[np.bool_]) -> int:
        """Draws up to three times, until a successor is one that this response prefers."""
        following = phrase
        for _ in range(3):
            if self._chance.random() < self._style.jump:
                following = self._popular_phrase()
            else:
                following = int(self._followers[phrase, np.searchsorted(self._next, self._chance.random())])
            if preferred[following]:
                break
        return following

    def _popular_phrase(self) -> int:
        return min(self._style.phrases - 1, int(np.searchsorted(self._popular, self._chance.random())))

    def _fresh(self, count: int) -> list[int]:
        drawn = np.searchsorted(self._words, self._chance.random(count))
        return np.minimum(drawn, VOCABULARY - 1).tolist()

    def _slipped(self, tokens: list[int]) -> list[int]:
        """A copy with slips: in one third each a token is replaced, added or left out."""
        slips = self._chance.random(len(tokens)) < self._style.slip
        if not slips.any():
            return tokens
        copy: list[int] = []
        for token, slip in zip(tokens, slips.tolist(), strict=True):
            kind = int(self._chance.integers(0, 3)) if slip else None
            if kind in (None, 1):
                copy.append(token)
            if kind in (0, 1):
                copy += self._fresh(1)
        return copy


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    return weights / weights.sum()
