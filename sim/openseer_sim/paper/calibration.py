"""Calibration: the fitted values, from veRL's columns only and none of Seer's.

Systems that assign requests at submission take a second to simulate, so that all of it takes minutes. `cases` holds
the results of `calibrate`.
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
"""Tails whose shares of the total differ by less than SAME are equally good, because seeds differ by as much. Of
several such spreads the one nearest to USUAL is used: with it a few thousand lengths range from a few hundred tokens to
the cap, as in the paper."""
DRAFTS_PART = 0.25
"""Share of the fleet on which the cost of drafts is fitted; the fit uses a ratio, which does not depend on the size."""

ROUND_ROBIN = bound_by("round-robin")
"""veRL's order: each whole group to the next instance."""


@dataclass(frozen=True, slots=True)
class VerlColumns:
    """veRL's total seconds, the tail's share of them, idle share and preemptions: means over seeds."""

    total: float
    tail_part: float
    idle: float
    preemptions: float


def verl_columns(case: PaperCase, seeds: tuple[int, ...] = SEEDS) -> VerlColumns:
    """veRL's columns for the case."""
    outcomes = [ROUND_ROBIN(case.fleet(), case.work(seed), case.cap) for seed in seeds]
    return VerlColumns(
        fmean(outcome.seconds for outcome in outcomes),
        fmean(outcome.tail_seconds / outcome.seconds for outcome in outcomes),
        fmean(outcome.idle for outcome in outcomes),
        fmean(outcome.preemptions for outcome in outcomes),
    )


def calibrate(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> Fit:
    """Fits the spread to veRL's tail, the efficiency to its total, and the cost of drafts to veRL + SD."""
    fitted = fit_lengths(case, correlation, seeds)
    return replace(fitted.fit, per_draft=draft_cost(fitted.scaled(DRAFTS_PART), seeds[:1]))


def fit_lengths(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> PaperCase:
    """The case with fitted spread and efficiency, for one correlation, which veRL's columns do not determine."""
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
    """Seconds per drafted token at which veRL with SD gains as much as in the paper, by bisection."""
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
