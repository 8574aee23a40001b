"""Simulates every policy with the lengths of a recorded run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openseer_core.errors import InputError
from openseer_core.manifest.fleet import BINDING_POLICIES, PolicyName, RolloutSpec
from openseer_driver.explain.explanation import BestTimes
from openseer_sim.bound import BOUND, least_seconds
from openseer_sim.divided import DividedRollout
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.profile import EngineModel, engine_of, engine_of_samples
from openseer_sim.recorded import RecordedRun
from openseer_sim.systems import OURS, bound_by
from openseer_sim.work import GroupLengths, tokens_of

ORACLE: PolicyName = "longest-first-oracle"
POLICIES: tuple[PolicyName, ...] = ("round-robin", "least-inflight", "fifo", "seer", OURS, ORACLE)
MOST_ITEMS = 8_000_000
"""Limit of response tokens that are counted one by one; with more tokens, blocks are counted, to save memory."""
LOOKS = 1_000
"""The least interval between two iterations of a worker's loop is the bound of the rollout's time divided by LOOKS, or
a tenth of the time of a mean response if that is shorter."""
ALWAYS_UNKNOWN = (
    "lengths are those of this run: a repeated sampling gives others",
    "start-up, the store's and the network's time, and losses of workers",
)


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """The result of one policy. `idle`: idle share of all workers' time. None: unknown."""

    policy: str
    seconds: float
    tail_seconds: float | None
    idle: float | None
    moves: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """The results of all policies. `measured`: measurements of the run itself; `rows`: simulated results, the bound
    last; `unknown`: limitations of the simulation; `partial`: some responses were cut or did not finish, so that
    another policy may be best with full lengths; `steady`: as in RecordedRun; if false, the simulation does not
    represent the run."""

    run: str
    workers: int
    requests: int
    tokens: int
    source: str
    measured: PolicyRow
    rows: tuple[PolicyRow, ...]
    unknown: tuple[str, ...]
    partial: bool = False
    steady: bool = True

    @property
    def own(self) -> PolicyRow:
        """The simulation with the run's own policy."""
        return next(row for row in self.rows if row.policy == self.measured.policy)


def replay(run: RecordedRun, engine: EngineModel, policies: Sequence[PolicyName] = POLICIES) -> Replay:
    """Simulates `policies`, and the run's own policy, on a fleet like the run's fleet."""
    report, rollout = run.report, run.job.spec.rollout
    cap = max(run.job.spec.sampling.max_tokens, *(length for group in run.groups for length in group.lengths))
    fleet = fleet_of(engine, run.workers, run.groups)
    names: list[PolicyName] = [*policies]
    if rollout.policy not in names:
        names.append(rollout.policy)
    rows = [row_of(name, play(fleet, run.groups, cap, rollout, name)) for name in names]
    rows.append(PolicyRow(BOUND, least_seconds(fleet, run.groups), None, None))
    seconds = report.makespan_seconds, report.tail_seconds
    measured = PolicyRow(rollout.policy, *seconds, report.idle_share, report.moves, report.preemptions)
    unknown = (*ALWAYS_UNKNOWN, *engine.notes, *run.notes, *_draft_notes(run, engine))
    requests = sum(len(group.lengths) for group in run.groups)
    return Replay(
        run.folder.name,
        run.workers,
        requests,
        report.tokens_total,
        engine.source,
        measured,
        tuple(rows),
        unknown,
        run.partial,
        run.steady,
    )


def _draft_notes(run: RecordedRun, engine: EngineModel) -> list[str]:
    if run.report.drafting is None:
        return []
    if engine.of_run:
        return ["the run drafted: it is simulated at its mean speed, drafts included, for responses of any length"]
    return [f"the run drafted: the simulated engine does not ({engine.source})"]


def best_times(run: RecordedRun, engine: EngineModel) -> BestTimes:
    """The best possible times with the run's lengths: under the run's policy, the recommended policy and an oracle, and
    the bound."""
    played = replay(run, engine, (OURS, ORACLE))
    seconds = {row.policy: row.seconds for row in played.rows}
    known = min((name for name in seconds if name not in (ORACLE, BOUND)), key=lambda name: seconds[name])
    return BestTimes(seconds[known], known, seconds[ORACLE], seconds[BOUND], played.own.seconds, list(played.unknown))


def engine_of_run(run: RecordedRun, profile: Path | None, kv_tokens: int = 0) -> EngineModel:
    """The engine of a run: `profile` if given, else the scripted engine's settings, else from the run's samples."""
    if profile is None and run.job.spec.model.engine != "scripted":
        return engine_of_samples(run.job, run.samples, kv_tokens)
    return engine_of(run.job, profile, kv_tokens)


def fleet_of(engine: EngineModel, instances: int, groups: Sequence[GroupLengths]) -> ModelledFleet:
    """A fleet of instances of `engine`, with the smallest block that MOST_ITEMS allows. Raises InputError if a response
    does not fit into the KV cache."""
    longest = max(group.prompt + max(group.lengths) for group in groups)
    if longest > engine.kv_tokens:
        raise InputError(
            f"{engine.source}: found a KV cache of {engine.kv_tokens:,} tokens, allowed: at least {longest:,}, the "
            "longest response with its prompt; pass --kv-tokens"
        )
    fleet = ModelledFleet(
        instances, engine.step, engine.kv_tokens, engine.slots, block=1, move_seconds=engine.move_seconds
    )
    requests, tokens = sum(len(group.lengths) for group in groups), tokens_of(groups)
    block = max(1, math.ceil(tokens / MOST_ITEMS))
    mean = tokens / requests * engine.step.base(1)
    look = min(least_seconds(fleet, groups) / LOOKS, mean / 10)
    return replace(fleet, block=block, look_seconds=look)


def play(
    fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int, rollout: RolloutSpec, policy: PolicyName
) -> Outcome:
    """One rollout under a policy, with the job's other settings, to the end of all responses."""
    if policy in BINDING_POLICIES:
        outcome = bound_by(policy)(fleet, groups, cap)
    else:
        settings = rollout.model_copy(update={"policy": policy})
        outcome = DividedRollout(fleet, groups, cap, settings).run()
    assert len(outcome.ends) == sum(len(group.lengths) for group in groups), "the simulation made no progress"
    return outcome


def row_of(policy: str, outcome: Outcome) -> PolicyRow:
    """The row of a policy, from its outcome."""
    return PolicyRow(policy, outcome.seconds, outcome.tail_seconds, outcome.idle, outcome.moves, outcome.preemptions)
