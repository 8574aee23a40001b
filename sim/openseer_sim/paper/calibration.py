"""What is fitted, and on what: veRL's columns and nothing of Seer's.

Systems that bind their requests take a second to simulate, so that all of it takes minutes. The values that stand in
`cases` are what `calibrate` gives.
"""

from dataclasses import dataclass, replace
from statistics import fmean

from openseer_sim.drafts import DraftModel
from openseer_sim.paper.cases import Fit, PaperCase
from openseer_sim.systems import bound_by

SEEDS = (1, 2, 3)
SPREADS = (0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0)
"""Standard deviations of the logarithm of lengths that are tried."""
SAME, USUAL = 0.04, 1.2
"""Tails that differ by less part of the total are as good as the same: that is what seeds differ by. Of several such
spreads the one nearest to the usual one is taken: with it a few thousand lengths go from a few hundred tokens to the
cap, as the paper says that they do."""
DRAFTS_PART = 0.25
"""Of the fleet, where the cost of drafts is fitted: a ratio, which a part of the fleet has as well."""

ROUND_ROBIN = bound_by("round-robin")
"""What veRL does: each group whole to the next instance."""


@dataclass(frozen=True, slots=True)
class VerlColumns:
    """veRL's total seconds, the part of them that is the tail, idle instances and preemptions: means over seeds."""

    total: float
    tail_part: float
    idle: float
    preemptions: float


def verl_columns(case: PaperCase, seeds: tuple[int, ...] = SEEDS) -> VerlColumns:
    """As the case stands."""
    outcomes = [ROUND_ROBIN(case.fleet(), case.work(seed), case.cap) for seed in seeds]
    return VerlColumns(
        fmean(outcome.seconds for outcome in outcomes),
        fmean(outcome.tail_seconds / outcome.seconds for outcome in outcomes),
        fmean(outcome.idle for outcome in outcomes),
        fmean(outcome.preemptions for outcome in outcomes),
    )


def calibrate(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> Fit:
    """The spread that veRL's tail says, the efficiency that its total says, and what drafts cost by veRL + SD."""
    fitted = fit_lengths(case, correlation, seeds)
    return replace(fitted.fit, per_draft=draft_cost(fitted.scaled(DRAFTS_PART), seeds[:1]))


def fit_lengths(case: PaperCase, correlation: float, seeds: tuple[int, ...] = SEEDS) -> PaperCase:
    """The case with spread and efficiency fitted for one correlation, which veRL's columns do not determine."""
    figures, tried = case.figures, dict[float, VerlColumns]()
    for spread in SPREADS:
        tried[spread] = verl_columns(replace(case, fit=Fit(1.0, spread, 0.0, correlation)), seeds)
    wanted = figures.verl_tail / figures.verl_total
    misses = {spread: abs(columns.tail_part - wanted) for spread, columns in tried.items()}
    as_good = [spread for spread, miss in misses.items() if miss <= min(misses.values()) + SAME]
    spread = min(as_good, key=lambda spread: abs(spread - USUAL))
    # Every part of a step takes 1 / efficiency as long, so that the total does.
    efficiency = tried[spread].total / figures.verl_total
    return replace(case, fit=Fit(round(efficiency, 3), spread, case.fit.per_draft, correlation))


def draft_cost(case: PaperCase, seeds: tuple[int, ...] = SEEDS) -> float:
    """Seconds of a drafted token with which veRL with drafts of others gains what the paper reports, by bisection."""
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
