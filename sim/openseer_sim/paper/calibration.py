"""Fits the values of a case that the paper does not state, to its results for veRL only, not to Seer's.

One simulation of a system that assigns requests at submission takes a second, and the whole calibration minutes.
`cases` contains the results of `calibrate`.
"""

from dataclasses import dataclass, replace
from statistics import fmean

from openseer_sim.drafts import DraftModel
from openseer_sim.paper.cases import Fit, PaperCase
from openseer_sim.systems import bound_by

SEEDS = (1, 2, 3)
SPREADS = (0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0)
"""Standard deviations of the logarithm of lengths to try."""
SAME, USUAL = 0.04, 1.2
"""A spread is good if its error in the tail's share of the total exceeds the least error by at most SAME, because seeds
differ by as much. The good spread nearest to USUAL is used: with USUAL, a few thousand lengths range from a few hundred
tokens to the cap, as in the paper."""
DRAFTS_PART = 0.25
"""Share of the fleet for the fit of the cost of drafts; the fit uses a ratio, which does not depend on the size."""

ROUND_ROBIN = bound_by("round-robin")
"""veRL's order: each whole group to the next instance."""


@dataclass(frozen=True, slots=True)
class VerlColumns:
    """Results of simulating veRL, means over seeds. `total`: seconds of the rollout; `tail_part`: the tail's share of
    them; `idle`: idle share of the instances; `preemptions`: number of preemptions."""

    total: float
    tail_part: float
    idle: float
    preemptions: float


def verl_columns(case: PaperCase, seeds: tuple[int, ...] = SEEDS) -> VerlColumns:
    """Simulates veRL on the case."""
    outcomes = [ROUND_ROBIN(case.fleet(), case.work(seed), case.cap) for seed in seeds]
    return VerlColumns(
        fmean(outcome.seconds for outcome in outcomes),
        fmean(outcome.tail_seconds / outcome.seconds for outcome in outcomes),
        fmean(outcome.idle for outcome in outcomes),
        fmean(outcome.preemptions for outcome in outcomes),
    )


def calibrate(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> Fit:
    """Fits the spread to veRL's tail, the efficiency to veRL's total, and the cost of drafts to the row veRL + SD."""
    fitted = fit_lengths(case, correlation, seeds)
    return replace(fitted.fit, per_draft=draft_cost(fitted.scaled(DRAFTS_PART), seeds[:1]))


def fit_lengths(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> PaperCase:
    """The case with fitted spread and efficiency. veRL's results do not determine `correlation`, so it is given."""
    figures, tried = case.figures, dict[float, VerlColumns]()
    for spread in SPREADS:
        tried[spread] = verl_columns(replace(case, fit=Fit(1.0, spread, 0.0, correlation)), seeds)
    wanted = figures.verl_tail / figures.verl_total
    misses = {spread: abs(columns.tail_part - wanted) for spread, columns in tried.items()}
    as_good = [spread for spread, miss in misses.items() if miss <= min(misses.values()) + SAME]
    spread = min(as_good, key=lambda spread: abs(spread - USUAL))
    # Every part of a step takes 1 / efficiency times as long, and so does the total.
    efficiency = tried[spread].total / figures.verl_total
    return replace(case, fit=Fit(round(efficiency, 3), spread, case.fit.per_draft, correlation))


def draft_cost(case: PaperCase, seeds: tuple[int, ...] = SEEDS) -> float:
    """The seconds per drafted token with which veRL + SD has the paper's speed-up over veRL; by bisection."""
    drafts = DraftModel.of_lengths(((0.0, case.figures.accepted),))
    plain = verl_columns(case, seeds).total
    low, high = 0.0, 0.01
    for _ in range(6):
        middle = (low + high) / 2 if low else high / 8
        costly = replace(case, fit=replace(case.fit, per_draft=middle))
        outcomes = [ROUND_ROBIN(costly.fleet(drafts), costly.work(seed), costly.cap) for seed in seeds]
        gain = plain / fmean(outcome.seconds for outcome in outcomes)
        low, high = (middle, high) if gain > case.figures.verl_drafts else (low, middle)
    return float(f"{(low + high) / 2:.2g}")
