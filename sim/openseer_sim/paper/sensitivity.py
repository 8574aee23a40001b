"""Simulates Seer as printed, openseer and the oracle with variations of assumed values, one value at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from openseer_sim.fleet import Loss, ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.paper.calibration import ROUND_ROBIN, SEEDS, fit_lengths
from openseer_sim.paper.cases import PaperCase
from openseer_sim.paper.study import per_instance
from openseer_sim.published import oracle_with_error
from openseer_sim.systems import OURS, System, divided_by

CORRELATIONS = (0.4, 0.6, 0.8, 0.95)
CHUNKS = (256, 1024, 4096)
"""Tokens of a quantum."""
GROUPS = (8, 16)
"""Responses of a group."""
NETWORKS = (None, 1e9, 25e9)
"""Bytes per second and GPU; None: contexts are computed again."""
ERRORS = (0.25, 0.5, 1.0)
"""Standard deviations of the logarithm of the factor between the oracle's lengths and the true ones."""
LOSS_EVERY, BOOT = 600.0, 120.0
"""Seconds between two losses of an instance, and seconds until a lost instance has restarted."""


@dataclass(frozen=True, slots=True)
class Variation:
    """One change of a case. `what`, `value`: the varied quantity and its value; `case`: the changed case; `fleet`: a
    part of the case's fleet; `systems`: the compared systems by name."""

    what: str
    value: str
    case: PaperCase
    fleet: ModelledFleet
    systems: tuple[tuple[str, System], ...]


@dataclass(frozen=True, slots=True)
class VariationRow:
    """The results of one variation by system. `ratios`: throughput divided by veRL's; `tail_cuts`: share of veRL's tail
    that the system removes."""

    what: str
    value: str
    ratios: dict[str, float]
    tail_cuts: dict[str, float]


def variations(case: PaperCase, part: float) -> Iterator[Variation]:
    """All variations of a case, on a share `part` of its fleet."""
    small = case.scaled(part)
    for correlation in CORRELATIONS:
        # The fit is repeated, so that veRL's simulated results match the paper's for each correlation.
        fitted = fit_lengths(case, correlation, (1, 2))
        yield Variation("correlation", f"{correlation:g}", fitted, fitted.scaled(part).fleet(), _three(small.chunk))
    for chunk in CHUNKS:
        yield Variation("chunk, tokens", f"{chunk:,}", case, small.fleet(), _three(chunk))
    for group in GROUPS:
        yield Variation(
            "responses of a group", f"{group}", replace(case, group=group), small.fleet(), _three(case.chunk)
        )
    for network in NETWORKS:
        value = f"{network / 1e9:g} GB/s" if network else "computed again"
        fleet = small.fleet(network=network)
        yield Variation("contexts that move, per GPU", value, case, fleet, _three(small.chunk))
    for error in ERRORS:
        asked = (("oracle", oracle_with_error(small.chunk, error)),)
        yield Variation("error of the oracle", f"factor {math.exp(error):.2f}", case, small.fleet(), asked)
    fleet = replace(small.fleet(), losses=_losses(small))
    yield Variation("an instance is lost", f"each {LOSS_EVERY / 60:.0f} min", case, fleet, _three(small.chunk))


def sensitivity(
    case: PaperCase, part: float, seeds: Sequence[int], note: Callable[[str], None] = lambda _text: None
) -> Iterator[VariationRow]:
    """Yields a row per variation. veRL runs on the whole fleet and loses no instance. `note`: called with the present
    simulation."""
    for change in variations(case, part):
        whole, work = change.case, [change.case.scaled(part).work(seed) for seed in seeds]
        verl = [ROUND_ROBIN(whole.fleet(), whole.work(seed), case.cap) for seed in SEEDS]
        base = fmean(per_instance(outcome) for outcome in verl)
        ratios, cuts = dict[str, float](), dict[str, float]()
        for name, system in change.systems:
            note(f"{case.name}: {change.what} {change.value}, {name}")
            outcomes = [system(change.fleet, groups, case.cap) for groups in work]
            ratios[name] = fmean(per_instance(outcome) for outcome in outcomes) / base
            cuts[name] = 1 - _tail(outcomes) / _tail(verl)
        yield VariationRow(change.what, change.value, ratios, cuts)


def _three(chunk: int) -> tuple[tuple[str, System], ...]:
    return (
        ("Seer as printed", divided_by("seer", chunk)),
        ("openseer", divided_by(OURS, chunk)),
        ("oracle", divided_by("longest-first-oracle", chunk)),
    )


def _losses(case: PaperCase) -> tuple[Loss, ...]:
    """Losses of instances in turn, for the duration of veRL's iteration."""
    times = range(1, int(case.figures.verl_total / LOSS_EVERY) + 1)
    return tuple(Loss(number * LOSS_EVERY, number % case.instances, BOOT) for number in times)


def _tail(outcomes: Sequence[Outcome]) -> float:
    return fmean(outcome.tail_seconds for outcome in outcomes)
