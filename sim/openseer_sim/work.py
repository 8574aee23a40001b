"""Defines the work of a simulation: groups of responses with their lengths, from a model of lengths or from a run."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupLengths:
    """Tokens of a prompt, and the lengths of its responses in tokens, the probe's first."""

    prompt: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LengthModel:
    """A two-level model of lengths: the logarithm of a response's length is that of its group's typical length,
    plus noise; lengths above `cap` are cut.

    `mean`: mean of the cut lengths, in tokens; `spread`: standard deviation of the logarithm over all responses, before
    the cut; `correlation`: the share of the logarithm's variance that is between groups.
    """

    mean: float
    cap: int
    spread: float
    correlation: float

    def draw(self, groups: int, size: int, seed: int, *, prompt: int = 256) -> list[GroupLengths]:
        """Draws groups of `size` responses, the same for the same seed. `prompt`: tokens of each prompt."""
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
        """The mean of the logarithm with which the cut lengths have the mean `mean`; by bisection."""
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
    """Tokens of all responses."""
    return sum(sum(group.lengths) for group in groups)


def _normal(value: float) -> float:
    """The distribution function of the standard normal distribution."""
    return (1 + math.erf(value / math.sqrt(2))) / 2
