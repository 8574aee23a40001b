"""What is to be sampled: groups of responses with their lengths, made from a model of lengths or taken from a run."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupLengths:
    """A prompt of so many tokens, and the lengths of its responses, the probe's first."""

    prompt: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LengthModel:
    """A model of lengths in two levels: the logarithm of a response's length is that of its group's typical length,
    plus noise of its own; what is longer than `cap` ends there.

    `mean` of what comes out, in tokens; `spread`: standard deviation of the logarithm over all; `correlation`: the part
    of its variance that lies between groups.
    """

    mean: float
    cap: int
    spread: float
    correlation: float

    def draw(self, groups: int, size: int, seed: int, *, prompt: int = 256) -> list[GroupLengths]:
        """Groups of `size` responses, the same for one seed."""
        chance = random.Random(seed)
        between, within = (self.spread * math.sqrt(part) for part in (self.correlation, 1 - self.correlation))
        centre = self.centre()
        drawn: list[GroupLengths] = []
        for _ in range(groups):
            typical = centre + chance.gauss(0, between)
            lengths = (min(self.cap, max(1, round(math.exp(typical + chance.gauss(0, within))))) for _ in range(size))
            drawn.append(GroupLengths(prompt, tuple(lengths)))
        return drawn

    def centre(self) -> float:
        """The logarithm whose distribution, cut, has the mean: by bisection over the mean of a cut lognormal."""
        low, high = 0.0, math.log(self.cap) + 4 * self.spread
        for _ in range(60):
            centre = (low + high) / 2
            low, high = (centre, high) if self._cut_mean(centre) < self.mean else (low, centre)
        return (low + high) / 2

    def _cut_mean(self, centre: float) -> float:
        top, spread = math.log(self.cap), self.spread
        below = math.exp(centre + spread * spread / 2) * _normal((top - centre) / spread - spread)
        return below + self.cap * (1 - _normal((top - centre) / spread))


def tokens_of(groups: Iterable[GroupLengths]) -> int:
    """Of all responses."""
    return sum(sum(group.lengths) for group in groups)


def _normal(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2
