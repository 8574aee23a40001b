"""Makes the plan of a job: time, cost and size of the fleet, with intervals, from simulations with given lengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from openseer_core.admission import limits_of_manifest
from openseer_core.errors import InputError
from openseer_core.manifest.fleet import PolicyName, RolloutSpec
from openseer_core.manifest.job import RolloutJob
from openseer_sim.bound import BOUND, least_seconds
from openseer_sim.drafts import DraftModel
from openseer_sim.history import LengthHistory
from openseer_sim.outcome import Outcome
from openseer_sim.profile import EngineModel
from openseer_sim.replay import ORACLE, fleet_of, play
from openseer_sim.systems import OURS
from openseer_sim.work import GroupLengths

SECONDS_PER_HOUR = 3600
NEAR = 1.1
"""Without a deadline: limit of the recommended fleet's GPU-hours, as a multiple of the cheapest fleet's."""
BASELINE: PolicyName = "round-robin"
MOST_REQUESTS = 100_000
"""Limit of requests of one plan: more would take hours to simulate."""
GAINS = 4
"""Number of systems that are simulated on the chosen fleet, without drafts."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of a plan. `gpus`: sizes of the fleet to try; `deadline` in seconds and `price` per GPU-hour, None if not
    given; `start_seconds`: seconds from the request for workers until they accept requests, which count as GPU time;
    `tail_release`: a worker without further requests returns its GPUs; `draws`: number of draws of the lengths."""

    gpus: tuple[int, ...]
    deadline: float | None = None
    price: float | None = None
    start_seconds: float = 300.0
    tail_release: bool = False
    draws: int = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """The lowest, median and highest value over the draws of lengths."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return Spread(min(values), median(values), max(values))

    def times(self, factor: float) -> "Spread":
        """The spread multiplied by a factor."""
        return Spread(self.low * factor, self.median * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class PlannedFleet:
    """The results for one size of the fleet. `seconds`: from the request for workers to the end of the last response;
    `tail_seconds`: the part of them for the last tenth of responses; `idle`: idle share of the workers' time after
    their start; `cost`: None without a price; `in_time`: None without a deadline."""

    gpus: int
    workers: int
    seconds: Spread
    tail_seconds: Spread
    idle: float
    gpu_hours: Spread
    cost: Spread | None
    in_time: bool | None


@dataclass(frozen=True, slots=True)
class Gain:
    """The results of one system on the chosen fleet, without the start of workers. `speedup`: over the first system,
    for each draw."""

    name: str
    seconds: Spread
    tail_seconds: Spread | None
    speedup: Spread


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The plan. `chosen`: the recommended fleet of `fleets`; None if no fleet ends in time."""

    job: str
    groups: int
    requests: int
    draws: int
    advice: str
    chosen: PlannedFleet | None
    fleets: tuple[PlannedFleet, ...]
    gains: tuple[Gain, ...]
    assumptions: tuple[str, ...]


def make_plan(
    job: RolloutJob,
    history: LengthHistory,
    engine: EngineModel,
    options: PlanOptions,
    groups: int | None = None,
    note: Callable[[int, int], None] = lambda _done, _of: None,
) -> JobPlan:
    """Simulates the job on each size of the fleet. `groups`: number of the job's groups; None: the number in the
    history. `note`: called before each rollout with the number of rollouts simulated so far and the total.

    Raises InputError if no size fits the workers, if the number of groups is unknown, or if the plan has more than
    MOST_REQUESTS responses.
    """
    each = job.spec.workers.parallelism.gpus
    if groups is None and history.invented:
        raise InputError(
            f"{job.name}: its number of groups is unknown, because its prompts are not local JSON lines; pass --groups"
        )
    count, size = groups or len(history.groups), job.spec.group_size
    if count * size > MOST_REQUESTS:
        raise InputError(f"{job.name}: found {count * size:,} responses, allowed: {MOST_REQUESTS:,}; pass --groups")
    sizes = sorted({gpus for gpus in options.gpus if gpus % each == 0 and 0 < gpus // each <= count * size})
    if not sizes:
        raise InputError(
            f"--gpus: found {_listed(options.gpus)}, allowed: multiples of {each}, a worker's GPUs, with no more "
            f"workers than the job's {count * size:,} responses"
        )
    cap = job.spec.sampling.max_tokens
    context = limits_of_manifest(job.spec.model).context_tokens
    drawn = [history.draw(count, size, cap, seed, context) for seed in range(options.draws)]
    ways = GAINS + (history.drafted is not None)
    lab = _Lab(engine, job.spec.rollout, drawn, cap, note, (len(sizes) + ways) * len(drawn))
    fleets = tuple(_fleet(lab, gpus, each, options) for gpus in sizes)
    chosen, advice = _choice(fleets, options)
    if history.partial:
        advice += " Expect a longer time: the history has responses that were cut or did not finish."
    gains = _gains(lab, (chosen or fleets[-1]).workers, history)
    return JobPlan(
        job.name,
        count,
        count * size,
        options.draws,
        advice,
        chosen,
        fleets,
        gains,
        tuple(_assumptions(job, history, engine, options, groups, sizes)),
    )


@dataclass(slots=True)
class _Lab:
    """Simulates a system on every draw of the lengths."""

    engine: EngineModel
    rollout: RolloutSpec
    drawn: list[list[GroupLengths]]
    cap: int
    note: Callable[[int, int], None]
    rollouts: int
    done: int = 0

    def play(self, workers: int, policy: PolicyName, drafts: DraftModel | None = None) -> list[Outcome]:
        return [self._play(groups, workers, policy, drafts) for groups in self.drawn]

    def _play(self, groups: list[GroupLengths], workers: int, policy: PolicyName, drafts: DraftModel | None) -> Outcome:
        self.note(self.done, self.rollouts)
        fleet = replace(fleet_of(self.engine, workers, groups), drafts=drafts)
        self.done += 1
        return play(fleet, groups, self.cap, self.rollout, policy)

    def least(self, workers: int) -> list[float]:
        return [least_seconds(fleet_of(self.engine, workers, groups), groups) for groups in self.drawn]


def _fleet(lab: _Lab, gpus: int, each: int, options: PlanOptions) -> PlannedFleet:
    outcomes = lab.play(gpus // each, lab.rollout.policy)
    seconds = Spread.of([options.start_seconds + outcome.seconds for outcome in outcomes])
    held = Spread.of([_held(outcome, options) * each / SECONDS_PER_HOUR for outcome in outcomes])
    return PlannedFleet(
        gpus,
        gpus // each,
        seconds,
        Spread.of([outcome.tail_seconds for outcome in outcomes]),
        median(outcome.idle for outcome in outcomes),
        held,
        held.times(options.price) if options.price is not None else None,
        seconds.high <= options.deadline if options.deadline is not None else None,
    )


def _held(outcome: Outcome, options: PlanOptions) -> float:
    """Seconds for which the workers hold their GPUs, summed over workers."""
    workers = len(outcome.busy)
    return workers * options.start_seconds + (sum(outcome.busy) if options.tail_release else workers * outcome.seconds)


def _choice(fleets: Sequence[PlannedFleet], options: PlanOptions) -> tuple[PlannedFleet | None, str]:
    if options.deadline is not None:
        in_time = [fleet for fleet in fleets if fleet.in_time]
        if not in_time:
            best = min(fleets, key=lambda fleet: fleet.seconds.high)
            return None, (
                f"No fleet of {_listed([fleet.gpus for fleet in fleets])} GPUs ends within {spoken(options.deadline)} "
                f"{_each(options)}; the fastest, {best.gpus}, takes up to {spoken(best.seconds.high)}"
                f"{_start(options)}."
            )
        chosen = min(in_time, key=lambda fleet: fleet.gpu_hours.median)
        end = f"ends within {spoken(options.deadline)} {_each(options)}"
        return chosen, f"{_fleet_text(chosen)}: the cheapest fleet that {end}."
    least = min(fleet.gpu_hours.median for fleet in fleets)
    chosen = max((fleet for fleet in fleets if fleet.gpu_hours.median <= NEAR * least), key=lambda fleet: fleet.gpus)
    return chosen, f"{_fleet_text(chosen)}: the largest fleet within {NEAR - 1:.0%} of the fewest GPU-hours."


def _start(options: PlanOptions) -> str:
    """The start of the workers, which is included in the time; empty if it takes no time."""
    if not options.start_seconds:
        return ""
    text = f", of which {spoken(options.start_seconds)} are the start of the workers (--start)"
    if options.deadline is not None and options.start_seconds >= options.deadline:
        text += ": no fleet can end before; pass the time in which your workers start, 0 if they already run"
    return text


def _each(options: PlanOptions) -> str:
    return "in the one draw of lengths" if options.draws == 1 else f"in each of {options.draws} draws of lengths"


def _fleet_text(fleet: PlannedFleet) -> str:
    cost = f", {fleet.cost.median:,.2f} EUR" if fleet.cost is not None else ""
    hours = f"{brief(fleet.gpu_hours.median)} GPU-hours{cost}"
    return f"Take {fleet.gpus} GPU{'s' if fleet.gpus > 1 else ''} ({spoken(fleet.seconds.median)}, {hours})"


def _gains(lab: _Lab, workers: int, history: LengthHistory) -> tuple[Gain, ...]:
    ways: list[tuple[str, list[Outcome]]] = [
        (f"whole groups, {BASELINE}", lab.play(workers, BASELINE)),
        ("divided, first come first", lab.play(workers, "fifo")),
        (f"divided, {OURS}", lab.play(workers, OURS)),
    ]
    if history.drafted is not None:
        tokens, length = history.drafted
        drafts = DraftModel.of_lengths(((0.0, tokens),), longest=max(1, round(length)))
        ways.append((f"the same with drafts, {tokens:.2f} tokens a step", lab.play(workers, OURS, drafts)))
    ways.append(("divided, lengths known before", lab.play(workers, ORACLE)))
    first = [outcome.seconds for outcome in ways[0][1]]
    gains = [
        _gain(name, first, [outcome.seconds for outcome in outcomes], [outcome.tail_seconds for outcome in outcomes])
        for name, outcomes in ways
    ]
    return (*gains, _gain(f"{BOUND} of any order, without drafts", first, lab.least(workers)))


def _gain(name: str, first: Sequence[float], seconds: Sequence[float], tails: Sequence[float] = ()) -> Gain:
    ratios = [base / own for base, own in zip(first, seconds, strict=True)]
    return Gain(name, Spread.of(seconds), Spread.of(tails) if tails else None, Spread.of(ratios))


def _assumptions(
    job: RolloutJob,
    history: LengthHistory,
    engine: EngineModel,
    options: PlanOptions,
    groups: int | None,
    sizes: Sequence[int],
) -> list[str]:
    spec = job.spec
    lines = [
        f"lengths: {history.source}, drawn {options.draws} times with replacement; intervals are the lowest and the "
        f"highest of these draws: one draw more lies outside with a probability of {2 / (options.draws + 1):.0%}, and "
        "errors of the step times and of the history are not in them (--draws)",
        f"step times: {engine.source}; a worker has {spec.workers.parallelism.gpus} GPU"
        f"{'s' if spec.workers.parallelism.gpus > 1 else ''}, {engine.slots} slots and {engine.kv_tokens:,} tokens of "
        "KV cache",
        f"policy {spec.rollout.policy} of the manifest, quantum {spec.rollout.quantum_tokens:,} tokens; contexts of "
        f"responses that move are {'computed again' if engine.move_seconds is None else 'fetched'}",
        f"workers take requests {options.start_seconds:,.0f} s after they are asked for (--start); that time is paid",
        "a worker without further work gives its GPUs back at once (--tail-release)"
        if options.tail_release
        else "all GPUs are paid until the last response ends (--no-tail-release)",
        "no worker is lost, and the time of store and network is not counted",
    ]
    if groups is None:
        lines.append(
            "as many groups as the history has (--groups), because the prompts are not JSON lines on this machine"
        )
    if left := sorted(set(options.gpus) - set(sizes)):
        each = spec.workers.parallelism.gpus
        why = f"one worker takes {each}, and workers beyond the number of responses would be idle"
        lines.append(f"{_listed(left)} GPUs are left out: {why}")
    if options.price is None:
        lines.append("no price was given (--price)")
    if history.drafted is None:
        lines.append("drafts are left out: no run of the history drafted, so their gain is unknown here")
    else:
        lines.append(
            "the fleets are counted without drafts; only the second table has their gain, and there a drafted "
            "token costs as much as one more response in a step"
        )
    return [*lines, *history.notes, *engine.notes]


def spoken(seconds: float) -> str:
    """A time in words: 12 s, 34 min, 1 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 120 else f"{minutes} min"


def brief(value: float) -> str:
    """A number in few digits: 0.058, 3.42, 51.3, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
