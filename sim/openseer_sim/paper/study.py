"""Simulates all systems on one workload of the paper, and compares each with veRL without drafts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from openseer_sim.drafts import DraftModel
from openseer_sim.outcome import Outcome
from openseer_sim.paper.calibration import ROUND_ROBIN, SEEDS
from openseer_sim.paper.cases import GROUPED, PaperCase
from openseer_sim.paper.figures import PaperFigures
from openseer_sim.partial import partial_by
from openseer_sim.published import streamrl, streamrl_dedicated
from openseer_sim.systems import OURS, System, divided_by

VERL = "veRL"
APRIL = "APRIL, 2 x issued"
SEER = "Seer as printed"


@dataclass(frozen=True, slots=True)
class PaperSystem:
    """A system on a case. `reported`, `reported_tail`: the paper's ratio, and seconds of the tail; None: not in the
    paper. `synchronous`: all responses of an iteration end within it. `balances`: the system balances work over the
    fleet, so that a part of the fleet represents the whole; veRL's idle share grows with the number of instances."""

    name: str
    system: System
    drafts: DraftModel | None = None
    reported: float | None = None
    reported_tail: float | None = None
    synchronous: bool = True
    balances: bool = True


def paper_systems(case: PaperCase) -> list[PaperSystem]:
    """The systems in the order of the table. The names contain the drafts: SD are conventional drafts with the paper's
    acceptance, grouped drafts are Seer's."""
    figures, others = case.figures, DraftModel.of_lengths(((0.0, case.figures.accepted),))
    verl, april = ROUND_ROBIN, partial_by()
    printed, ours = divided_by("seer", case.chunk), divided_by(OURS, case.chunk)
    oracle = divided_by("longest-first-oracle", case.chunk)
    return [
        PaperSystem(VERL, verl, None, 1.0, figures.verl_tail, balances=False),
        PaperSystem("veRL + SD", verl, others, figures.verl_drafts, balances=False),
        PaperSystem("veRL + grouped drafts", verl, GROUPED, figures.verl_grouped, balances=False),
        PaperSystem("StreamRL, true lengths", streamrl, None, figures.streamrl),
        PaperSystem("StreamRL, true lengths + SD", streamrl, others, figures.streamrl_drafts),
        PaperSystem("StreamRL, dedicated instances", streamrl_dedicated),
        PaperSystem(APRIL, april, synchronous=False),
        PaperSystem(f"{APRIL} + SD", april, others, synchronous=False),
        PaperSystem("divided alone", divided_by("fifo", case.chunk), None, figures.divided, tail(figures, "divided")),
        PaperSystem(SEER, printed, None, figures.context, tail(figures, "context")),
        PaperSystem(f"{SEER} + grouped drafts", printed, GROUPED, figures.drafts, figures.seer_tail),
        PaperSystem(f"openseer, {OURS}", ours),
        PaperSystem(f"openseer, {OURS} + grouped drafts", ours, GROUPED),
        PaperSystem("oracle", oracle, None, figures.oracle),
        PaperSystem("oracle + grouped drafts", oracle, GROUPED),
    ]


def tail(figures: PaperFigures, what: str) -> float | None:
    """Seconds of the tail with Seer's parts up to `what` ("divided" or "context"); None: not in the paper."""
    part = figures.divided_tail if what == "divided" else figures.context_tail
    return None if part is None else part * figures.verl_tail


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A system's means over seeds. `ratio`: throughput per instance divided by veRL's; `low`, `high`: range of the
    ratio over seeds; `tail_cut`: share of veRL's tail that the system removes. `tail` and `tail_cut` are None if the
    rollout is not synchronous."""

    name: str
    ratio: float
    low: float
    high: float
    reported: float | None
    seconds: float
    tail: float | None
    tail_cut: float | None
    reported_tail: float | None
    idle: float
    moves: float
    preemptions: float


def study(
    case: PaperCase,
    seeds: Sequence[int],
    note: Callable[[str], None] = lambda _text: None,
    *,
    part: float = 1.0,
    systems: Sequence[PaperSystem] | None = None,
) -> Iterator[PaperRow]:
    """Yields a row per system as soon as it is known. `note`: called with the present simulation. `part`: share of the
    fleet, for systems that balance work over it.

    veRL's result is the mean over `seeds` and the seeds of its fit, because veRL's idle time varies more with the seed
    than any other result. The other systems that do not balance work are compared with veRL seed by seed.
    """
    base = {seed: ROUND_ROBIN(case.fleet(), case.work(seed), case.cap) for seed in sorted({*seeds, *SEEDS})}
    verl = fmean(per_instance(outcome) for outcome in base.values())
    tail_seconds = fmean(outcome.tail_seconds for outcome in base.values())
    for system in systems or paper_systems(case):
        sized = case.scaled(part) if system.balances else case
        outcomes: list[Outcome] = []
        for seed in seeds if system.name != VERL else ():
            note(f"{case.name}: {system.name}, seed {seed}")
            outcomes.append(system.system(sized.fleet(system.drafts), sized.work(seed), case.cap))
        against = [verl if system.balances else per_instance(base[seed]) for seed in seeds]
        if not outcomes:
            outcomes, against = list(base.values()), [verl] * len(base)
        yield paper_row(system, outcomes, against, tail_seconds)


def paper_row(system: PaperSystem, outcomes: Sequence[Outcome], against: Sequence[float], verl_tail: float) -> PaperRow:
    """The row of a system. `against`: veRL's throughput per instance for each outcome; `verl_tail`: veRL's tail in
    seconds."""
    ratios = [per_instance(outcome) / verl for outcome, verl in zip(outcomes, against, strict=True)]
    tails = fmean(outcome.tail_seconds for outcome in outcomes)
    return PaperRow(
        name=system.name,
        ratio=fmean(ratios),
        low=min(ratios),
        high=max(ratios),
        reported=system.reported,
        seconds=fmean(outcome.seconds for outcome in outcomes),
        tail=tails if system.synchronous else None,
        tail_cut=1 - tails / verl_tail if system.synchronous else None,
        reported_tail=system.reported_tail,
        idle=max(0.0, fmean(outcome.idle for outcome in outcomes)),
        moves=fmean(outcome.moves for outcome in outcomes),
        preemptions=fmean(outcome.preemptions for outcome in outcomes),
    )


def per_instance(outcome: Outcome) -> float:
    """Tokens of responses per second and instance."""
    return outcome.throughput / len(outcome.busy)
