"""Estimates of lengths that use more than the longest sibling: all finished and running siblings of a group, with a
length model of known parameters, or the fleet's finished lengths without groups."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from openseer_core.queue.group import GroupSpec, GroupView
from openseer_sim.work import LengthModel

STANDARD = NormalDist()
POINTS = np.linspace(-4.0, 4.0, 65)
"""Standard deviations between groups at which a group's typical length is weighed."""
PLACES = np.linspace(-30.0, 30.0, 6001)
LOG_ABOVE = np.log([0.5 * math.erfc(place / math.sqrt(2)) for place in PLACES])
"""The logarithm of a normal distribution's upper tail probability at each place."""
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
"""Quantiles of the remaining length that a Gittins index tries as its horizon."""

Index = Callable[[float], float]
"""Maps the tokens of a response so far to its index: the largest goes first."""
Left = Callable[["LogNormal", float], float]
"""Maps the distribution of a length and the tokens so far to an index."""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A length whose logarithm is normal with `mean` and `spread`, cut at `cap`."""

    mean: float
    spread: float
    cap: float

    def survival(self, length: float) -> float:
        """Probability of a larger length, without the cap."""
        return 0.5 * math.erfc((math.log(max(length, 0.5)) - self.mean) / self.spread / math.sqrt(2))

    def quantile_left(self, so_far: float, share: float) -> float:
        """The `share` quantile of the remaining length."""
        above = max(self.survival(so_far) * (1 - share), 1e-300)
        return max(0.0, min(math.exp(self.mean - self.spread * STANDARD.inv_cdf(above)), self.cap) - so_far)

    def mean_left(self, so_far: float, horizon: float = math.inf) -> float:
        """Mean of the remaining length, of which at most `horizon` tokens count."""
        end = min(self.cap, so_far + horizon)
        alive = max(self.survival(so_far), 1e-300)
        return max(0.0, (self._below(end) - self._below(so_far) + end * self.survival(end)) / alive - so_far)

    def _below(self, length: float) -> float:
        place = (math.log(max(length, 0.5)) - self.mean) / self.spread - self.spread
        return math.exp(self.mean + self.spread**2 / 2) * 0.5 * math.erfc(-place / math.sqrt(2))


def quantile(share: float) -> Left:
    """Index: the `share` quantile of the remaining length."""
    return lambda length, so_far: length.quantile_left(so_far, share)


def mean(length: LogNormal, so_far: float) -> float:
    """Index: the mean of the remaining length."""
    return length.mean_left(so_far)


def gittins(length: LogNormal, so_far: float) -> float:
    """Index: the inverse of the Gittins index, the expected tokens per finished response at the best horizon."""
    alive, least = max(length.survival(so_far), 1e-300), length.mean_left(so_far)
    for share in SHARES:
        horizon = length.quantile_left(so_far, share)
        ends = 1.0 if so_far + horizon >= length.cap else 1 - length.survival(so_far + horizon) / alive
        if ends > 0 and horizon > 0:
            least = min(least, length.mean_left(so_far, horizon) / ends)
    return least


@dataclass(frozen=True, slots=True)
class LengthView(GroupView):
    """A view with the lengths of all finished siblings, not only the longest."""

    lengths: tuple[int, ...] = ()

    def with_finish(self, length: int) -> GroupView:
        """The view after one more response has finished."""
        return replace(super(LengthView, self).with_finish(length), lengths=(*self.lengths, length))


@dataclass(frozen=True, slots=True)
class LengthSpec(GroupSpec):
    """A group whose first view is a LengthView."""

    def view(self) -> GroupView:
        """The first view, without lengths."""
        plain = super(LengthSpec, self).view()
        return LengthView(**{name: getattr(plain, name) for name in GroupView.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class GroupPrior:
    """Prior distribution of the logarithm of a group's typical length: its `mean` and `spread`. `within`: the spread of
    the responses within the group."""

    mean: float
    spread: float
    within: float


class GroupLengthsKnown:
    """Posterior of the lengths of a group's responses, from its finished and running ones. Running responses, and those
    that finished at the cap, count as longer than their tokens (censored)."""

    def __init__(self, prior: GroupPrior, finished: Sequence[int], running: Sequence[float], cap: float) -> None:
        self._typical = prior.mean + prior.spread * POINTS
        self._within, self._cap, self._running = prior.within, cap, running
        self._above = [self._log_above(length) for length in running]
        self._weights = -0.5 * POINTS**2 + sum(self._above)
        for length in finished:
            place = (math.log(length) - self._typical) / self._within
            self._weights = self._weights + (self._log_above(cap) if length >= cap else -0.5 * place**2)
        self._expected: dict[int, LogNormal] = {}

    def expected(self, so_far: float) -> LogNormal:
        """Distribution of the length of the response with `so_far` tokens, given its siblings: a normal one of the
        logarithm, with the same mean and variance. It does not account for the response's own tokens."""
        own = min(range(len(self._running)), key=lambda place: abs(self._running[place] - so_far), default=-1)
        if own not in self._expected:
            weights = self._weights - (self._above[own] if own >= 0 else 0.0)
            weights = np.exp(weights - weights.max())
            weights /= weights.sum()
            middle = float(weights @ self._typical)
            variance = float(weights @ (self._typical - middle) ** 2)
            self._expected[own] = LogNormal(middle, math.sqrt(variance + self._within**2), self._cap)
        return self._expected[own]

    def _log_above(self, length: float) -> np.ndarray:
        return np.interp((math.log(max(length, 1)) - self._typical) / self._within, PLACES, LOG_ABOVE)


def fleet_index(finished: Sequence[int], running: Sequence[float], cap: float, share: float | None) -> Index:
    """Index from the lengths of the whole fleet, without groups (the Kaplan-Meier estimate): the `share` quantile of
    the remaining length, or with None the inverse of the Gittins index. Beyond the known lengths, responses may reach
    the cap."""
    ends, alive = np.sort(np.asarray(finished, float)), np.sort(np.asarray([*finished, *running], float))
    at_risk = len(alive) - np.searchsorted(alive, ends, side="left")
    curve = np.cumprod(1 - 1 / np.maximum(at_risk, 1)) if len(ends) else np.ones(0)
    step = max(1.0, cap / 256)
    places = np.arange(0.0, cap + step, step)
    known = np.concatenate(([1.0], curve))[np.searchsorted(ends, places, side="right")] if len(ends) else places * 0 + 1
    known = np.where(places >= cap, 0.0, known)
    area = np.concatenate(([0.0], np.cumsum((known[:-1] + known[1:]) / 2 * step)))
    table: list[float] = []
    for number, place in enumerate(places):
        if known[number] <= 0:
            table.append(max(0.0, cap - float(place)))
        elif share is not None:
            beyond = np.flatnonzero(known[number:] <= known[number] * (1 - share))
            table.append(float(beyond[0] * step))
        else:
            ended = 1 - known[number + 1 :] / known[number]
            spent = (area[number + 1 :] - area[number]) / known[number]
            table.append(float(np.min(np.where(ended > 0, spent / np.maximum(ended, 1e-12), np.inf))))
    return lambda so_far: table[min(len(table) - 1, int(so_far / step))]


def prior_of(model: LengthModel, block: int) -> GroupPrior:
    """The prior of every group from the model's own parameters, with lengths in blocks of `block` tokens."""
    between, within = (model.spread * math.sqrt(part) for part in (model.correlation, 1 - model.correlation))
    return GroupPrior(model.centre() - math.log(block), between, within)
